"""The rules that say which locations are to be verified, and which part of them. No I/O."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from ..model import Last
from ..verdict import Evidence, Verdict


@dataclass(frozen=True)
class Schedule:
    """Every location is to be verified to this depth, but for those verified `since` then; None: all are.

    With `run` anything found since the run began counts, whatever it was. Without, only what is intact is fresh, and
    only if it was verified as deep: damage, and what is not known, is always verified again. So is what could be
    compared with nothing, except with `accepts_unverifiable`: to read it once more would find no more.
    """

    evidence: Evidence
    now: datetime  # by the ledger's clock, as all moments here
    since: datetime | None = None
    run: bool = False
    accepts_unverifiable: bool = False

    def is_fresh(self, last: Last | None) -> bool:
        """Whether a location of which the ledger says this need not be verified now. `skip_fresh` has it in SQL."""
        if last is None or self.since is None:
            return False
        if self.run:
            at = self.tried_at(last)
            return at is not None and at >= self.since
        is_deep = last.evidence.depth >= self.evidence.depth
        at = last.checked_at if is_deep else last.full_checked_at
        differs = last.verdict is Verdict.UNVERIFIABLE and last.evidence is Evidence.SAMPLE
        is_good = not differs and last.standing in self.good and (is_deep or last.full_verdict in self.good)
        return is_good and at is not None and self.since <= at <= self.now  # a moment to come is a clock that was wrong

    @property
    def good(self) -> tuple[Verdict, ...]:
        """The verdicts that can make a location fresh, without `run`."""
        return (Verdict.INTACT, Verdict.UNVERIFIABLE) if self.accepts_unverifiable else (Verdict.INTACT,)

    def tried_at(self, last: Last | None) -> datetime | None:
        """When it was last verified as deep, whatever came of it; None: never.

        Only a full verification leaves a mark of its own. Of the other depths any counts, since a place that cannot say
        more is asked for its length.
        """
        if last is None:
            return None
        if self.evidence is not Evidence.FULL or last.evidence is Evidence.FULL or last.verdict is not Verdict.INTACT:
            return last.checked_at
        return last.full_checked_at


def judged_at(last: Last | None, evidence: Evidence) -> datetime | None:
    """When a verification at least so deep last told whether the bytes are right; None: never. Any tells damage."""
    if last is None:
        return None
    if last.verdict.is_damage or (last.verdict is Verdict.INTACT and last.evidence.depth >= evidence.depth):
        return last.checked_at
    return last.full_checked_at


@dataclass(frozen=True)
class Sample:
    """Places whose key falls into [first, end) of a circle of 1.0, turned by the seed; of these the oldest `bytes`."""

    text: str = "all"
    first: float = 0.0
    end: float = 1.0
    bytes: int | None = None
    is_random: bool = False

    def has(self, place: str, seed: str) -> bool:
        """Whether a place (`ledger.place_key`) is in it. The parts 1/t to t/t have each place once, with any seed."""
        if self.first == 0.0 and self.end == 1.0:
            return True
        key = hashlib.sha256(f"{seed}/{place}".encode()).hexdigest() if self.is_random else place
        return self.first <= _point(key) < self.end


EVERYTHING = Sample()


def _point(key: str) -> float:
    """Where a key in hexadecimal is on the circle."""
    return int(key[:13], 16) / 16**13
