"""`replica copy`: hosts fetch images ahead of need, by themselves; no byte comes through here."""

import argparse
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from glance_replicas.catalogue.selection import Selection
from glance_replicas.errors import ConfigError
from glance_replicas.ledger.prefetch_requests import PRIORITIES, PrefetchRequest, PrefetchRequests, State
from glance_replicas.model import IMAGE_ACTIVE, Host, Image

from ...caller import who
from ..command import UNKNOWN, OnHostLister
from ..options import selection
from ..output.progress import Progress
from ..output.text import age, count, size
from .copy_list import COLUMNS, row

if TYPE_CHECKING:
    from glance_replicas.ledger.pins import Pins

_POLL_SECONDS = 1.0
_LATE_SECONDS = 180.0  # without a heartbeat


class Copy(OnHostLister):
    """Ask hosts to fetch images now, from the best source each has.

    The hosts do it by themselves, within seconds, and go on after a broken link, a restart, or the end of this command;
    see: replica copy list. Exit status: 0 asked, with --wait done; 2 an image or a host that was named will not do, and
    nothing was asked for; 3 nothing was selected, or with --wait some failed or were cancelled.
    """

    example = "replica copy IMAGE --zone az1 --pin --wait"

    columns = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """What, where to, and how."""
        parser = super().get_parser(prog_name)
        selection.add_image_options(parser)
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--to", nargs="+", action="extend", metavar="HOST", help="these hosts (their host_name)")
        where.add_argument("--zone", metavar="ZONE", help="all living hosts of this zone")
        where.add_argument("--all", action="store_true", help="all living hosts")
        add = parser.add_argument
        text = "before others, whatever copy_hours says; or after others (normal)"
        add("--priority", choices=PRIORITIES, default="normal", help=text)
        add("--pin", action="store_true", help="the copies stay: they are never evicted")
        add("--wait", action="store_true", help="return when all have come to their end")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """The requests as they stand now, or with --wait as they ended."""
        hosts = self._hosts(parsed_args)
        images = self._images(selection.images_from(parsed_args))
        ids, names = [image.id for image in images], [host.name for host in hosts]
        copies = PrefetchRequests(self.ledger.database)
        if ids:
            if parsed_args.pin:
                self._pins().add(ids, names, who())
            copies.request(ids, names, who=who(), priority=PRIORITIES[parsed_args.priority], pin=parsed_args.pin)
        found = self._wait(copies, ids, names) if parsed_args.wait else copies.list(ids, names)
        self._lines = _closing(found, ids) if found else []
        if any(request.state in (State.FAILED, State.CANCELLED) for request in found):
            self.worsen(UNKNOWN)
        return COLUMNS, [row(request) for request in found]

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """The rows, then what comes next."""
        super().produce_output(parsed_args, column_names, data)
        self.closing(parsed_args, self._lines)
        return 0

    def _pins(self) -> "Pins":
        from glance_replicas.ledger.pins import Pins

        return Pins(self.ledger.database)

    def _hosts(self, parsed: argparse.Namespace) -> list[Host]:
        """The hosts that are meant, all of them alive. Raises ConfigError."""
        known = {host.name: host for host in self.ledger.hosts()}
        alive = {name: host for name, host in known.items() if host.age_seconds <= self.settings.dead_after_seconds}
        if parsed.to:
            for name in parsed.to:
                if name not in alive:
                    what = "is dead" if name in known else "is not known"
                    raise ConfigError(f"host {name} {what}; nothing was asked for. Living hosts: {_names(alive)}")
            found = [alive[name] for name in dict.fromkeys(parsed.to)]
        else:
            found = [host for host in alive.values() if parsed.all or host.zone == parsed.zone]
        if not found:
            zones = _names(host.zone for host in alive.values() if host.zone)
            raise ConfigError(
                f"no living host in zone {parsed.zone}; zones: {zones}" if parsed.zone else "no living host"
            )
        for host in found:
            if host.age_seconds > _LATE_SECONDS:
                self.note(f"host {host.name} was last heard of {age(host.age_seconds)} ago; it begins when it is back")
        return found

    def _images(self, wanted: Selection) -> list[Image]:
        """The images that are meant. Raises ConfigError for one named that cannot be copied; others are left out."""
        if wanted.is_everything:
            raise ConfigError("nothing named: give image ids, --name or --owner")
        faults: list[str] = []
        found = []
        for image in wanted.images(self.catalogue, faults.append):
            if image.status != IMAGE_ACTIVE:
                faults.append(f"image {image.id}: its status is {image.status}: only active images are copied")
            elif image.digest is None or not image.size:
                faults.append(f"image {image.id} has no digest or no data: a copy of it could not be verified")
            else:
                found.append(image)
        if wanted.ids and faults:
            raise ConfigError(f"{'; '.join(faults)}; nothing was asked for")
        for text in faults:
            self.note(text)
        if not found:
            self.note("no image is what you asked for; see: replica list")
            self.worsen(UNKNOWN)
        return found

    def _wait(self, copies: PrefetchRequests, ids: list[str], hosts: list[str]) -> list[PrefetchRequest]:
        """The requests once all have ended. Ctrl-C ends the waiting, not them."""
        progress = Progress(self.app.stderr, len(ids) * len(hosts), quiet=self.app.options.verbose_level == 0)
        try:
            while True:
                found = copies.list(ids, hosts)
                progress.show(
                    sum(not request.state.is_open for request in found),
                    sum(request.bytes for request in found),
                    _now(found),
                )
                if not any(request.state.is_open for request in found):
                    return found
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            progress.end()
            self.note(f"the hosts go on; see: {_command('list', ids)}; to end it: {_command('cancel', ids)}")
            raise
        finally:
            progress.end()


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"


def _now(found: Sequence[PrefetchRequest]) -> str:
    running = [request for request in found if request.state is State.RUNNING]
    return (
        f"of {size(sum(request.size or 0 for request in found))}  {count(len(running), 'host')} running"
        if running
        else ""
    )


def _command(what: str, ids: Sequence[str]) -> str:
    return f"replica copy {what} {' '.join(ids)}" if len(ids) <= 3 else f"replica copy {what}"


def _closing(found: Sequence[PrefetchRequest], ids: Sequence[str]) -> list[str]:
    """The sum, and the command that shows how it goes on."""
    if any(request.state.is_open for request in found):
        hosts = {request.host for request in found}
        return [f"{count(len(hosts), 'host')} will fetch {count(len(ids), 'image')}; see: {_command('list', ids)}"]
    states = [request.state for request in found]
    return [", ".join(f"{states.count(state)} {state}" for state in State if state in states)]
