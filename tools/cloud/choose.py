"""`replica choose`: which copy of an image a download here would take, and why."""

import argparse
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from cliff.lister import Lister

from glance_replicas.client.choose import Choice, Here
from glance_replicas.client.document import Document, Replica
from glance_replicas.client.download import arrange
from glance_replicas.location import redact

from ..output.cells import Text, seen
from ..output.formats import Columns
from .command import ClientCommand

COLUMNS = ("Priority", "Kind", "Host", "Zone", "Store", "Verdict", "Checked", "Why", "URL")


class Choose(ClientCommand, Columns, Lister):  # type: ignore[misc, unused-ignore]
    """Show the copies of an image, best first for this machine, and why.

    Needs a cloud (clouds.yaml, OS_*) or a saved document, no access to a glance-api host. Exit status: 0 done; 2 wrong
    usage, or no such image; 3 the cloud does not answer, or refuses.
    """

    example = "replica choose IMAGE --zone az1"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Image, cloud and place."""
        parser = super().get_parser(prog_name)
        self.add_options(parser)
        parser.add_argument(
            "--show-urls", action="store_true", help="Whole URLs; their signatures let whoever reads them download."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each copy."""
        document, _ = self.ask(parsed_args)
        choices = ordered(document, parsed_args)
        if not any(choice.location.is_readable for choice in choices):
            self.app.stderr.write(f"replica: image {document.image_id}: no copy to choose; Glance itself serves it\n")
        return COLUMNS, [_row(place, choice, parsed_args.show_urls) for place, choice in enumerate(choices, 1)]


def ordered(document: Document, arguments: argparse.Namespace) -> list[Choice[Replica]]:
    """The replicas with reasons: in the order of whoever made the document, unless that was not for this place."""
    here = Here(arguments.host, arguments.zone)
    choices = arrange(document.replicas, here, arguments.seed or secrets.token_hex(8))
    elsewhere = arguments.document is not None and (here != Here() or arguments.seed)
    if document.is_ordered and not elsewhere:
        choices.sort(key=lambda choice: choice.location.priority)
    return choices


def _row(place: int, choice: Choice[Replica], show_urls: bool) -> tuple[Any, ...]:
    location, state = choice.location, choice.location.state
    return (
        *(place, location.kind, Text(location.host), Text(location.zone), Text(location.store)),
        *(Text(state and str(state.verdict)), seen(state)),
        *("; ".join(choice.reasons), location.url if show_urls else redact(location.url)),
    )
