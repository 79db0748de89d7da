"""`replica db upgrade`, `db check` and `db purge`: the ledger's tables brought up to date, looked at, and cleared."""

import argparse
import math
from collections.abc import Callable, Iterator

from glance_replicas.catalogue.tables import UNREADABLE
from glance_replicas.errors import CatalogueError
from glance_replicas.ledger.cached_copies import CachedCopies
from glance_replicas.ledger.prefetch_requests import PrefetchRequests
from glance_replicas.ledger.purge import Key
from glance_replicas.ledger.purge import Purge as Past
from glance_replicas.ledger.usage import Usage
from glance_replicas.location import scheme

from ..command import DAMAGED, UNKNOWN, OnHost
from ..options import values
from ..output.text import count

DAY = 86400  # seconds


class Upgrade(OnHost):
    """Make the ledger's tables, or bring them to this version.

    Run it once for a site, before the first start and after every upgrade of the package. Safe to run again, on any
    host, and while hosts are working: the first one does it, the others find it done. Exit status: 0 done; 3 the
    database does not answer.
    """

    example = "replica db upgrade"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print what was applied."""
        before = self.ledger.version()
        for revision in self.ledger.upgrade():
            self.app.stdout.write(f"applied {revision}\n")
        after = self.ledger.version()
        said = (
            f"the ledger was at {before or 'nothing'} and is at {after}"
            if before != after
            else f"the ledger is at {after}"
        )
        self.app.stdout.write(f"{said}\n")


class Check(OnHost):
    """Say whether the ledger's tables are those this version needs, and which revisions are to come.

    Changes nothing. Exit status: 0 they are; 1 they are not; 3 the database does not answer.
    """

    example = "replica db check"

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print the revision, and what to do."""
        from glance_replicas.ledger import migrations

        known, at = migrations.revisions(), self.ledger.version()
        if at is not None and at not in known:
            fault = f"it is newer than this version of glance-replicas, which knows {known[-1]}: upgrade the package"
        elif at != known[-1]:
            to_come = known[known.index(at) + 1 :] if at else known
            fault = f"to come: {', '.join(to_come)}; run: replica db upgrade"
        elif missing := self.ledger.database.absent():
            fault = f"not there: {', '.join(missing)}; restore them from a backup of the database"
        else:
            self.app.stdout.write(f"the ledger is at {at}, as this version needs it\n")
            return
        self.app.stdout.write(f"the ledger is at {at or 'nothing'}; {fault}\n")
        self.worsen(DAMAGED)


class Purge(OnHost):
    """Forget what is over and older than an age: the history of checks, finished runs and copies, dead hosts.

    What is in force stays: the last result of every location that the catalogue has, pins of its images, open
    requests, living hosts. The record of removals stays as well unless --withdrawals is given. Safe while hosts work,
    and to run again. Exit status: 0 done; 3 the catalogue cannot be asked, and what depends on it was kept.
    """

    example = "replica db purge --older-than 90d"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The age."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--older-than",
            type=values.seconds,
            required=True,
            metavar="AGE",
            help="remove what is older than this: 90d, 52w",
        )
        parser.add_argument(
            "--withdrawals", action="store_true", help="also remove the record of finished removals, who and why"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print what went."""
        past = Past(self.ledger.database, parsed_args.older_than)
        for what, forget in self._parts(past, parsed_args):
            try:
                gone = forget()
            except CatalogueError as error:
                self.note(f"{what} are kept: {error}")
                self.worsen(UNKNOWN)
                continue
            self.app.stdout.write(f"{what}: {count(gone, 'row')} removed\n")

    def _parts(self, past: Past, parsed: argparse.Namespace) -> Iterator[tuple[str, Callable[[], int]]]:
        seconds, database = parsed.older_than, self.ledger.database
        yield "results of checks", lambda: self.ledger.trim(seconds)
        yield "states of locations that no longer exist", lambda: self._states(past)
        yield "finished runs", past.runs
        yield "expired claims", past.claims
        yield "verifications that no host took", past.verify_requests
        yield "strays that no audit has seen since", past.orphans
        yield "pins of images that no longer exist", lambda: self._pins(past)
        yield "guards of images that no longer exist", lambda: self._guards(past)
        yield "finished copies", lambda: PrefetchRequests(database).trim(seconds)
        yield "days of use", lambda: Usage(database).trim(math.ceil(seconds / DAY))
        yield "dead hosts", lambda: self._hosts(past, max(seconds, self.settings.dead_after_seconds))
        if parsed.withdrawals:
            yield "finished withdrawals", past.withdrawals

    def _states(self, past: Past) -> int:
        self._must_have_images()
        return past.states(self._listed)

    def _pins(self, past: Past) -> int:
        self._must_have_images()
        return past.pins(self._living)

    def _guards(self, past: Past) -> int:
        self._must_have_images()
        return past.guards(self._living)

    def _living(self, ids: list[str]) -> set[str]:
        return {image_id for image_id, status in self.catalogue.statuses(ids).items() if status != "deleted"}

    def _must_have_images(self) -> None:
        if next(self.catalogue.images(batch=1), None) is None:
            raise CatalogueError("the catalogue has no image at all; see that [database] connection is Glance's")

    def _listed(self, ids: list[str]) -> set[Key]:
        """The places the catalogue has of these images; of one whose URLs cannot be read, all there are states of."""
        from glance_replicas.ledger.ledger import place_key

        found, closed = set(), set()
        for image in self.catalogue.images(ids):
            found |= {(image.id, place_key(location)) for location in image.locations}
            if any(scheme(location.url) == UNREADABLE for location in image.locations):
                closed.add(image.id)
        return found | set(self.ledger.states(closed))

    def _hosts(self, past: Past, silent_seconds: float) -> int:
        """Silent for so long, and no row of the catalogue names them: another host's janitor withdraws rows first."""
        silent = [host.name for host in self.ledger.hosts() if host.age_seconds > silent_seconds]
        gone = [name for name in silent if not self._has_rows(name) and past.host(name)]
        for name in gone:
            CachedCopies(self.ledger.database).forget(name)
        return len(gone)

    def _has_rows(self, name: str) -> bool:
        rows = (self.catalogue.registrations(name), self.catalogue.of_host(name, pending=True))
        return any(next(found, None) for found in rows)
