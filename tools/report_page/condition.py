"""What is known of a copy in one word, and how much an image needs an operator."""

import enum

from glance_replicas.model import Result
from glance_replicas.verdict import Evidence, Verdict


class Condition(enum.StrEnum):
    """What a last verification means, in one word."""

    INTACT = "intact"  # every byte was read
    SHALLOW = "shallow"  # intact as far as was verified: not every byte
    DAMAGED = "damaged"
    UNKNOWN = "unknown"
    NEVER = "never"  # verified

    @classmethod
    def of(cls, last: Result | None) -> "Condition":
        """That of a location with this last result."""
        if last is None:
            return cls.NEVER
        found = cls.of_verdict(last.verdict)
        return cls.SHALLOW if found is cls.INTACT and last.evidence is not Evidence.FULL else found

    @classmethod
    def of_verdict(cls, verdict: Verdict) -> "Condition":
        """That of a location with this verdict, where every byte was read."""
        return (cls.DAMAGED, cls.UNKNOWN, cls.INTACT)[verdict.gravity]


class Severity(enum.IntEnum):
    """How much an image needs an operator, the most first."""

    NOWHERE = 0  # it has no location at all
    ONLY_CACHED = 1  # no location in a store
    AT_RISK = 2  # something is damaged and no durable copy is known to be good
    DURABLE_DAMAGED = 3
    CACHED_DAMAGED = 4
    UNKNOWN = 5
    NEVER = 6
    SHALLOW = 7
    FINE = 8

    @property
    def is_trouble(self) -> bool:
        """There is something to do about it."""
        return self <= Severity.UNKNOWN
