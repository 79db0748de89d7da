"""Why a location may have to go: one rule for each reason. No I/O, and no word of what stays: that is `proof`'s.

A cause either says in words why the location is condemned, or gives a Doubt. Facts that were gathered for it (hosts,
pins, counts of use) are as of the moment they were gathered; whoever acts gathers them anew just before.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..location import is_ours
from ..model import Image, Location, Result
from ..stores import kinds
from ..verdict import Evidence, Verdict

DAMAGED = tuple(verdict for verdict in Verdict if verdict.is_damage)
Identity = Callable[[Location], Hashable]
Held = tuple[str, str]  # image id and host: one cached copy


@dataclass(frozen=True)
class Doubt:
    """Why a location is not condemned. `unknown`: for want of an answer, rather than because of one."""

    reason: str
    unknown: bool = False


class Cause(Protocol):
    """One reason to remove a location. `leaves_bytes`: only the row goes, whoever keeps the bytes is told nothing."""

    @property
    def name(self) -> str:
        """A word for the record."""

    @property
    def leaves_bytes(self) -> bool:
        """Whether only the row goes."""

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """Why `target` goes from `image`; `results` are the fresh ones of the copy behind it, under whatever name."""


@dataclass(frozen=True)
class Damaged:
    """Every fresh verification agrees that the copy is bad, in a state that is to go, and was deep enough to say so."""

    states: Collection[Verdict] = DAMAGED
    name: ClassVar[str] = "damaged"
    leaves_bytes: ClassVar[bool] = False

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """By the verifications alone."""
        verdicts = {result.verdict for result in results}
        if len(verdicts) != 1:
            found = ", ".join(sorted(verdicts))
            reason = f"verifications disagree: {found}" if verdicts else "its state is not known"
            return Doubt(reason, unknown=True)
        verdict, first = verdicts.pop(), results[0]
        if verdict.is_unknown:
            return Doubt(f"its state is not known ({verdict}): {first.detail}".rstrip(": "), unknown=True)
        if verdict not in self.states or not verdict.is_damage:
            return Doubt(f"it is {verdict}")
        if verdict is Verdict.CORRUPT and first.evidence not in (Evidence.STORED, Evidence.FULL):
            return Doubt(f"it is corrupt by evidence {first.evidence} only", unknown=True)
        if verdict is Verdict.WRONG_SIZE and kinds.of(first.location.url).is_web:
            # A login page or an error page with status 200 looks just like it.
            return Doubt("a wrong size from a web server may be another page, not a bad copy", unknown=True)
        return f"{verdict}, evidence {first.evidence}" + (f": {first.detail}" if first.detail else "")


@dataclass(frozen=True)
class Ordered:
    """A cached copy goes because the operator says so, whatever its state, unless it is pinned."""

    pinned: Collection[Held] = ()
    name: ClassVar[str] = "order"
    leaves_bytes: ClassVar[bool] = False

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """Any registration of ours."""
        return _stays(target, self.pinned) or "cached copy, removed by order"


@dataclass(frozen=True)
class DeadHost:
    """A cached copy on a host that is dead, or that nobody has heard of. The host's own files are its own business."""

    ages: Mapping[str, float]  # seconds since each known host was heard of
    dead_after_seconds: float
    name: ClassVar[str] = "dead host"
    leaves_bytes: ClassVar[bool] = True  # a host that comes back registers what it still holds

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """By the host's heartbeat."""
        if doubt := _stays(target, ()):
            return doubt
        if not any(age <= self.dead_after_seconds for age in self.ages.values()):
            return Doubt("the ledger knows no living host at all: is it the right one?", unknown=True)
        age = self.ages.get(target.host or "")
        if age is None:
            return f"dead host: the ledger knows no host {target.host}"
        if age <= self.dead_after_seconds:
            return Doubt(f"its host {target.host} is alive")
        return f"dead host: {target.host} was last heard of {age / 3600:.1f} h ago"


@dataclass(frozen=True)
class Duplicate:
    """Another, older row surely names the same copy; that one stays, and its bytes with it, known to be intact."""

    surely: Callable[[Location, Location], bool] = lambda one, other: True
    name: ClassVar[str] = "duplicate"
    leaves_bytes: ClassVar[bool] = True

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """By identity and the order of the rows; what is no cached copy must have been read, too."""
        elders = [elder for elder in _elders(image, target) if identity(elder) == identity(target)]
        if not elders:
            return Doubt("no older location names the same copy")
        older = next((elder for elder in elders if self.surely(elder, target)), None)
        if older is None:
            return Doubt(f"whether location {elders[0].row} names the same copy cannot be told")
        if not target.is_cached and not proves_intact(results):
            unknown = not results or any(result.verdict.is_unknown for result in results)
            return Doubt("the copy that both locations name is not proven intact", unknown=unknown)
        return f"duplicate: location {older.row} names the same copy, and stays"


