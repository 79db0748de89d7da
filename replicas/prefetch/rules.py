"""Which images are kept on how many hosts, and the share of one host in that. Rules only, no I/O.

Every host decides for itself, and all come to the same: those that hold an image count first, then the others in an
order that only the image and their names decide (rendezvous hashing).
"""

import fnmatch
import hashlib
import heapq
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..location import is_replica_of
from ..model import Host, Image
from .policy import Described, Priority, Wish, World

Top = tuple[int, int]  # the first so many in so many days


@dataclass(frozen=True)
class Match:
    """What must be true of an image, all of it; of several values any. Empty or None: not asked."""

    tag: tuple[str, ...] = ()
    name: tuple[str, ...] = ()  # shell patterns
    owner: tuple[str, ...] = ()
    visibility: tuple[str, ...] = ()
    property: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    popular: Top | None = None
    min_size: int | None = None  # bytes
    max_size: int | None = None

    def __call__(self, described: Described, popular: Mapping[Top, Container[str]]) -> bool:
        """Whether the image is meant."""
        image = described.image
        return (
            _any(self.tag, described.tags.__contains__)
            and _any(self.name, lambda pattern: fnmatch.fnmatchcase(image.name or "", pattern))
            and _any(self.owner, lambda owner: owner == image.owner)
            and _any(self.visibility, lambda visibility: visibility == image.visibility)
            and all(described.properties.get(key) in values for key, values in self.property.items())
            and (self.popular is None or image.id in popular[self.popular])
            and (self.min_size or 0) <= (image.size or 0)
            and (self.max_size is None or (image.size or 0) <= self.max_size)
        )


@dataclass(frozen=True)
class Rule:
    """One rule; `copies` None means every host."""

    name: str
    match: Match
    copies: int | None
    priority: Priority = Priority.LOW
    pin: bool = False
    per_zone: bool = False
    zones: tuple[str, ...] = ()

    def share(self, image: Image, hosts: Sequence[Host]) -> "Share":
        """Which of these hosts are to have the image."""
        holders = _holders(image, hosts)
        chosen: list[str] = []
        wanted = 0
        for names in self._groups(hosts):
            wanted += len(names) if self.copies is None else self.copies
            chosen += names if self.copies is None else _first(image.id, names, holders, self.copies)
        present = tuple(name for name in chosen if name in holders)
        return Share(wanted, present, tuple(name for name in chosen if name not in holders))

    def _groups(self, hosts: Sequence[Host]) -> list[list[str]]:
        """The hosts among which `copies` are made: one group, or one for each zone, also for one without hosts."""
        meant = [host for host in hosts if not self.zones or host.zone in self.zones]
        if not self.per_zone:
            return [[host.name for host in meant]]
        zones = self.zones or sorted({host.zone or "" for host in meant})
        return [[host.name for host in meant if (host.zone or "") == zone] for zone in zones]


@dataclass(frozen=True)
class Share:
    """What a rule wants of one image: so many copies, on hosts that have it and on hosts that are to fetch it.

    Fewer hosts than `wanted`: there are not as many.
    """

    wanted: int
    present: tuple[str, ...]
    missing: tuple[str, ...]


def wishes(rules: Sequence[Rule], world: World) -> Iterator[Wish]:
    """What this host should have by these rules; an image that two rules want comes twice."""
    for rule, image, share in shares(rules, world):
        if world.here in share.present or world.here in share.missing:
            yield Wish(image.id, f"rule: {rule.name}", rule.priority, rule.pin)


def shares(rules: Sequence[Rule], world: World) -> Iterator[tuple[Rule, Image, Share]]:
    """Each image that a rule means, with what the rule wants; a stream by image, then rule."""
    tops = {rule.match.popular for rule in rules if rule.match.popular is not None}
    popular = {(top, days): {image_id for image_id, _ in world.popular(days, top)} for top, days in tops}
    for image in world.images() if rules else ():
        for rule in rules:
            if rule.match(image, popular):
                yield rule, image.image, rule.share(image.image, world.hosts)


def _any(values: Collection[str], holds: Any) -> bool:
    return not values or any(map(holds, values))


def _holders(image: Image, hosts: Iterable[Host]) -> set[str]:
    known = {host.name: host for host in hosts}
    rows = [location for location in image.cached if location.host in known]
    return {row.host for row in rows if row.host and is_replica_of(row, row.host, known[row.host].url)}


def _first(image_id: str, names: Sequence[str], holders: Container[str], copies: int) -> list[str]:
    """The hosts that are to have the image: those that have it, then the highest hash of image and name."""

    def order(name: str) -> bytes:
        return hashlib.sha256(f"{image_id}{name}".encode()).digest()

    held = heapq.nlargest(copies, (name for name in names if name in holders), order)
    return held + heapq.nlargest(copies - len(held), (name for name in names if name not in holders), order)
