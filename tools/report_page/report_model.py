"""What is known of all copies, added up: by place, by state, by how long ago they were verified, the worst first."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from glance_replicas.ledger.ledger import place_key
from glance_replicas.location import kind
from glance_replicas.model import Host, Image, Last, Location, Result
from glance_replicas.removal.last_copy import has_store
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.freshness import NEVER, Freshness
from glance_replicas.verify.schedule import judged_at
from glance_replicas.verify.summary import IntactCopies

from .. import advice
from ..output.text import short
from .condition import Condition, Severity


@dataclass(frozen=True, order=True)
class Holder:
    """Where copies are: a store, or a host. Stores sort first, hosts by zone."""

    is_host: bool
    zone: str
    name: str

    def __str__(self) -> str:
        return f"host {self.name}" if self.is_host else f"store {self.name}"

    @classmethod
    def of(cls, location: Location) -> "Holder":
        """That of a location; in a single-store cloud the store has no name and the scheme stands for it."""
        if location.host is not None:
            return cls(True, location.zone or "", location.host)
        return cls(False, "", location.store or kind(location))


class CopyRow(NamedTuple):
    """One location with what is known of it."""

    location: Location
    last: Result | None  # the last verification; the last full one where no verification since saw anything else
    judged_at: datetime | None = None  # when it was last told from every byte whether it is good


@dataclass(frozen=True)
class ImageRow:
    """One image with its copies."""

    image: Image
    copies: tuple[CopyRow, ...]
    allows_undigested: bool = False  # that an image has no digest is no trouble

    @property
    def undigested(self) -> int:
        """Copies of which no more could be said than that the image has no digest."""
        lasts = [copy.last for copy in self.copies if copy.last is not None and self.image.digest is None]
        return sum(last.verdict is Verdict.UNVERIFIABLE for last in lasts)

    @functools.cached_property  # asked several times of each row
    def severity(self) -> Severity:
        """The worst that can be said of it."""
        if self.image.has_no_copy:
            return Severity.NOWHERE
        if self.image.locations and not has_store(self.image):
            return Severity.ONLY_CACHED
        conditions = [Condition.of(copy.last) for copy in self.copies]
        found = set(conditions)
        if self.allows_undigested and conditions.count(Condition.UNKNOWN) == self.undigested:
            found.discard(Condition.UNKNOWN)
        if Condition.DAMAGED in found:
            durable = {Condition.of(copy.last) for copy in self.copies if not copy.location.is_cached}
            if Condition.INTACT not in durable:
                return Severity.AT_RISK
            return Severity.DURABLE_DAMAGED if Condition.DAMAGED in durable else Severity.CACHED_DAMAGED
        order = (Condition.UNKNOWN, Condition.NEVER, Condition.SHALLOW)
        return next((Severity[condition.name] for condition in order if condition in found), Severity.FINE)

    @property
    def rank(self) -> tuple[int, str, str]:
        """The worst first, then by name."""
        return self.severity, self.image.name or "", self.image.id

    @property
    def without(self) -> str:
        """What an image lacks as a whole, in words."""
        return "no durable copy is left, only cached ones" if self.image.locations else "it has no location at all"

    def problems(self) -> Iterator[tuple[Location | None, Result | None, str]]:
        """What is damaged or not known, damage first, each with what to do; for an image that no store has one more."""
        if self.image.has_no_copy:
            yield None, None, "nobody can download it: restore the data, or delete the image"
        elif self.severity is Severity.ONLY_CACHED:
            yield None, None, advice.put_back(self.image)
        good = IntactCopies()
        known = [copy.last for copy in self.copies if copy.last is not None]
        for last in known:
            good.add(last)
        bad = [last for last in known if last.verdict is not Verdict.INTACT]
        for last in sorted(bad, key=lambda result: result.verdict.gravity):
            yield last.location, last, advice.next_step(self.image, last, good)


@dataclass
class Sum:
    """Copies added up."""

    copies: int = 0
    bytes: int = 0  # by the images' sizes
    conditions: Counter[str] = field(default_factory=Counter)

    def add(self, size: int | None, condition: Condition) -> None:
        """One more copy."""
        self.copies += 1
        self.bytes += size or 0
        self.conditions[condition] += 1


@dataclass
class ReportModel:
    """The sum of all rows; `now` is the moment the ages are of."""

    now: datetime
    hosts: list[Host]
    dead_after_seconds: float
    images: int = 0
    bytes: int = 0
    nowhere: int = 0  # images without any location
    only_cached: int = 0  # images without a location in a store
    troubled: int = 0  # images with trouble of any kind
    undigested: int = 0  # copies that are unverifiable because their image has no digest
    durable: Sum = field(default_factory=Sum)
    cached: Sum = field(default_factory=Sum)
    places: dict[Holder, Sum] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._freshness = Freshness(self.now)
        self._hosts = {host.name: host for host in self.hosts}
        for host in self.hosts:
            self.places[Holder(True, host.zone or "", host.name)] = Sum()

    def add(self, row: ImageRow) -> None:
        """One more image."""
        size = row.image.size
        self.images += 1
        self.bytes += size or 0
        self.nowhere += row.image.has_no_copy
        self.only_cached += row.severity is Severity.ONLY_CACHED
        self.troubled += row.severity.is_trouble
        self.undigested += row.undigested
        for location, last, judged in row.copies:
            condition = Condition.of(last)
            for total in (
                self.cached if location.is_cached else self.durable,
                self.places.setdefault(self.place(location), Sum()),
            ):
                total.add(size, condition)
            self.verdicts[str(last.verdict) if last else NEVER] += 1
            self._freshness.add(judged, size)

    def place(self, location: Location) -> Holder:
        """The place a location is in; a host that the ledger knows is in the zone that the ledger says."""
        known = self._hosts.get(location.host or "")
        return Holder(True, known.zone or "", known.name) if known else Holder.of(location)

    def ages(self) -> list[tuple[str, int]]:
        """How many copies were last verified in full how long ago, the youngest first, `older` and `never` last."""
        return [(band.name, band.locations) for band in self._freshness.bands()]

    def seconds(self, last: Result) -> int | None:
        """The age of a verification."""
        return round((self.now - last.checked_at).total_seconds()) if last.checked_at else None

    def conditions(self) -> Counter[str]:
        """Of all copies."""
        return self.durable.conditions + self.cached.conditions

    def host(self, place: Holder) -> Host | None:
        """What the ledger knows of a host; None for a store, and for a host the ledger does not know."""
        return self._hosts.get(place.name) if place.is_host else None

    def state(self, place: Holder) -> str:
        """Whether a host lives: `alive`, `dead`, `not known`; nothing for a store."""
        host = self.host(place)
        if host is None:
            return "not known" if place.is_host else ""
        return "dead" if host.age_seconds > self.dead_after_seconds else "alive"

    def as_dict(self, worst: Iterable[ImageRow]) -> dict[str, Any]:
        """All of it as JSON can hold it; bytes, seconds, ISO 8601."""
        found = self.conditions()
        return {
            "made_at": self.now.isoformat(),
            "images": self.images,
            "bytes": self.bytes,
            "images_without_location": self.nowhere,
            "images_without_durable_copy": self.only_cached,
            "images_with_trouble": self.troubled,
            "copies_without_digest": self.undigested,
            "copies": {"durable": self.durable.copies, "cached": self.cached.copies},
            "conditions": {str(condition): found[condition] for condition in Condition},
            "verdicts": dict(self.verdicts),
            "freshness": dict(self.ages()),
            "places": [self._place(place, self.places[place]) for place in sorted(self.places)],
            "worst": [problem for row in worst for problem in _problems(row)],
        }

    def _place(self, place: Holder, total: Sum) -> dict[str, Any]:
        host = self.host(place)
        known: dict[str, Any] = {"kind": "host" if place.is_host else "store", "name": place.name}
        if place.is_host:
            known |= {"zone": place.zone or None, "state": self.state(place)}
        if host is not None:
            known |= {"heartbeat_age_seconds": round(host.age_seconds, 1), "files": host.files}
            known |= {"bytes_used": host.bytes_used, "bytes_free": host.bytes_free}
        counts = {str(condition): total.conditions[condition] for condition in Condition}
        return known | {"copies": total.copies, "bytes": total.bytes, "conditions": counts}


def survey(rows: Iterable[ImageRow], total: ReportModel) -> Iterator[ImageRow]:
    """The same rows, each added to the sum on its way."""
    for row in rows:
        total.add(row)
        yield row


def row(image: Image, has: Callable[[Location], bool], lasts: Mapping[tuple[str, str], Last]) -> ImageRow:
    """An image with those of its locations that are meant, and what the ledger says of each; details are left out."""
    copies = []
    for location in filter(has, image.locations):
        last = lasts.get((image.id, place_key(location)))
        copies.append(CopyRow(location, last and _result(location, last), judged_at(last, Evidence.FULL)))
    return ImageRow(image, tuple(copies))


def _result(location: Location, last: Last) -> Result:
    """The verdict that stands; that of the last full verification where no verification since saw anything else."""
    if last.full_verdict is last.standing:
        return Result(location, last.standing, Evidence.FULL, checked_at=last.full_checked_at)
    return Result(location, last.verdict, last.evidence, checked_at=last.checked_at)


def detailed(image_row: ImageRow, state: Callable[[Location], Result | None]) -> ImageRow:
    """The row with what was found in words, where something is not intact."""
    copies = []
    for copy in image_row.copies:
        known = state(copy.location) if copy.last and copy.last.verdict is not Verdict.INTACT else None
        copies.append(copy._replace(last=replace(known, location=copy.location)) if known else copy)
    return replace(image_row, copies=tuple(copies))


def _problems(row: ImageRow) -> Iterator[dict[str, Any]]:
    for location, last, step in row.problems():
        yield {
            "image": row.image.id,
            "name": row.image.name,
            "place": str(Holder.of(location)) if location else None,
            "verdict": str(last.verdict) if last else None,
            "evidence": str(last.evidence) if last else None,
            "checked_at": last.checked_at.isoformat() if last and last.checked_at else None,
            "detail": short(last.detail) if last else row.without,
            "next": step,
        }
