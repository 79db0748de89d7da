"""A ledger that work goes on without: its first failure is told, then nothing is read and nothing is kept."""

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import sqlalchemy as sa

from ..errors import LedgerError
from ..model import Image, Last, Location, Result
from ..read_ahead import read_ahead
from .ledger import Ledger, place_key

log = logging.getLogger(__name__)

BATCH = 500  # images whose verdicts are asked for at once

Lasts = Mapping[tuple[str, str], Last]  # by image id and `place_key`
T = TypeVar("T")


class BestEffortLedger:
    """`strict` is the same ledger, whose methods raise LedgerError. `note` is told one line. For threads."""

    def __init__(self, strict: Ledger, note: Callable[[str], None] = log.warning) -> None:
        self.strict, self._note = strict, note
        self.is_lost = False  # it could not be asked once, and is not asked again

    def with_lasts(self, images: Iterable[Image], *, early: bool = False) -> Iterator[tuple[Image, Lasts]]:
        """The images, and what is known of their places, in short; the same for each of a batch.

        With `early` a batch is read while the one before is worked on, for callers that do not keep it waiting.
        """
        batches = ((batch, self.lasts(batch)) for batch in _batches(images))
        for batch, lasts in read_ahead(batches) if early else batches:
            for image in batch:
                yield image, lasts

    def with_states(
        self, images: Iterable[Image], *, full: bool = False
    ) -> Iterator[tuple[Image, Callable[[Location], Result | None]]]:
        """The images, and what gives the last result of a location."""
        for batch in _batches(images):
            states = self.states(batch, full=full)
            for image in batch:
                yield image, states

    def lasts(self, images: Collection[Image]) -> Lasts:
        """As `Ledger.lasts`."""
        return self.ask(lambda: self.strict.lasts([image.id for image in images]), {})

    def states(self, images: Collection[Image], *, full: bool = False) -> Callable[[Location], Result | None]:
        """The last result of each location of these images, as `Ledger.states`."""
        none: dict[tuple[str, str], Result] = {}
        found = self.ask(lambda: self.strict.states([image.id for image in images], full=full), none)
        return lambda location: found.get((location.image_id, place_key(location)))

    def keys(self, image_ids: Collection[str], condition: sa.ColumnElement[bool]) -> set[tuple[str, str]]:
        """As `Ledger.keys`."""
        return self.ask(lambda: self.strict.keys(image_ids, condition), set())

    def now(self) -> datetime:
        """The ledger's time, which what it holds is of; else this machine's."""
        return self.ask(self.strict.now, None) or datetime.now(UTC)

    def record(self, results: Sequence[Result]) -> None:
        """As `Ledger.record`."""
        if results:
            self.ask(lambda: self.strict.record(results), None)

    def ask(self, question: Callable[[], T], otherwise: T) -> T:
        """The answer; `otherwise` without one."""
        if not self.is_lost:
            try:
                return question()
            except LedgerError as error:
                if not self.is_lost:  # another thread may have told it
                    self._note(f"verdicts are neither read nor kept: {error}")
                self.is_lost = True
        return otherwise


def _batches(images: Iterable[Image]) -> Iterator[list[Image]]:
    left = iter(images)
    while batch := list(itertools.islice(left, BATCH)):
        yield batch
