"""Verdicts: what a verification of a location came to, and all that follows from the word. A new one is a line here."""

import enum


class Nature(enum.Enum):
    """What a verdict says of the bytes."""

    INTACT = "intact"
    DAMAGE = "damage"  # they are known to be gone or wrong
    PATH = "path"  # not known; the way to them may be at fault and not they: worth another try, or another way
    UNKNOWN = "unknown"  # they could not be judged


class Verdict(enum.StrEnum):
    """The outcome of verifying one location. What to do next has fields: the `place`, the command to verify `again`."""

    nature: Nature
    symbol: str
    next_step: str

    INTACT = "intact", Nature.INTACT, "✓"
    MISSING = "missing", Nature.DAMAGE, "∅"
    CORRUPT = "corrupt", Nature.DAMAGE, "✗"
    WRONG_SIZE = "wrong_size", Nature.DAMAGE, "≠"
    UNREACHABLE = "unreachable", Nature.PATH, "?", "make sure that {place} answers, then: {again}"
    DENIED = (
        *("denied", Nature.PATH, "⊘"),
        "check signing keys, credentials and permissions of {place} (replica check), then: {again}",
    )
    UNSUPPORTED = (
        *("unsupported", Nature.UNKNOWN, "·"),
        "verify it on a host whose glance-api.conf has that store enabled",
    )
    UNVERIFIABLE = (
        *("unverifiable", Nature.UNKNOWN, "¬"),
        "the image has no digest to compare with; download it, check it, upload it again; or, to accept such images: "
        "--allow-unverifiable",
    )
    STALLED = "stalled", Nature.PATH, "…", "find out why {place} is slow, then: {again}"
    UNKNOWN = "unknown", Nature.UNKNOWN, "¿"  # a word of a newer version of ours, or of somebody else

    def __new__(
        cls, word: str, nature: Nature = Nature.UNKNOWN, symbol: str = "", next_step: str = "{again}"
    ) -> "Verdict":
        """One of these."""
        verdict = str.__new__(cls, word)
        verdict._value_, verdict.nature, verdict.symbol, verdict.next_step = word, nature, symbol, next_step
        return verdict

    @classmethod
    def _missing_(cls, value: object) -> "Verdict":
        return cls.UNKNOWN

    @property
    def is_damage(self) -> bool:
        """The bytes are known to be gone or wrong."""
        return self.nature is Nature.DAMAGE

    @property
    def is_unknown(self) -> bool:
        """The bytes could not be judged; nothing may be removed because of this."""
        return self.nature in (Nature.PATH, Nature.UNKNOWN)

    @property
    def is_path_fault(self) -> bool:
        """The way to the bytes may be at fault and not they: worth another try, or another way."""
        return self.nature is Nature.PATH

    @property
    def gravity(self) -> int:
        """For sorting: damage first, then what is not known, then intact."""
        return 0 if self.is_damage else 1 if self.is_unknown else 2


class Evidence(enum.StrEnum):
    """How deep the verification was, shallow first."""

    SIZE = "size"
    STORED = "stored"
    SAMPLE = "sample"
    FULL = "full"

    @classmethod
    def _missing_(cls, value: object) -> "Evidence":
        """A word of a newer version counts for the least there is."""
        return cls.SIZE

    @property
    def depth(self) -> int:
        """0 for the shallowest."""
        return _DEPTHS[self]


_DEPTHS = {evidence: number for number, evidence in enumerate(Evidence)}
