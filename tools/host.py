"""`replica host`: the hosts that the ledger knows."""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from glance_replicas import location
from glance_replicas.copies import Copies, State
from glance_replicas.model import Host as Known
from glance_replicas.model import Use
from glance_replicas.uses import Uses

from .command import UNKNOWN, OnHostLister
from .report import Age, Bytes, Percent, Text, count

COLUMNS = (
    *("Name", "Zone", "URL", "State", "Heartbeat Age", "Files", "Registered", "Used", "Free"),
    *("Fills", "Waiting", "Downloads", "Served", "Hit Ratio"),
)

_DAYS = 2  # today and yesterday: today alone says nothing just after midnight


class Host(OnHostLister):
    """List the hosts that keep cached copies, as their janitors last reported.

    Files is what lies on the host's disk, Registered is what the catalogue says is there; they differ while a copy is
    being made or withdrawn, and for longer when the janitor does not run. Fills are in progress now, Waiting are copies
    asked for and not begun. Downloads, Served (bytes) and Hit Ratio (the part of these bytes that came from complete
    files) are of today and yesterday (UTC).
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """One argument."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name", nargs="?", metavar="NAME", help="only this host")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each host."""
        hosts = [one for one in self.ledger.hosts() if parsed_args.name in (None, one.name)]
        if not hosts:
            self._none(parsed_args.name)
        fills = Counter(fill.host for _, fill in self.ledger.all_fills())
        waiting = Counter(one.host for one in Copies(self.ledger.database).list(states=[State.WAITING]))
        served = Uses(self.ledger.database).of_hosts(_DAYS)
        none = Use(0, 0, 0)
        rows = [self._row(one, (fills[one.name], waiting[one.name]), served.get(one.name, none)) for one in hosts]
        for one in hosts:
            if self._is_dead(one):
                registered = count(self._registered(one), "registration")
                self.note(f"host {one.name} is dead; {registered} of it will be withdrawn by another host's janitor")
        return COLUMNS, rows

    def _none(self, name: str | None) -> None:
        which = f"no host {name}" if name else "no host at all"
        self.note(f"the ledger has {which}; on each host, see: replica check, and: replica janitor --once")
        self.worsen(UNKNOWN)

    def _is_dead(self, one: Known) -> bool:
        return one.age_seconds > self.settings.dead_after_seconds

    def _registered(self, one: Known) -> int:
        rows = self.catalogue.of_host(one.name)
        return sum(location.is_replica_of(row, one.name, one.url) for row in rows)

    def _row(self, one: Known, copies: tuple[int, int], served: Use) -> tuple[Any, ...]:
        state = "dead" if self._is_dead(one) else "alive"
        return (
            *(one.name, Text(one.zone), one.url, state, Age(round(one.age_seconds, 1))),
            *(one.files, self._registered(one), Bytes(one.bytes_used), Bytes(one.bytes_free)),
            *(*copies, served.downloads, Bytes(served.bytes)),
            Percent(served.hit_bytes / served.bytes if served.bytes else None),
        )
