"""`replica list`: every location of every image, with what is known of its state."""

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from glance_replicas.catalogue.selection import Selection
from glance_replicas.ledger.ledger import place_key
from glance_replicas.location import kind, redact
from glance_replicas.model import Image, Last, Location
from glance_replicas.removal.last_copy import is_damaged, only_cached

from .. import advice
from ..command import OnHostLister
from ..options import selection
from ..output.cells import Bytes, Text, When
from ..output.formats import AtOnce

_CELLS: dict[str, type[Text] | type[Bytes] | type[When] | None] = {  # how people read each column; None: as it is
    "Image": None,
    "Name": Text,
    "Status": None,
    "Size": Bytes,
    "Kind": None,
    "Host": Text,
    "Zone": Text,
    "Store": Text,
    "Verdict": Text,
    "Evidence": Text,
    "Checked": When,
    "URL": None,
}
COLUMNS = tuple(_CELLS)


class List(OnHostLister):
    """List the locations of images, one row each, with the last verdict.

    Reads the catalogue and the ledger, no image data. `-f jsonl` streams any number of rows, one JSON object a line.
    Exit status: 0 done; 3 an id names no image, or the catalogue does not answer.
    """

    example = "replica list --host api1 --state corrupt"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser, state=True)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The rows, a stream."""
        rows = self._rows(selection.from_arguments(parsed_args, state=True))
        if parsed_args.formatter == "jsonl":  # of millions of rows, and the values are what it takes
            return COLUMNS, AtOnce(rows)
        return COLUMNS, self._texts(rows)

    def _texts(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """As people read them. The time is asked for behind the first row: one database that is away is one message."""
        now: datetime | None = None
        for row in rows:
            now = now or self.now()
            yield tuple(map(_shown, _CELLS.values(), row, itertools.repeat(now)))

    def _rows(self, wanted: Selection) -> Iterator[tuple[Any, ...]]:
        for image, lasts in self.with_lasts(wanted, early=True):
            is_safe = False
            for location in wanted.of(image):
                last = lasts.get((image.id, place_key(location)))
                is_safe = is_safe or (not location.is_cached and not is_damaged(last))
                if wanted.state is None or wanted.has_state(last):
                    yield _row(image, location, last)
            if not is_safe and only_cached(image, lasts):
                self.note(f"{advice.only_cached(image)}; next: {advice.put_back(image)}")
            if image.has_no_copy and wanted.takes_every_location:
                self.note(f"image {image.id} has no location at all: nobody can download it")


def _shown(cell: type[Text] | type[Bytes] | type[When] | None, value: Any, now: datetime) -> Any:
    if cell is None:
        return value
    return When(value, now) if issubclass(cell, When) else cell(value)


def _row(image: Image, location: Location, last: Last | None) -> tuple[Any, ...]:
    """In the order of the columns."""
    what = (image.id, image.name, image.status, image.size)
    where = (kind(location), location.host, location.zone, location.store)
    shown: tuple[Any, ...] = (None, None, None)
    if last is not None:
        verdict, evidence, checked_at = last.shown
        shown = (verdict.value, evidence.value, checked_at)
    return (*what, *where, *shown, redact(location.url))
