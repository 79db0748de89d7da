"""`replica verify`: look at every location that was asked for, and say what is damaged and what to do."""

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from glance_replicas import location
from glance_replicas.errors import ConfigError
from glance_replicas.model import Evidence, Image, Location, Result, Verdict

from . import report, selection, values
from .command import DAMAGED, UNKNOWN, OnHostLister
from .report import Bytes, Text, When
from .tally import Tally, gravity

COLUMNS = ("Image", "Name", "Kind", "Host", "Store", "Verdict", "Evidence", "Size", "Seconds", "Detail", "URL")
PLANNED = ("Image", "Name", "Kind", "Host", "Store", "Last Verdict", "Checked", "Size", "URL")
RECORD_SECONDS = 2.0  # results lost at most when the program is killed
NEVER = datetime.min.replace(tzinfo=UTC)


class Due(NamedTuple):
    """One location to look at, and the last result for it."""

    image: Image
    location: Location
    last: Result | None


class Verify(OnHostLister):
    """Verify locations against the images' digests.

    Reads every byte (--evidence full), ranges (sample), or nothing: asks the place for the digest it keeps (stored),
    or for the length only (size). Exit status: 0 all intact; 1 damage found; 3 something could not be checked, or
    nothing was there to check. Damage wins.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection, and how to look."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser)
        add = parser.add_argument
        add("--all", action="store_true", help="every location of every image")
        add("--evidence", choices=[str(one) for one in Evidence], default="full", help="how deep to look (full)")
        add("--workers", type=values.positive, default=4, metavar="N", help="looks at a time (4)")
        add("--max-age", type=values.seconds, metavar="AGE", help="skip what was intact, as deep, so recently: 7d, 12h")
        add("--max-bytes-per-second", type=values.size, metavar="N", help="all workers together read no faster: 20M")
        add("--dry-run", action="store_true", help="only list what would be looked at, in that order")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The rows: as they come for jsonl, else bad ones first."""
        wanted = selection.from_arguments(parsed_args)
        if wanted.is_everything and not parsed_args.all:
            raise ConfigError("nothing named: give image ids, --name, --owner, --host or --kind; or --all")
        self.tally = Tally()
        due = sorted(self._due(wanted, parsed_args), key=lambda one: (one.last and one.last.checked_at) or NEVER)
        if not due:
            self._nothing_due()
        if parsed_args.dry_run:
            return PLANNED, [_planned(*one) for one in due]
        seen = self._look(due, parsed_args)
        if parsed_args.formatter != "jsonl":
            seen = iter(sorted(seen, key=lambda one: (gravity(one[1]), one[0].id)))
        return COLUMNS, (_row(*one) for one in seen)

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """The rows, then every bad one with what to do, and the sum."""
        rows = data if parsed_args.formatter == "jsonl" else list(data)
        if self.for_people(parsed_args) and not parsed_args.columns:
            parsed_args.columns = [one for one in column_names if one != "Detail"]  # it stands below, with the advice
        if rows or not self.for_people(parsed_args):
            super().produce_output(parsed_args, column_names, rows)
        if parsed_args.dry_run:
            return 0
        if self.tally.checked + self.tally.skipped:
            self.closing(parsed_args, list(self.tally.lines()))
        if parsed_args.formatter == "jsonl":
            self.app.stdout.write(json.dumps({"summary": self.tally.as_dict()}) + "\n")
        self.worsen(self.tally.status)
        return 0

    def _due(self, wanted: selection.Selection, parsed: argparse.Namespace) -> Iterator[Due]:
        """What to look at, in the order of the catalogue."""
        evidence = Evidence(parsed.evidence)
        for image, states in self.with_states(wanted, full=evidence is Evidence.FULL):
            if not image.locations and wanted.host is None and wanted.kind is None:
                self.note(f"image {image.id} has no location at all: nobody can download it")
                self.worsen(DAMAGED)
            for one in filter(wanted.has, image.locations):
                last = states(one)
                if last and last.evidence.depth >= evidence.depth and _is_recent(last, parsed.max_age):
                    self.tally.skipped += 1
                else:
                    yield Due(image, one, last)

    def _nothing_due(self) -> None:
        if not self.tally.skipped:
            self.note("nothing to verify: no location of an active image is what you asked for; see: replica list")
            self.worsen(UNKNOWN)

    def _look(self, due: Sequence[Due], parsed: argparse.Namespace) -> Iterator[tuple[Image, Result]]:
        from glance_replicas.throttle import Throttle

        from .looking import look_at

        throttle = Throttle(parsed.max_bytes_per_second) if parsed.max_bytes_per_second else None
        progress = report.Progress(self.app.stderr, len(due), quiet=self.app.options.verbose_level == 0)
        unsaved: list[Result] = []
        saved_at = time.monotonic()
        items = ((one.image, one.location, Evidence(parsed.evidence)) for one in due)
        try:
            for image, result in look_at(self.sources, items, parsed.workers, throttle):
                self.tally.add(image, result)
                progress.step(result.size, image.id)
                unsaved.append(result)
                if time.monotonic() - saved_at > RECORD_SECONDS:
                    self.record(unsaved)
                    unsaved, saved_at = [], time.monotonic()
                yield image, result
        finally:
            progress.end()
            self.record(unsaved)


def _is_recent(last: Result, max_age: float | None) -> bool:
    """Damage, and what is not known, is always looked at again."""
    if max_age is None or last.verdict is not Verdict.INTACT or last.checked_at is None:
        return False
    return 0 <= (datetime.now(UTC) - last.checked_at).total_seconds() <= max_age


def _row(image: Image, result: Result) -> tuple[Any, ...]:
    one = result.location
    return (
        *(image.id, Text(image.name), location.kind(one), Text(one.host), Text(one.store)),
        *(str(result.verdict), str(result.evidence), Bytes(result.size), round(result.seconds, 3)),
        *(Text(result.detail or None), location.redact(one.url)),
    )


def _planned(image: Image, one: Location, last: Result | None) -> tuple[Any, ...]:
    return (
        *(image.id, Text(image.name), location.kind(one), Text(one.host), Text(one.store)),
        *(Text(last and str(last.verdict)), When(last and last.checked_at)),
        *(Bytes(image.size), location.redact(one.url)),
    )
