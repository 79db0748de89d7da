"""`replica list`: every location of every image, with what is known of its state."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from glance_replicas import location
from glance_replicas.ledger import place_key
from glance_replicas.model import Image, Last, Location

from . import selection
from .command import OnHostLister
from .report import Bytes, Text, When

COLUMNS = (
    *("Image", "Name", "Status", "Size", "Kind", "Host", "Zone", "Store"),
    *("Verdict", "Evidence", "Checked", "URL"),
)


class List(OnHostLister):
    """List the locations of images, one row each, with the last verdict.

    Reads the catalogue and the ledger, no image data. `-f jsonl` streams any number of rows, one JSON object a line.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser, state=True)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The rows, a stream."""
        wanted = selection.from_arguments(parsed_args, state=True)
        return COLUMNS, self._rows(wanted)

    def _rows(self, wanted: selection.Selection) -> Iterator[tuple[Any, ...]]:
        for image, lasts in self.with_lasts(wanted):
            for one in filter(wanted.has, image.locations):
                last = lasts.get((image.id, place_key(one)))
                if wanted.has_state(last):
                    yield _row(image, one, last)
            if not image.locations and wanted.takes_every_location:
                self.note(f"image {image.id} has no location at all: nobody can download it")


def _row(image: Image, one: Location, last: Last | None) -> tuple[Any, ...]:
    verdict, evidence, checked_at = last.look if last else (None, None, None)
    return (
        *(image.id, Text(image.name), image.status, Bytes(image.size), location.kind(one)),
        *(Text(one.host), Text(one.zone), Text(one.store)),
        *(Text(verdict and str(verdict)), Text(evidence and str(evidence)), When(checked_at)),
        location.redact(one.url),
    )
