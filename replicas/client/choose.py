"""Which copy of an image first: a rule without I/O that gives the same answer for the same seed and says why.

Order of importance: not known to be damaged; the caller's own preference; the last verification and the host's
heartbeat; the way to it (same host, same zone, other zone, a store); the cost of its kind. Copies equal in all of these
come in a random order weighted by load and observed speed, so that no host is everybody's nearest: the seed makes the
order, two callers with two seeds spread over the copies. An input nobody knows takes the median of what is known of the
others.
"""

import hashlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ..location import scheme
from ..stores import kinds
from ..verdict import Verdict

SILENT_AFTER = 180.0  # seconds without a heartbeat, three of the usual intervals: the host counts as dead
STALE_AFTER = 900.0  # seconds after which "could not be reached" says nothing any more; damage never goes stale
_STORE = 3  # the last way: the store is spared while a host can serve
_LEAST_WEIGHT = 0.05  # also a busy, slow host is asked now and then, else nothing new is learned of it


class Candidate(Protocol):
    """What is chosen from: `model.Location` is one, `document.Replica` another."""

    @property
    def url(self) -> str:
        """Where it is; names the candidate in `health`."""

    @property
    def host(self) -> str | None:
        """The host that caches it."""

    @property
    def zone(self) -> str | None:
        """The zone of that host."""

    @property
    def is_cached(self) -> bool:
        """On a host, not in a store."""


@dataclass(frozen=True)
class Here:
    """Where the caller is, and what it wants first: names of hosts or zones, best first."""

    host: str | None = None
    zone: str | None = None
    prefer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Health:
    """What is known of one copy and its host; None is "not known", never "bad"."""

    verdict: Verdict | None = None
    verdict_age_seconds: float | None = None
    heartbeat_age_seconds: float | None = None
    load: float | None = None  # 0 idle to 1 full
    bytes_per_second: float | None = None  # seen from here


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class Choice(Generic[C]):
    """One copy at its place in the order, with the reasons in words."""

    location: C
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Typical:
    """What stands in for an unknown input: the median of the known ones."""

    way: float
    cost: float
    silence: float
    load: float
    speed: float


@dataclass
class _Rank:
    """A copy's place before the draw, smaller is better, and how it came about."""

    key: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, value: float, reason: str = "") -> None:
        """One more criterion, less important than all before it."""
        self.key.append(value)
        if reason:
            self.reasons.append(reason)


def order(
    locations: Sequence[C], here: Here, health: Mapping[str, Health] | None = None, seed: int | str = 0
) -> list[Choice[C]]:
    """Every location once, best first. `health` is by URL; the order of the input decides nothing but exact doubles."""
    known = health or {}
    facts = [known.get(location.url, Health()) for location in locations]
    typical = _typical(locations, facts, here)
    ranked = []
    for place, (location, fact) in enumerate(zip(locations, facts, strict=True)):
        rank = _rank(location, fact, here, typical)
        draw = _draw(f"{seed}\n{location.url}\n{location.host}", _weight(location, fact, typical, rank))
        ranked.append((rank.key, -draw, place, Choice(location, tuple(rank.reasons))))
    ranked.sort(key=lambda item: item[:3])
    return [choice for *_, choice in ranked]


def _rank(candidate: Candidate, fact: Health, here: Here, typical: _Typical) -> _Rank:
    rank = _Rank()
    damaged = fact.verdict is not None and fact.verdict.is_damage
    rank.add(damaged)
    wanted = [place for place, name in enumerate(here.prefer) if name in (candidate.host, candidate.zone)]
    rank.add(wanted[0] if wanted else len(here.prefer), f"preferred ({here.prefer[wanted[0]]})" if wanted else "")
    rank.add(_trouble(candidate, fact, typical))
    way = _way(candidate, here)
    rank.add(typical.way if way is None else way, _way_words(candidate, here))
    cost = _cost(candidate)
    rank.add(typical.cost if cost is None else cost)
    rank.reasons += _health_words(candidate, fact)
    return rank


