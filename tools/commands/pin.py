"""`replica pin list`, `add` and `remove`: which cached copies are to stay on which hosts."""

import argparse
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from glance_replicas.errors import ConfigError

from ...caller import who
from ..command import UNKNOWN, OnHost, OnHostLister
from ..options import values
from ..output.cells import When
from ..output.text import count

if TYPE_CHECKING:
    from glance_replicas.ledger.pins import Pins

COLUMNS = ("Image", "Host", "Who", "Pinned")


class List(OnHostLister):
    """List the copies that were pinned by order: they stay on their host whatever room is needed.

    Images that are pinned by their property (`pin_property`) are not among them. Exit status: 0 done; 3 the ledger does
    not answer.
    """

    example = "replica pin list --host api1"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Two filters."""
        parser = super().get_parser(prog_name)
        parser.add_argument("image", nargs="*", type=values.image_id, metavar="IMAGE", help="only these images")
        parser.add_argument("--host", metavar="HOST", help="only this host (its host_name)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each pin."""
        found, now = _pins(self).all(parsed_args.image or None, parsed_args.host), self.now()
        return COLUMNS, [(pin.image_id, pin.host, pin.who, When(pin.pinned_at, now)) for pin in found]


class Add(OnHost):
    """Pin images on hosts: a copy that is there stays, and so will one that comes. Nothing is fetched.

    A host marks its file with the next pass of its janitor. Exit status: 0 done; 2 the ledger knows no such host; 3 an
    id names no image.
    """

    example = "replica pin add IMAGE --host api1"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Images and hosts."""
        parser = super().get_parser(prog_name)
        _add_arguments(parser, "on every host the ledger knows")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Say how much was asked for."""
        known = {host.name for host in self.ledger.hosts()}
        hosts = known if parsed_args.all else set(parsed_args.host)
        if not hosts <= known:
            raise ConfigError(f"the ledger knows no host {', '.join(sorted(hosts - known))}; see: replica host")
        found = self.catalogue.statuses(parsed_args.image).keys()
        for image_id in sorted(set(parsed_args.image) - found):
            self.note(f"image {image_id}: there is no such image in the catalogue")
            self.worsen(UNKNOWN)
        _pins(self).add(found, hosts, who())
        self.app.stdout.write(f"{count(len(found), 'image')} pinned on {count(len(hosts), 'host')}\n")


class Remove(OnHost):
    """Lift pins: the copies may be evicted again, and are not removed by this.

    A host takes the mark off its file with the next pass of its janitor. Exit status: 0 done; 3 the ledger does not
    answer.
    """

    example = "replica pin remove IMAGE --all"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Images and hosts."""
        parser = super().get_parser(prog_name)
        _add_arguments(parser, "on every host")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Say how many there were."""
        hosts: Collection[str | None] = [None] if parsed_args.all else parsed_args.host
        gone = sum(_pins(self).remove(parsed_args.image, host) for host in hosts)
        self.app.stdout.write(f"{count(gone, 'pin')} removed\n")


def _pins(command: OnHost) -> "Pins":
    from glance_replicas.ledger.pins import Pins

    return Pins(command.ledger.database)


def _add_arguments(parser: argparse.ArgumentParser, everywhere: str) -> None:
    parser.add_argument("image", nargs="+", type=values.image_id, metavar="IMAGE", help="id of an image")
    where = parser.add_mutually_exclusive_group(required=True)
    text = "on this host (its host_name); may be repeated"
    where.add_argument("--host", action="append", default=[], metavar="HOST", help=text)
    where.add_argument("--all", action="store_true", help=everywhere)