@dataclass(frozen=True)
class Surplus:
    """More cached copies than are wanted: those on dead hosts go first, then those used least; pinned ones stay."""

    keep: int
    living: Collection[str]  # names of hosts
    pinned: Collection[Held]
    downloads: Mapping[Held, int]
    name: ClassVar[str] = "surplus"
    leaves_bytes: ClassVar[bool] = False

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """By rank among the image's cached copies as the catalogue has them."""
        if doubt := _stays(target, self.pinned):
            return doubt
        ranked = sorted(filter(is_ours, image.locations), key=self._rank, reverse=True)
        places = list(dict.fromkeys(identity(location) for location in ranked))
        if places.index(identity(target)) < self.keep:
            return Doubt(f"it is one of the {self.keep} cached copies to keep")
        used = self.downloads.get((target.image_id, target.host or ""), 0)
        return f"surplus: {len(places)} cached copies, {self.keep} to keep; this one was used {used} times"

    def _rank(self, location: Location) -> tuple[bool, bool, int, int]:
        held = location.image_id, location.host or ""
        return location.host in self.living, held in self.pinned, self.downloads.get(held, 0), -(location.row or 0)


@dataclass(frozen=True)
class Unused:
    """A cached copy that nobody has read for so long, and that is no younger than that."""

    seconds: float
    known_seconds: float  # how far back the counts of use go
    downloads: Mapping[Held, int]  # in that time
    ages: Mapping[int, float]  # seconds since each row was made
    pinned: Collection[Held]
    name: ClassVar[str] = "unused"
    leaves_bytes: ClassVar[bool] = False

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """By the counts of use."""
        if doubt := _stays(target, self.pinned):
            return doubt
        if self.known_seconds < self.seconds:
            return Doubt("the ledger's counts of use do not go back so far", unknown=True)
        age = self.ages.get(target.row or 0)
        if age is None:
            return Doubt("it is not known when it was registered", unknown=True)
        if age < self.seconds:
            return Doubt("it is younger than that")
        if self.downloads.get((target.image_id, target.host or ""), 0):
            return Doubt("it was used")
        return f"unused for {self.seconds / 86400:.0f} days on host {target.host}"


@dataclass(frozen=True)
class OverQuota:
    """A cached copy of a host that has more bytes registered than it should."""

    limit: int  # bytes
    held: int  # bytes registered on the host of the target, without what is on its way out
    pinned: Collection[Held]
    name: ClassVar[str] = "quota"
    leaves_bytes: ClassVar[bool] = False

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """By the sum; which copy goes first is the caller's choice."""
        if doubt := _stays(target, self.pinned):
            return doubt
        if self.held <= self.limit:
            return Doubt(f"host {target.host} is within its quota by now")
        return f"over quota: host {target.host} has {self.held} bytes registered, {self.limit} allowed"


@dataclass(frozen=True)
class Again:
    """It was withdrawn before, and is there: the removal was interrupted, or a stale save brought the row back."""

    cause: Cause
    number: int  # of the earlier withdrawal
    finished: bool

    @property
    def name(self) -> str:
        """That of the cause behind it."""
        return self.cause.name

    @property
    def leaves_bytes(self) -> bool:
        """As it was to be."""
        return self.cause.leaves_bytes

    def judge(self, image: Image, target: Location, results: Sequence[Result], identity: Identity) -> str | Doubt:
        """The same cause must hold once more."""
        found = self.cause.judge(image, target, results, identity)
        if isinstance(found, Doubt):
            return found
        what = "was withdrawn and came back" if self.finished else "was begun and not finished"
        return f"withdrawal {self.number} {what}: {found}"


def _elders(image: Image, target: Location) -> list[Location]:
    """The locations that are older than `target`, the oldest first."""
    row = target.row
    older = [
        location for location in image.locations if location.row is not None and row is not None and location.row < row
    ]
    return sorted(older, key=lambda location: location.row or 0)


def proves_intact(results: Sequence[Result]) -> bool:
    """Whether one verification read every byte, and none says anything but intact."""
    read = any(result.evidence is Evidence.FULL for result in results)
    return read and all(result.verdict is Verdict.INTACT for result in results)


def _stays(target: Location, pinned: Collection[Held]) -> Doubt | None:
    """Why no cause but damage may take it: only our own registrations go, and of these no pinned one."""
    if not is_ours(target):
        return Doubt("it is no cached copy on a host: only those may go while they are intact")
    if (target.image_id, target.host) in pinned:
        return Doubt(f"it is pinned on host {target.host}")
    return None
