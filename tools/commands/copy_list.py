"""`replica copy list` and `replica copy cancel`: what hosts were asked to fetch, how far it is, and its end."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from glance_replicas.errors import ConfigError
from glance_replicas.ledger.prefetch_requests import PRIORITIES, PrefetchRequest, PrefetchRequests, State

from ..command import OnHost, OnHostLister
from ..options import values
from ..output.cells import Age, Bytes, Percent, Text
from ..output.text import count

COLUMNS = (
    *("Image", "Host", "State", "Done", "Bytes", "Size"),
    *("Priority", "Pin", "Age", "Who", "Detail"),
)
_NAMES = {number: name for name, number in PRIORITIES.items()}


def row(request: PrefetchRequest) -> tuple[Any, ...]:
    """One request as a row of a table."""
    part = None if not request.size else round(request.bytes / request.size, 3)
    wait = f" (again in {request.wait_seconds:.0f} s)" if request.wait_seconds else ""
    return (
        *(request.image_id, request.host, str(request.state), Percent(part), Bytes(request.bytes), Bytes(request.size)),
        *(_NAMES.get(request.priority, str(request.priority)), "yes" if request.pin else "no"),
        *(Age(round(request.age_seconds, 1)), Text(request.who), Text(f"{request.detail}{wait}" or None)),
    )


class CopyList(OnHostLister):
    """List what hosts were asked to fetch and how far it is, oldest request first.

    State is waiting, running, done, failed or cancelled; Detail says why a copy waits or has failed. What has ended is
    known for a week. Exit status: 0 done; 3 the ledger does not answer.
    """

    example = "replica copy list --state failed"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What to show."""
        parser = super().get_parser(prog_name)
        parser.add_argument("image", nargs="*", type=values.image_id, metavar="IMAGE", help="only these images")
        parser.add_argument("--host", action="append", metavar="HOST", help="only this host; may be repeated")
        states = [str(state) for state in State if state is not State.UNKNOWN]
        text = "only what is in this state; may be repeated"
        parser.add_argument("--state", action="append", choices=states, help=text)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for an image and a host."""
        states = None if parsed_args.state is None else [State(word) for word in parsed_args.state]
        found = PrefetchRequests(self.ledger.database).list(parsed_args.image or None, parsed_args.host, states)
        return COLUMNS, [row(request) for request in found]


class CopyCancel(OnHost):
    """End requests that wait or run; copies that are there stay (see: replica prune --cached).

    What was fetched so far is thrown away within seconds, unless a client follows it. Exit status: 0 done; 2 nothing
    was named; 3 the ledger does not answer.
    """

    example = "replica copy cancel --host api2"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What to end."""
        parser = super().get_parser(prog_name)
        parser.add_argument("image", nargs="*", type=values.image_id, metavar="IMAGE", help="only these images")
        parser.add_argument("--host", action="append", metavar="HOST", help="only on this host; may be repeated")
        parser.add_argument("--all", action="store_true", help="all requests, when nothing else is named")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Say how many there were."""
        if not parsed_args.image and not parsed_args.host and not parsed_args.all:
            raise ConfigError("nothing named: give image ids or --host; or --all")
        gone = PrefetchRequests(self.ledger.database).cancel(parsed_args.image or None, parsed_args.host)
        self.app.stdout.write(f"{count(gone, 'copy', 'copies')} cancelled\n")
