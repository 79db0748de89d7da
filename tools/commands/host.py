"""`replica host`: the hosts that the ledger knows."""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from glance_replicas.ledger.prefetch_requests import PrefetchRequests, State
from glance_replicas.ledger.usage import Usage
from glance_replicas.location import is_replica_of
from glance_replicas.model import Host as Known
from glance_replicas.model import Use

from ..command import UNKNOWN, ClosedLister
from ..output.cells import Age, Bytes, Percent, Text
from ..output.text import count

COLUMNS = (
    *("Name", "Zone", "URL", "State", "Heartbeat Age", "Files", "Registered", "Used", "Free"),
    *("Fills", "Waiting", "Downloads", "Served", "Hit Ratio"),
)

_DAYS = 2  # today and yesterday: today alone says nothing just after midnight


class Host(ClosedLister):
    """List the hosts that keep cached copies, as their janitors last reported.

    A host is dead when its heartbeat is older than dead_after_seconds. Files is what lies on the host's disk,
    Registered is what the catalogue says is there; they differ while a copy is being made or withdrawn, and for longer
    when the janitor does not run. Fills are in progress now, Waiting are copies asked for and not begun. Downloads,
    Served (bytes) and Hit Ratio (the part of these bytes that came from complete files) are of today and yesterday
    (UTC). Exit status: 0 done; 3 no such host, or the ledger does not answer.
    """

    example = "replica host api1"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """One argument."""
        parser = super().get_parser(prog_name)
        parser.add_argument("name", nargs="?", metavar="NAME", help="only this host")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each host."""
        known = self.ledger.hosts()
        hosts = [host for host in known if parsed_args.name in (None, host.name)]
        if not hosts:
            self._none(parsed_args.name, sorted(host.name for host in known))
        fills = Counter(fill.host for _, fill in self.ledger.all_fills())
        waiting = Counter(
            request.host for request in PrefetchRequests(self.ledger.database).list(states=[State.WAITING])
        )
        served = Usage(self.ledger.database).of_hosts(_DAYS)
        none = Use(0, 0, 0)
        rows = [self._row(host, (fills[host.name], waiting[host.name]), served.get(host.name, none)) for host in hosts]
        for host in hosts:
            if self._is_dead(host):
                registered = count(self._registered(host), "registration")
                self.note(f"host {host.name} is dead; {registered} of it will be withdrawn by another host's janitor")
        return COLUMNS, rows

    def _none(self, name: str | None, known: Sequence[str]) -> None:
        """An error of its own status: a host that has never reported is not known, rather than spelled wrong."""
        if known:
            which = f"no host {name}; it has: {', '.join(known)}. If a host is absent, on it"
        else:
            which = "no host at all; on each host"
        self.note(f"the ledger has {which}, see: replica check, and: replica janitor --once")
        self.worsen(UNKNOWN)

    def _is_dead(self, known: Known) -> bool:
        return known.age_seconds > self.settings.dead_after_seconds

    def _registered(self, known: Known) -> int:
        rows = self.catalogue.registrations(known.name)
        return sum(is_replica_of(row, known.name, known.url) for row in rows)

    def _row(self, known: Known, copies: tuple[int, int], served: Use) -> tuple[Any, ...]:
        state = "dead" if self._is_dead(known) else "alive"
        return (
            *(known.name, Text(known.zone), known.url, state, Age(round(known.age_seconds, 1))),
            *(known.files, self._registered(known), Bytes(known.bytes_used), Bytes(known.bytes_free)),
            *(*copies, served.downloads, Bytes(served.bytes)),
            Percent(served.hit_bytes / served.bytes if served.bytes else None),
        )