def _trouble(candidate: Candidate, fact: Health, typical: _Typical) -> int:
    """0 nothing known against it, 1 the last verification failed not long ago, 2 the host is silent."""
    silence = _number(fact.heartbeat_age_seconds)
    if candidate.is_cached and (typical.silence if silence is None else silence) > SILENT_AFTER:
        return 2
    failed = fact.verdict is not None and fact.verdict.is_path_fault
    return int(failed and (_number(fact.verdict_age_seconds) or 0.0) <= STALE_AFTER)


def _way(candidate: Candidate, here: Here) -> float | None:
    """0 same host, 1 same zone, 2 other zone, 3 a store; None when either side's place is not known."""
    if not candidate.is_cached:
        return _STORE
    if candidate.host is not None and candidate.host == here.host:
        return 0
    if candidate.zone is None or here.zone is None:
        return None
    return 1 if candidate.zone == here.zone else 2


def _cost(candidate: Candidate) -> float | None:
    return 0 if candidate.is_cached else kinds.of(candidate.url).cost


def _typical(locations: Sequence[Candidate], facts: Sequence[Health], here: Here) -> _Typical:
    ways = [
        way for location in locations if location.is_cached and (way := _way(location, here))
    ]  # 0, this host, is no typical one
    return _Typical(
        way=_median(ways, 1.0),
        cost=_median([_cost(candidate) for candidate in locations if not candidate.is_cached], 0.0),
        silence=_median([fact.heartbeat_age_seconds for fact in facts], 0.0),
        load=_median([fact.load for fact in facts], 0.0),
        speed=_median([fact.bytes_per_second for fact in facts], 1.0),
    )


def _median(values: Sequence[float | None], otherwise: float) -> float:
    """The lower median of what is known, so that it is one of the values."""
    known = [number for value in values if (number := _number(value)) is not None]
    return statistics.median_low(known) if known else otherwise


def _number(value: float | None) -> float | None:
    """The value when it is one that can be compared; a clock that runs backwards gives an age of 0."""
    return max(0.0, value) if value is not None and math.isfinite(value) else None


def _weight(candidate: Candidate, fact: Health, typical: _Typical, rank: _Rank) -> float:
    load, speed = _number(fact.load), _number(fact.bytes_per_second)
    if load is not None:
        rank.reasons.append(f"load {min(load, 1.0):.0%}")
    if speed is not None:
        rank.reasons.append(f"{speed / 1e6:.1f} MB/s seen")
    idle = 1.0 - min(1.0, typical.load if load is None else load)
    ratio = (typical.speed if speed is None else speed) / (typical.speed or 1.0)
    return max(_LEAST_WEIGHT, idle * min(10.0, ratio))


def _draw(text: str, weight: float) -> float:
    """Greatest first, these draws are a weighted random order (Efraimidis and Spirakis 2006)."""
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:8])
    return math.log((number + 0.5) / 2**64) / weight


def _way_words(candidate: Candidate, here: Here) -> str:
    if not candidate.is_cached:
        return f"in a store ({scheme(candidate.url) or 'unknown'})"
    way = _way(candidate, here)
    if way is None:
        return "zone not known" if candidate.zone is None else f"zone {candidate.zone}, caller's not known"
    return ("same host", f"same zone ({candidate.zone})", f"other zone ({candidate.zone})")[int(way)]


def _health_words(candidate: Candidate, fact: Health) -> list[str]:
    words = []
    age = _number(fact.verdict_age_seconds)
    if fact.verdict is None:
        words.append("never verified")
    else:
        stale = " (too long ago to count)" if fact.verdict.is_unknown and (age or 0) > STALE_AFTER else ""
        words.append(fact.verdict + (f" {ago(age)}" if age is not None else "") + stale)
    silence = _number(fact.heartbeat_age_seconds)
    if candidate.is_cached and silence is not None and silence > SILENT_AFTER:
        words.append(f"last heartbeat {ago(silence)}")
    return words


def ago(seconds: float) -> str:
    """An age in words of one unit: `42 s ago`, `5 min ago`, `3 h ago`, `9 d ago`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
