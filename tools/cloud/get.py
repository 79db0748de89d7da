"""`replica get`: an image as a file, from the best copy there is, verified."""

import argparse
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from cliff.command import Command

from glance_replicas.client.document import Document
from glance_replicas.client.download import DownloadReport, NoneIntact, fetch
from glance_replicas.errors import ConfigError, Refused
from glance_replicas.model import IMAGE_ACTIVE, IMAGE_DEACTIVATED
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.http.wire import Tls

from ..command import DAMAGED, INTACT
from ..output.text import size
from .choose import ordered
from .command import ClientCommand
from .image_service import Cloud


class Get(ClientCommand, Command):  # type: ignore[misc, unused-ignore]
    """Download an image from its best copy, verified; through Glance itself when no copy is any good.

    Exit status: 0 the file is there and intact; 1 only damaged bytes were found; 2 usage; 3 nothing could be reached.
    """

    example = "replica get IMAGE -o disk.raw --zone az1"

    target_options: tuple[str, ...] = ("-o", "--output")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Image, cloud, place and target."""
        parser = super().get_parser(prog_name)
        self.add_options(parser)
        parser.add_argument(
            *self.target_options, dest="output", required=True, type=Path, metavar="FILE", help="Where the image goes."
        )
        parser.add_argument(
            "--unverified", action="store_true", help="Accept an image that has no digest, without a check."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Fetch and tell; nothing is left of a download that is terminated."""
        signal.signal(signal.SIGTERM, _terminated)
        document, site = self.ask(parsed_args)
        if document.status not in (None, IMAGE_ACTIVE, IMAGE_DEACTIVATED):
            raise ConfigError(f"image {document.image_id} is {document.status}: it has no data to download")
        line = _Line()
        try:
            report = self._fetch(document, site, parsed_args, line)
        except NoneIntact as error:
            line.end()
            self.app.stderr.write(
                f"replica: error: {error}; have the operator run: replica verify {document.image_id}\n"
            )
            return DAMAGED
        except Refused as error:  # no digest: what to do about it is on the command line
            raise ConfigError(str(error)) from error
        finally:
            line.end()
        for text in _summary(report, parsed_args.output):
            self.app.stderr.write(f"replica: {text}\n")
        return INTACT

    def _fetch(
        self, document: Document, site: Cloud | None, arguments: argparse.Namespace, line: Any
    ) -> DownloadReport:
        def again() -> Document:
            return self.ask(arguments)[0]

        choices = ordered(document, arguments)
        return fetch(
            replace(document, replicas=tuple(choice.location for choice in choices)),
            arguments.output,
            reader=site or http_reader.Reader(tls=Tls(arguments.os_cacert)),
            fallback=site.download(document.image_id) if site else None,
            refresh=again if arguments.document is None else None,
            unverified=arguments.unverified,
            progress=line,
        )


class _Line:
    """One line on a terminal that is rewritten; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown, self._last = sys.stderr.isatty(), 0.0
        self._began = time.monotonic()

    def __call__(self, done: int, total: int | None, source: str) -> None:
        now = time.monotonic()
        if self._shown and (now - self._last > 0.2 or done == total):
            self._last = now
            rate = size(done / max(now - self._began, 0.001))
            text = f"{size(done)} of {size(total)}  {rate}/s  {source}"
            sys.stderr.write(f"\r\033[K{text[:100]}")
            sys.stderr.flush()

    def end(self) -> None:
        """The line is gone."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            self._shown = False


def _summary(report: DownloadReport, target: Path) -> list[str]:
    how = f"verified by {report.digest.algorithm}" if report.digest else "NOT verified, the image has no digest"
    given = dict.fromkeys(attempt.source for attempt in report.attempts if attempt.end > attempt.start)
    sources = " and ".join(name for name in given if name not in report.guilty) or "nobody, it is empty"
    lines = [f"{target}: {size(report.size)} in {report.seconds:.1f} s from {sources}, {how}"]
    lines += [
        f"{attempt.source} failed at byte {attempt.end}: {attempt.error}"
        for attempt in report.attempts
        if attempt.error
    ][:20]
    return lines + [f"{name} gave wrong bytes; have the operator verify it" for name in report.guilty]


def _terminated(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
