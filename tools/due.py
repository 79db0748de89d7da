"""What is due for a look: a stream out of catalogue and ledger, in bounded memory."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from glance_replicas.model import Evidence, Image, Last, Location
from glance_replicas.removal.last_copy import has_store
from glance_replicas.verify.schedule import Need

from .sampling import Sample
from .selection import Selection

if TYPE_CHECKING:
    from glance_replicas.catalogue.images import Catalogue
    from glance_replicas.ledger.ledger import Ledger

LATER = 5000  # locations that are sorted here; more are read from the ledger by its index
PAGE = 500
Lasts = Mapping[tuple[str, str], Last]


class Due(NamedTuple):
    """One location to look at; `place` is its `ledger.place_key`, `lasts` what the ledger says of its image."""

    image: Image
    location: Location
    place: str
    last: Last | None
    lasts: Lasts


class Agenda:
    """The locations of a selection at which a look is needed: those never looked at first, then the oldest look.

    Every location of the catalogue is held against the ledger once; the numbers below grow while that goes on.
    """

    def __init__(self, wanted: Selection, need: Need, sample: Sample, seed: str = "") -> None:
        self._wanted, self._need, self._sample, self._seed = wanted, need, sample, seed
        self.skipped = 0  # seen recently enough
        self.unsampled = 0  # due, and not in the sample
        self.total = 0  # due
        self.is_counted = False  # `total` is all there is

    def skip(self, number: int) -> None:
        """So many more were seen recently enough; they are not in what `stream` is given."""
        self.skipped += number

    def stream(
        self,
        images: Iterable[tuple[Image, Lasts]],
        catalogue: "Catalogue",
        ledger: "Ledger",
        bare: Callable[[Image], None],
    ) -> Iterator[Due]:
        """What is due; `bare` is told of images without any location in a store, or at all."""
        found = self._in_order(images, catalogue, ledger, bare)
        return found if self._sample.bytes is None else _up_to(self._sample.bytes, found)

    def _in_order(
        self,
        images: Iterable[tuple[Image, Lasts]],
        catalogue: "Catalogue",
        ledger: "Ledger",
        bare: Callable[[Image], None],
    ) -> Iterator[Due]:
        later: list[Due] = []
        behind = 0
        for due in self._scan(images, bare):
            if self._need.tried_at(due.last) is None:
                yield due
            else:
                behind += 1
                if behind <= LATER:
                    later.append(due)
        self.is_counted = True
        if behind <= LATER:
            yield from sorted(later, key=self._moment)
        else:
            later.clear()
            yield from itertools.islice(self._walk(catalogue, ledger), behind)

    def _scan(self, images: Iterable[tuple[Image, Lasts]], bare: Callable[[Image], None]) -> Iterator[Due]:
        """In the order of the catalogue, everything counted."""
        from glance_replicas.ledger.ledger import place_key

        for image, lasts in images:
            if not has_store(image) and (image.locations or self._wanted.takes_every_location):
                bare(image)
            for one in image.locations:
                if not self._wanted.has(one):
                    continue
                place = place_key(one)
                last = lasts.get((image.id, place))
                if not self._wanted.has_state(last):
                    continue
                if self._need.spares(last):
                    self.skipped += 1
                elif not self._sample.has(place, self._seed):
                    self.unsampled += 1
                else:
                    self.total += 1
                    yield Due(image, one, place, last, lasts)

    def _walk(self, catalogue: "Catalogue", ledger: "Ledger") -> Iterator[Due]:
        """In the order of the ledger. What was looked at since is over; what is new to it the next scan will find."""
        from glance_replicas.ledger.ledger import place_key

        rows = self._rows(ledger)
        while page := list(itertools.islice(rows, PAGE)):
            ids = {image_id for image_id, _, _ in page}
            images = {image.id: image for image in self._wanted.find(catalogue, ids)}
            lasts = ledger.lasts(images)
            for image_id, place, _ in page:
                last = lasts.get((image_id, place))
                if last is None or image_id not in images or not self._is_due(place, last):
                    continue
                for one in filter(self._wanted.has, images[image_id].locations):
                    if place_key(one) == place:
                        yield Due(images[image_id], one, place, last, lasts)

    def _rows(self, ledger: "Ledger") -> Iterator[tuple[str, str, Last]]:
        if self._need.evidence is not Evidence.FULL:
            return ledger.by_age(self._need.now)
        parts = (ledger.by_age(self._need.now, full=one) for one in (True, False))
        tried = ((row for row in part if self._need.tried_at(row[2])) for part in parts)
        return heapq.merge(*tried, key=lambda row: row[2].full_checked_at or row[2].checked_at)

    def _is_due(self, place: str, last: Last) -> bool:
        at = self._need.tried_at(last)
        if at is None or at >= self._need.now or self._need.spares(last):
            return False
        return self._wanted.has_state(last) and self._sample.has(place, self._seed)

    def _moment(self, due: Due) -> datetime:
        at = self._need.tried_at(due.last)
        assert at is not None  # what was never tried is not among them
        return at


def _up_to(size: int, found: Iterator[Due]) -> Iterator[Due]:
    """The first of them, until they have so many bytes."""
    left = size
    for due in found:
        if left <= 0:
            return
        left -= due.image.size or 0
        yield due
