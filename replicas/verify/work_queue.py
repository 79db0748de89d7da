"""What is to be verified: a stream out of catalogue and ledger, in bounded memory."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ..catalogue.selection import Selection
from ..ledger.best_effort import Lasts
from ..ledger.schema.rows import place_key
from ..model import Image, Last, Location
from ..verdict import Evidence
from .schedule import Sample, Schedule

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue
    from ..ledger.ledger import Ledger

PAGE = 500


Key = tuple[datetime, str, str]  # when it was tried last, image id, place


class WorkItem(NamedTuple):
    """One location to verify; `place` is its `ledger.place_key`, `lasts` what the ledger says of its image."""

    image: Image
    location: Location
    place: str
    last: Last | None
    lasts: Lasts


class WorkQueue:
    """The locations of a selection that are to be verified.

    Those never verified at this depth come first, then the least recently verified.

    Every location of the catalogue is held against the ledger once; the numbers below grow while that goes on. Up to
    `kept` locations are sorted here; of up to `keys` their keys are, and each is read again; more are read from the
    ledger, all of which is read then, by its index of ages.
    """

    def __init__(
        self,
        selection: Selection,
        schedule: Schedule,
        sample: Sample,
        seed: str = "",
        *,
        kept: int = 5000,
        keys: int = 100_000,
    ) -> None:
        self._selection, self._schedule, self._sample, self._seed = selection, schedule, sample, seed
        self._kept, self._keys = kept, keys
        self.skipped = 0  # fresh
        self.unsampled = 0  # due, and not in the sample
        self.total = 0  # due
        self.is_counted = False  # `total` is all there is

    def skip(self, number: int) -> None:
        """So many more are fresh; they are not in what `stream` is given."""
        self.skipped += number

    def stream(
        self,
        images: Iterable[tuple[Image, Lasts]],
        catalogue: "Catalogue",
        ledger: "Ledger",
        bare: Callable[[Image], None],
    ) -> Iterator[WorkItem]:
        """What is due; `bare` is told of images without any location in a store, or at all."""
        found = self._in_order(images, catalogue, ledger, bare)
        return found if self._sample.bytes is None else _up_to(self._sample.bytes, found)

    def _in_order(
        self,
        images: Iterable[tuple[Image, Lasts]],
        catalogue: "Catalogue",
        ledger: "Ledger",
        bare: Callable[[Image], None],
    ) -> Iterator[WorkItem]:
        later, keys = list[WorkItem](), list[Key]()
        behind = 0
        for item in self._scan(images, bare):
            if (moment := self._schedule.tried_at(item.last)) is None:
                yield item
                continue
            behind += 1
            if behind <= self._keys:
                keys.append((moment, item.image.id, item.place))
            if behind <= self._kept:
                later.append(item)
        self.is_counted = True
        if behind <= self._kept:
            yield from sorted(later, key=self._moment)
            return
        later.clear()
        rows = (
            ((image_id, place) for _, image_id, place in sorted(keys)) if behind <= self._keys else self._rows(ledger)
        )
        yield from itertools.islice(self._read(rows, catalogue, ledger), behind)

    def _scan(self, images: Iterable[tuple[Image, Lasts]], bare: Callable[[Image], None]) -> Iterator[WorkItem]:
        """In the order of the catalogue, everything counted."""
        for image, lasts in images:
            if not image.durable and (image.locations or self._selection.takes_every_location):
                bare(image)
            for location in image.locations:
                if not self._selection.has(location):
                    continue
                place = place_key(location)
                last = lasts.get((image.id, place))
                if not self._selection.has_state(last):
                    continue
                if self._schedule.is_fresh(last):
                    self.skipped += 1
                elif not self._sample.has(place, self._seed):
                    self.unsampled += 1
                else:
                    self.total += 1
                    yield WorkItem(image, location, place, last, lasts)

    def _read(self, rows: Iterator[tuple[str, str]], catalogue: "Catalogue", ledger: "Ledger") -> Iterator[WorkItem]:
        """In the order of the rows. What was verified since is over; what is new to the ledger the next scan finds."""
        while page := list(itertools.islice(rows, PAGE)):
            ids = {image_id for image_id, _ in page}
            images = {image.id: image for image in self._selection.find(catalogue, ids)}
            lasts = ledger.lasts(images)
            for image_id, place in page:
                last = lasts.get((image_id, place))
                if last is None or image_id not in images or not self._is_due(place, last):
                    continue
                for location in filter(self._selection.has, images[image_id].locations):
                    if place_key(location) == place:
                        yield WorkItem(images[image_id], location, place, last, lasts)

    def _rows(self, ledger: "Ledger") -> Iterator[tuple[str, str]]:
        """All places that the ledger knows, in its order of age."""
        if self._schedule.evidence is not Evidence.FULL:
            return ((image_id, place) for image_id, place, _ in ledger.by_age(self._schedule.now))
        parts = (ledger.by_age(self._schedule.now, full=by_full) for by_full in (True, False))
        tried = ((row for row in part if self._schedule.tried_at(row[2])) for part in parts)
        merged = heapq.merge(*tried, key=lambda row: row[2].full_checked_at or row[2].checked_at)
        return ((image_id, place) for image_id, place, _ in merged)

    def _is_due(self, place: str, last: Last) -> bool:
        at = self._schedule.tried_at(last)
        if at is None or at >= self._schedule.now or self._schedule.is_fresh(last):
            return False
        return self._selection.has_state(last) and self._sample.has(place, self._seed)

    def _moment(self, item: WorkItem) -> datetime:
        at = self._schedule.tried_at(item.last)
        assert at is not None  # what was never tried is not among them
        return at


def _up_to(size: int, found: Iterator[WorkItem]) -> Iterator[WorkItem]:
    """The first of them, until they have so many bytes."""
    left = size
    for item in found:
        if left <= 0:
            return
        left -= item.image.size or 0
        yield item
