"""`replica verify`: verify every location that was asked for, and say what is damaged and what to do."""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from glance_replicas.catalogue.selection import Selection
from glance_replicas.errors import ConfigError
from glance_replicas.ledger.ledger import place_key
from glance_replicas.location import kind, redact
from glance_replicas.model import Image, Last, Location, Result
from glance_replicas.verdict import Evidence
from glance_replicas.verify.freshness import Freshness
from glance_replicas.verify.schedule import EVERYTHING, judged_at

from .. import findings
from ..command import DAMAGED, INTACT, UNKNOWN, OnHostLister
from ..options import selection, values
from ..output import freshness_table
from ..output.cells import Bytes, Text, When
from ..output.progress import Progress

if TYPE_CHECKING:
    from ...verify.flow import Verification, VerifyOptions

COLUMNS = ("Image", "Name", "Kind", "Host", "Store", "Verdict", "Evidence", "Size", "Seconds", "Detail", "URL")
PLANNED = ("Image", "Name", "Kind", "Host", "Store", "Last Verdict", "Checked", "Size", "URL")


class Verify(OnHostLister):
    """Verify locations against the images' digests.

    Reads every byte (--evidence full), ranges (sample), or nothing: asks the place for the digest it keeps (stored),
    or for the length only (size). Of an image that has no digest nothing can be called intact; when two of its copies
    that were read differ, one of them is damaged. Exit status: 0 all intact; 1 damage found, which wins over 3; 3
    something could not be checked, nothing was there to check, or something is overdue (--overdue).
    """

    example = "replica verify --all --max-age 7d --max-duration 6h --max-bytes-per-second 50M -f jsonl"

    columns = (*COLUMNS, *freshness_table.COLUMNS)

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection, and how to verify."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser, state=True)
        add = parser.add_argument
        add("--all", action="store_true", help="every location of every image")
        add(
            "--evidence",
            choices=[str(evidence) for evidence in Evidence],
            default="full",
            help="how deep to verify (full)",
        )
        add("--workers", type=values.positive, default=4, metavar="N", help="verifications at a time (4)")
        text = "of them at one host, store or server, so that a slow one holds up no other (4)"
        add("--workers-per-backend", type=values.positive, default=4, metavar="N", help=text)
        add("--max-age", type=values.seconds, metavar="AGE", help="skip what was intact at this depth within: 7d, 12h")
        add("--max-duration", type=values.seconds, metavar="AGE", help="begin no verification after this time: 6h")
        add("--max-bytes-per-second", type=values.size, metavar="N", help="most that all workers read a second: 20M")
        add(
            "--max-items-per-second",
            type=values.positive,
            metavar="N",
            help="all workers together begin no more verifications",
        )
        text = "a part of what is due: 3/7 the third of seven, 5%% at random, 500G the least recently verified"
        add("--sample", type=values.sample, default=EVERYTHING, metavar="PART", help=text)
        add("--seed", metavar="TEXT", help="with --sample x%%: the same text draws the same part")
        text = "begin the run of this name, or go on with it, with other machines if they do the same"
        add("--run", type=values.name, metavar="NAME", help=text)
        text = "read cached copies over the network; else their hosts are asked to read them"
        add("--remote-reads", action="store_true", help=text)
        add("--freshness", action="store_true", help="verify nothing; show how long ago locations were verified")
        text = "images without a digest do not make the status 3: their copies are read, sized and compared, no more"
        add("--allow-unverifiable", action="store_true", help=text)
        text = "with --freshness: status 3 if any location was not verified within this time: 7d"
        add("--overdue", type=values.seconds, metavar="AGE", help=text)
        add("--dry-run", action="store_true", help="only list what would be verified, in that order")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The rows: as they come for jsonl, else bad ones first."""
        from ...verify.flow import Verification

        wanted = selection.named(parsed_args, state=True)
        if parsed_args.overdue is not None and not parsed_args.freshness:
            raise ConfigError("--overdue goes with --freshness")
        if parsed_args.run and parsed_args.dry_run:
            raise ConfigError("--dry-run begins no run: leave out one of --dry-run and --run")
        if parsed_args.freshness:
            return freshness_table.COLUMNS, self._fresh(wanted, parsed_args)
        work = Verification(*(self.settings, self.catalogue, self.known, wanted, _options(parsed_args)), note=self.note)
        self.summary = work.summary
        if parsed_args.dry_run:
            now = self.now()
            return PLANNED, (_planned(due.image, due.location, due.last, now) for due in work.planned())
        found = self._results(work)
        if parsed_args.formatter != "jsonl":
            found = iter(sorted(found, key=lambda item: (item[1].verdict.gravity, item[0].id)))
        return COLUMNS, (_row(*item) for item in found)

    def _results(self, work: "Verification") -> Iterator[tuple[Image, Result]]:
        progress = Progress(self.app.stderr, 0, quiet=self.app.options.verbose_level == 0)
        try:
            for image, result in work.results(self.sources):
                progress.total = work.total
                progress.step(result.size, image.id)
                yield image, result
        finally:
            progress.end()

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """The rows, then every bad one with what to do, and the sum."""
        if parsed_args.freshness:
            super().produce_output(parsed_args, column_names, data)
            self.closing(parsed_args, self._lines)
            return 0
        rows = data if parsed_args.formatter == "jsonl" else list(data)
        if self.for_people(parsed_args) and not parsed_args.columns:
            parsed_args.columns = [
                column_name for column_name in column_names if column_name != "Detail"
            ]  # it stands below, with the advice
        if rows or not self.for_people(parsed_args):
            super().produce_output(parsed_args, column_names, rows)
        found = self.summary
        if found.is_empty:
            self.note("nothing to verify: no location of an active image is what you asked for; see: replica list")
        if parsed_args.dry_run:
            self.worsen(DAMAGED if found.nowhere else UNKNOWN if found.absent or found.is_empty else INTACT)
            return 0
        if found.checked + found.skipped + found.empty:
            why_skipped = "verified before in this run" if parsed_args.run else "found intact lately"
            self.closing(parsed_args, list(findings.lines(found, why_skipped)))
        if parsed_args.formatter == "jsonl":
            self.app.stdout.write(json.dumps({"summary": findings.as_dict(found)}) + "\n")
        self.worsen(findings.status(found))
        return 0

    def _fresh(self, wanted: Selection, parsed: argparse.Namespace) -> list[tuple[Any, ...]]:
        """The histogram of a selection's locations, by verifications so deep. Raises LedgerError, CatalogueError."""
        found = Freshness(self.ledger.now(), parsed.overdue)
        for image, lasts in self.with_lasts(wanted, early=True):
            for location in wanted.of(image):
                last = lasts.get((image.id, place_key(location)))
                if wanted.has_state(last):
                    found.add(judged_at(last, Evidence(parsed.evidence)), image.size)
        self._lines = []
        if parsed.overdue is not None:
            self._lines = [freshness_table.line(found, parsed.overdue)]
        if found.overdue or not any(band.locations for band in found.bands()):
            self.worsen(UNKNOWN)
        return freshness_table.rows(found)


