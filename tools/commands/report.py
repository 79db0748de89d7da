"""`replica report`: the state of all copies at a glance, on the terminal, as JSON, or as one page for a browser."""

import argparse
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from prettytable import PrettyTable

from glance_replicas.catalogue.selection import Selection
from glance_replicas.errors import LedgerError
from glance_replicas.ledger.best_effort import BATCH

from .. import advice
from ..command import DAMAGED, UNKNOWN, OnHost
from ..options import selection, values
from ..output.text import age, count, size, visible
from ..report_page.condition import Condition
from ..report_page.report_model import ImageRow, ReportModel, detailed, row, survey

ON_PAGE = 20_000  # images a page lists; a browser takes more, a reader does not
BAR = 40  # characters


class Report(OnHost):
    """Show what is known of all copies: by place, by state, how long ago they were verified, and the worst first.

    Reads the catalogue and the ledger, no image data. --html writes one page that needs nothing else. Exit status: 0
    nothing is known to be wrong; 1 damage is known; 3 something could not be checked when it was last tried, or
    nothing ever was.
    """

    example = "replica report --html /srv/www/replicas.html"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The selection and the form."""
        parser = super().get_parser(prog_name)
        selection.add_options(parser)
        add = parser.add_argument
        add("-f", "--format", choices=["text", "json"], default="text", help="for people (text), or for programs")
        add("--html", type=Path, metavar="FILE", help="write a page for a browser there instead")
        add("--allow-unverifiable", action="store_true", help="images without a digest are no problem")
        add("--worst", type=values.positive, default=10, metavar="N", help="images with problems to name (10)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print it, or write the page."""
        total = ReportModel(self.ledger.now(), self.ledger.hosts(), self.settings.dead_after_seconds)
        wanted = selection.from_arguments(parsed_args)
        self._allows = parsed_args.allow_unverifiable
        found = survey(self._rows(wanted), total)
        most = ON_PAGE if parsed_args.html else parsed_args.worst
        first = list(self._detailed(heapq.nsmallest(most, found, key=lambda image_row: image_row.rank)))
        if self.known.is_lost:
            raise LedgerError(
                "the ledger went away meanwhile, and a report without verdicts would mislead; run it again"
            )
        bad = [row for row in first if row.severity.is_trouble][: parsed_args.worst]
        if parsed_args.html:
            from ..report_page import page

            page.write(parsed_args.html, total, first)
            self.note(f"{parsed_args.html}: {count(total.images, 'image')}")
        elif parsed_args.format == "json":
            self.app.stdout.write(json.dumps(total.as_dict(bad), indent=2) + "\n")
        else:
            self.app.stdout.writelines(f"{line}\n" for line in _text(total, bad))
        self._weigh(total)

    def _rows(self, wanted: Selection) -> Iterator[ImageRow]:
        for image, lasts in self.with_lasts(wanted):
            image_row = replace(row(image, wanted.has, lasts), allows_undigested=self._allows)
            if image_row.copies or (wanted.takes_every_location and not image.locations):
                yield image_row

    def _detailed(self, rows: Iterable[ImageRow]) -> Iterator[ImageRow]:
        """The same rows, those with trouble with what was found in words."""
        some = iter(rows)
        while part := list(itertools.islice(some, BATCH)):
            states = self.known.states([image_row.image for image_row in part if image_row.severity.is_trouble])
            yield from (detailed(image_row, states) for image_row in part)

    def _weigh(self, total: ReportModel) -> None:
        found = total.conditions()
        if found[Condition.DAMAGED] or total.nowhere or total.only_cached:
            self.worsen(DAMAGED)
        allowed = total.undigested if self._allows else 0
        if found[Condition.UNKNOWN] > allowed or not found[Condition.INTACT] + found[Condition.SHALLOW] + allowed:
            self.worsen(UNKNOWN)


def _text(total: ReportModel, bad: Sequence[ImageRow]) -> Iterator[str]:
    yield f"{count(total.images, 'image')} of {size(total.bytes)}: " + (
        f"{count(total.durable.copies, 'copy', 'copies')} in stores, {total.cached.copies} on hosts"
    )
    if total.only_cached:
        yield f"{count(total.only_cached, 'image')} without a durable copy: only cached, and may vanish at any time"
    yield ""
    if total.places:
        yield from [*_places(total), ""]
    yield "last read in full"
    longest = max(number for _, number in total.ages()) or 1
    for name, number in total.ages():
        yield f"  {name:>7}  {'#' * -(-number * BAR // longest):{BAR}}  {number}"
    if bad:
        yield ""
        yield "the worst first"
    for image_row in bad:
        yield from _trouble(image_row, total.now)
    if len(bad) < total.troubled:
        there = count(total.troubled, "image")
        yield f"{len(bad)} of {there} with trouble; to see all of them, add: --worst {total.troubled}"


def _places(total: ReportModel) -> list[str]:
    """A table of stores and hosts."""
    names = [str(condition).title() for condition in Condition]
    table = PrettyTable(["Place", "Zone", "State", "Copies", "Size", *names, "Used", "Free"], border=False, align="r")
    table.left_padding_width, table.right_padding_width = 0, 2
    table.align.update(dict.fromkeys(table.field_names[:3], "l"))
    for place in sorted(total.places):
        host, found = total.host(place), total.places[place]
        counts = [found.conditions[name] for name in Condition]
        room = [size(host.bytes_used), size(host.bytes_free)] if host else ["-", "-"]
        where = [visible(str(place)), visible(place.zone) or "-", total.state(place) or "-"]
        table.add_row([*where, found.copies, size(found.bytes), *counts, *room])
    return [line.rstrip() for line in table.get_string().splitlines()]


def _trouble(row: ImageRow, now: datetime) -> Iterator[str]:
    for location, last, step in row.problems():
        if location is None or last is None:
            yield f"image {row.image.id} ({visible(row.image.name or '')}): {row.without}"
        else:
            when = f", {age((now - last.checked_at).total_seconds())} ago" if last.checked_at else ""
            yield visible(advice.problem(row.image, last)) + when
        yield f"    next: {step}"
