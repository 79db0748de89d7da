"""What an order of `replica prune` rests on: facts from catalogue and ledger, asked anew for every decision."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..errors import LedgerError
from ..ledger.ledger import Ledger, Withdrawal, place_key
from ..ledger.pins import Pins
from ..ledger.usage import KEPT_DAYS, Usage
from ..location import is_ours
from ..model import Image, Location
from ..verdict import Verdict
from . import causes
from .causes import Cause, Held

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue
    from ..verify.copy_identities import CopyIdentities

DAY = 86400.0
UNDER_WAY_SECONDS = 600.0  # many times what may pass between the note of a removal and the deed
COUNTED_DAYS = 30  # of use, when copies are put in order by it
MOST_UNUSED_SECONDS = (KEPT_DAYS - 10) * DAY
Causes = Callable[[Sequence[Image]], Callable[[Location], Cause]]


@dataclass(frozen=True)
class RemovalOrder:
    """What the operator wants gone. `causes` asks for the facts about some images, as of now."""

    causes: Causes
    min_durable: int = 1
    reads_targets: bool = True  # what may go is verified, too, not only what stays


class RemovalFacts:
    """Makes causes. Every method raises CatalogueError or LedgerError when a fact cannot be asked for."""

    def __init__(
        self,
        catalogue: "Catalogue",
        ledger: Ledger,
        *,
        dead_after_seconds: float,
        pin_property: str | None = None,
        spares_pinned: bool = True,
        places: "CopyIdentities | None" = None,
    ) -> None:
        self._catalogue, self._ledger = catalogue, ledger
        self._pins, self._uses = Pins(ledger.database), Usage(ledger.database)
        self._dead_after_seconds, self._pin_property = dead_after_seconds, pin_property
        self._spares_pinned = spares_pinned
        self._duplicate = causes.Duplicate(places.surely) if places else causes.Duplicate()

    def damaged(self, images: Sequence[Image], states: Collection[Verdict]) -> Callable[[Location], Cause]:
        """Bad copies; and what was withdrawn before and is there. A ledger that is away knows of none such."""
        before = self._before([image.id for image in images])
        pinned = self.pinned(images) if before else frozenset()

        def cause(location: Location) -> Cause:
            earlier = before.get((location.image_id, location.row or 0))
            if earlier is None or earlier.place != place_key(location):
                return causes.Damaged(states)
            return causes.Again(self._like(earlier, location, pinned), earlier.id, earlier.finished_at is not None)

        return cause

    def _before(self, image_ids: Sequence[str]) -> dict[tuple[str, int], Withdrawal]:
        """The last request for each row; of rows that were made before it: a new registration may have its number."""
        try:
            found = self._ledger.withdrawn(image_ids)
            now = self._ledger.now() if found else datetime.now(UTC)
        except LedgerError:  # a plan needs no ledger, and without one nothing is done
            return {}
        ages = self._catalogue.ages({image_id for image_id, _ in found})
        asked = {key: (now - request.requested_at).total_seconds() for key, request in found.items()}
        return {key: request for key, request in found.items() if ages.get(key[1], 0.0) > asked[key]}

    def ordered(self, images: Sequence[Image]) -> Callable[[Location], Cause]:
        """Cached copies as such."""
        found = causes.Ordered(self.pinned(images))
        return lambda _: found

    def dead(self, images: Sequence[Image]) -> Callable[[Location], Cause]:
        """Cached copies on dead hosts."""
        found = causes.DeadHost(self.host_ages(), self._dead_after_seconds)
        return lambda _: found

    def duplicates(self, images: Sequence[Image]) -> Callable[[Location], Cause]:
        """Second names of one copy."""
        return lambda _: self._duplicate

    def surplus(self, images: Sequence[Image], keep: int) -> Callable[[Location], Cause]:
        """More cached copies than are wanted."""
        found = causes.Surplus(keep, self.living(), self.pinned(images), self.downloads(images))
        return lambda _: found

    def unused(self, images: Sequence[Image], seconds: float) -> Callable[[Location], Cause]:
        """Cached copies that nobody reads."""
        ids = [image.id for image in images]
        downloads = self._uses.of_copies(ids, math.ceil(seconds / DAY) + 1)
        found = causes.Unused(seconds, self.known_seconds(), downloads, self._catalogue.ages(ids), self.pinned(images))
        return lambda _: found

    def over_quota(self, images: Sequence[Image], limit: int) -> Callable[[Location], Cause]:
        """Cached copies of hosts that hold too much; asked for once for each host."""
        pinned, held = self.pinned(images), dict[str, int]()

        def cause(location: Location) -> Cause:
            host = location.host or ""
            if host not in held:
                held[host] = self.held(host, but=location if len(images) == 1 else None)
            return causes.OverQuota(limit, held[host], pinned)

        return cause

    def pinned(self, images: Sequence[Image]) -> frozenset[Held]:
        """Which cached copies of these images are to stay; none when the operator wants pinned ones gone, too."""
        if not self._spares_pinned:
            return frozenset()
        ids = [image.id for image in images]
        by_order = {(pin.image_id, pin.host) for pin in self._pins.all(ids)}
        everywhere = self._catalogue.with_property(self._pin_property, ids) if self._pin_property else set()
        by_property = {(location.image_id, location.host or "") for image in images for location in image.cached}
        return frozenset(by_order | {held for held in by_property if held[0] in everywhere})

    def host_ages(self) -> dict[str, float]:
        """Seconds since each host was heard of."""
        return {host.name: host.age_seconds for host in self._ledger.hosts()}

    def living(self) -> frozenset[str]:
        """The hosts that were heard of not long ago."""
        ages = self.host_ages()
        return frozenset(name for name in ages if ages[name] <= self._dead_after_seconds)

    def downloads(self, images: Sequence[Image]) -> dict[Held, int]:
        """How often each copy was read of late."""
        return self._uses.of_copies([image.id for image in images], COUNTED_DAYS)

    def known_seconds(self) -> float:
        """How far back counts of use go."""
        return self._uses.known_days() * DAY

    def held(self, host: str, *, but: Location | None = None) -> int:
        """Bytes registered on a host, without the copies (`but` this one) that somebody is about to withdraw.

        Requests are read before rows: one that is done in between counts as gone, so that of two that remove at once
        at least one sees the other, and neither takes more than is over. What was asked for long ago, and is there, was
        interrupted: nobody removes it any more, the verifications behind it being too old.
        """
        requests = self._ledger.withdrawals(10000, host=host, is_open=True, within_seconds=UNDER_WAY_SECONDS)
        going = {request.place for request in requests} - ({place_key(but)} if but else set())
        rows = [copy for copy in self._catalogue.registrations(host) if is_ours(copy)]
        staying = {row.image_id for row in rows if place_key(row) not in going}
        return sum(image.size or 0 for image in self._catalogue.images(staying))

    def _like(self, earlier: Withdrawal, location: Location, pinned: frozenset[Held]) -> Cause:
        """The cause to try once more; what was no damage is an order by now, its facts being of another day."""
        name = (earlier.proof or {}).get("cause", causes.Damaged.name)
        if name == causes.Duplicate.name:
            return self._duplicate
        if name == causes.Damaged.name or not is_ours(location):
            return causes.Damaged()
        return causes.Ordered(pinned)