def _options(parsed: argparse.Namespace) -> "VerifyOptions":
    from ...verify.flow import VerifyOptions

    return VerifyOptions(
        evidence=Evidence(parsed.evidence),
        workers=parsed.workers,
        workers_per_backend=parsed.workers_per_backend,
        max_age_seconds=parsed.max_age,
        max_duration_seconds=parsed.max_duration,
        max_bytes_per_second=parsed.max_bytes_per_second,
        max_items_per_second=parsed.max_items_per_second,
        sample=parsed.sample,
        seed=parsed.seed,
        run=parsed.run,
        remote_reads=parsed.remote_reads,
        allow_unverifiable=parsed.allow_unverifiable,
    )


def _row(image: Image, result: Result) -> tuple[Any, ...]:
    location = result.location
    return (
        *(image.id, Text(image.name), kind(location), Text(location.host), Text(location.store)),
        *(str(result.verdict), str(result.evidence), Bytes(result.size), round(result.seconds, 3)),
        *(Text(result.detail or None), redact(location.url)),
    )


def _planned(image: Image, location: Location, last: Last | None, now: datetime) -> tuple[Any, ...]:
    verdict, _, checked_at = last.shown if last else (None, None, None)
    return (
        *(image.id, Text(image.name), kind(location), Text(location.host), Text(location.store)),
        *(Text(verdict and str(verdict)), When(checked_at, now)),
        *(Bytes(image.size), redact(location.url)),
    )
