"""Disk and catalogue in agreement, both ways, and own rows only.

Absent, present and unknown are three answers: what could not be asked changes nothing, a directory that is empty and
was so a moment ago is unknown, and one pass withdraws only so many rows. Of an image the catalogue has three answers as
well: deleted, which is final; not known, and not active yet, which a database that is behind says of any image, and
which must stand for `doubt_seconds` before a file goes (`cache.doubts`).
"""

import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from functools import partial

from ..cache import Cache, CachedFile
from ..cache.doubts import Doubts
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import Unreadable
from ..host.own_copies import OwnCopies
from ..host.registration import Registration
from ..ledger.cached_copies import CachedCopies
from ..ledger.host_registry import HostRegistry
from ..ledger.ledger import Ledger
from ..ledger.schema.tables import states
from ..location import is_replica_of, redact
from ..model import IMAGE_ACTIVE, IMAGE_DEACTIVATED, IMAGE_IS_GONE, Host, Image, Location, Pass
from ..removal import withheld
from ..removal.orders import RemovalOrders
from ..settings import Settings
from .host_rows import HostRows
from .listed_copies import ListedCopies

log = logging.getLogger(__name__)

_MARK = "since"  # says since when this directory has been ours; its absence: a new or an unmounted one
_PRUNE_SECONDS = 600.0  # that a prune may take at most from its note in the ledger to the row's end
_KEEPS = (IMAGE_ACTIVE, IMAGE_DEACTIVATED)


class Reconciler:
    """One host's; each step may be killed anywhere and done again."""

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        ledger: Ledger,
        copies: CachedCopies,
        hosts: HostRegistry,
        removals: RemovalOrders,
        registration: Registration,
        own_copies: OwnCopies,
    ) -> None:
        self._settings, self._cache, self._catalogue = settings, cache, catalogue
        self._ledger, self._hosts, self._removals = ledger, hosts, removals
        self._registration, self._own_copies = registration, own_copies
        self._copies, self._listed = copies, ListedCopies(settings, catalogue)
        self._host = Host(settings.host_name, settings.host_zone, settings.host_url or "")
        self._host_rows = HostRows(catalogue, copies, settings.catalogue_scan_seconds)
        self._doubts = Doubts(cache, settings.doubt_seconds)

    @crash_points
    def reconcile(self, done: Pass) -> None:
        """Rows are listed before files, and a file looked for again before its row goes: fills and evictions go on."""
        self._mark()
        self._host_rows.count(self._host)
        rows = {own_row.image_id: own_row for own_row in self._own_rows()}
        held = self._hosts.ask("own copies", lambda: self._copies.of_host(self._host.name), rows.keys())
        entries = {file.image_id: file for file in self._cache.complete.entries()}
        self._close(entries.values(), rows, done)
        statuses = self._catalogue.statuses(entries)
        going = self._going(entries, statuses, bool(rows or statuses), done)
        for image_id in going:
            self._remove(image_id, statuses.get(image_id), done)
        active = {one: entries[one] for one in entries if statuses.get(one) == IMAGE_ACTIVE and one not in going}
        for image_id in sorted(active.keys() - held):
            self._register(active[image_id], done)
        self._list({one: active[one] for one in active.keys() & held}, rows, done)
        self._withdraw_lost((rows.keys() | held) - entries.keys(), rows, len(entries), done)

    def _list(self, held: Mapping[str, CachedFile], rows: Mapping[str, Location], done: Pass) -> None:
        """Of the copies that our tables have the right ones are locations in Glance's, as far as it is their turn."""
        turn = self._listed.turn(held)
        wrong = {one for one in turn if one in rows and not self._is_written(rows[one])}
        for image_id in sorted(wrong | self._listed.missing([one for one in turn if one not in rows])):
            self._register(held[image_id], done)
        for row in self._listed.surplus({one: rows[one] for one in turn if one in rows and one not in wrong}):
            if self._catalogue.withdraw(row):
                log.info("image %s: its copy here is no location in Glance's tables any more", row.image_id)

    def _withdraw_lost(self, missing: Collection[str], rows: Mapping[str, Location], files: int, done: Pass) -> None:
        """What is registered, and has no file, is withdrawn."""
        lost = [one for one in sorted(missing) if not self._cache.complete.exists(one)]
        if lost and self._are_gone(len(lost), files, done):
            for image_id in lost[: self._settings.max_withdrawals_per_pass]:
                self._registration.forget(image_id)
                if image_id not in rows or self._catalogue.withdraw(rows[image_id]):
                    log.info("image %s: row without a file withdrawn", image_id)
                    done.withdrawn += 1
                self._hosts.ask("ended copies", partial(self._copies.end, self._host.name, [image_id]), 0)

    def _close(self, entries: Iterable[CachedFile], rows: Mapping[str, Location], done: Pass) -> None:
        """Files that Glance's user cannot read, whoever runs this: they serve nobody (`removal.withheld`)."""
        found = {entry.image_id: entry for entry in entries if not entry.readable}
        for problem in withheld.problems(found.values(), self._cache):
            done.problems.append(f"reconcile: {problem}")
            log.error("janitor: %s", problem)
        theirs = [rows[image_id] for image_id in sorted(found) if image_id in rows][
            : self._settings.max_withdrawals_per_pass
        ]
        for row in withheld.rows_to_withdraw(theirs, found, self._ledger, self._hosts, self._removals):
            done.withdrawn += self._catalogue.withdraw(row)

    def _going(
        self, entries: Mapping[str, CachedFile], statuses: Mapping[str, str], is_familiar: bool, done: Pass
    ) -> set[str]:
        """Of these files those that go now: of deleted images all, of others so many of those in doubt for long."""
        gone = {entry for entry in entries if statuses.get(entry) in IMAGE_IS_GONE}
        doubted = {entry for entry in entries if entry not in gone and statuses.get(entry) not in _KEEPS}
        overdue = self._doubts.overdue(doubted)
        unknown = doubted - statuses.keys()
        strange = unknown - self._once_ours(unknown, is_familiar)
        if strange:
            done.problems.append(
                f"reconcile: {len(strange)} files belong to images that Glance's database has never had; is it another "
                f"database? They stay; to remove them: replica audit --host {self._settings.host_name} --remove-dark"
            )
            log.error("janitor: %s: %s", self._cache.folder, done.problems[-1])
        return gone | set(sorted(overdue - strange)[: self._settings.max_withdrawals_per_pass])

    def _once_ours(self, unknown: set[str], is_familiar: bool) -> set[str]:
        """Of images without a row those that were in this cloud: purged, and not of another database.

        A few are, where the catalogue is the one that knows other files, or rows, of this host. For many the ledger
        must have results of this host. It is enough alone if it lies in the same database.
        """
        if is_familiar and len(unknown) <= self._settings.max_withdrawals_per_pass:
            return unknown
        if not unknown or (not is_familiar and self._settings.ledger != self._settings.database):
            return set()
        here = states.c.host == self._settings.host_name
        found: set[tuple[str, str]] = self._hosts.ask("history", lambda: self._ledger.keys(unknown, here), set())
        return {image_id for image_id, _ in found}

    @crash_points
    def _remove(self, image_id: str, status: str | None, done: Pass) -> None:
        """Killed in between: a file without a row, which the next pass removes."""
        log.info("image %s: its file is removed: the image is %s", image_id, status or "unknown to Glance")
        self._registration.withdraw(image_id)
        self._cache.complete.remove(image_id)
        done.removed += 1

    @crash_points
    def _register(self, entry: CachedFile, done: Pass) -> None:
        """The verified file of an active image has its row."""
        if entry.verified and entry.readable and self._registration.own_url(entry.image_id):
            image = self._catalogue.active(entry.image_id)
            if image is not None and self._is_right(image) and not self._is_going(entry.image_id):
                done.registered += self._registration.register(image)

    def _is_right(self, image: Image) -> bool:
        """Whether the file is known to be this image's; what cannot be goes."""
        try:
            copy = self._own_copies.open(image)
        except Unreadable:
            return False
        if copy is None:
            return False
        with closing(copy):
            return copy.entry.is_file_of(image)

    def _is_going(self, image_id: str) -> bool:
        """Whether a prune has withdrawn the row and is about to ask for the file; one killed there never will."""
        ask = partial(self._ledger.withdrawals, 1, image_ids=[image_id], host=self._settings.host_name)
        return bool(self._hosts.ask("removals", partial(ask, within_seconds=_PRUNE_SECONDS, is_open=True), []))

    def _is_written(self, row: Location | None) -> bool:
        """Whether the file has its row; one that names another zone is written anew."""
        return row is not None and row.zone == self._settings.host_zone

    def _own_rows(self) -> Iterable[Location]:
        return self._host_rows.of(self._host) if self._host.url else ()

    def _are_gone(self, lost: int, files: int, done: Pass) -> bool:
        """Whether files may be believed gone: not while all are, in a directory that is new or was never empty."""
        left = self._settings.dead_after_seconds - (time.time() - self._mark())
        most = self._settings.max_withdrawals_per_pass
        if files == 0 and left > 0:
            problem = f"the directory is empty: unmounted? No row is withdrawn for {left:.0f} s more"
        elif lost > most:
            problem = f"more than max_withdrawals_per_pass: {most} rows are withdrawn now, the rest in later passes"
        else:
            return True
        done.problems.append(f"reconcile: {lost} registered files are gone and {problem}")
        log.error("janitor: %s: %s", self._cache.folder, done.problems[-1])
        return files > 0 or left <= 0

    @crash_points
    def _mark(self) -> float:
        """Since when this directory has been ours, in seconds since the epoch; from now on, if it had no mark."""
        mark = self._cache.own(_MARK)
        with self._cache.errors(_MARK):
            if not mark.exists():
                os.close(self._cache.open_own(_MARK))  # no crash test: a directory that is new
            return mark.stat().st_mtime

    def release_pending_delete(self, done: Pass) -> None:
        """Rows of ours that a host without our filters left to Glance's scrubber, which would try them for ever."""
        for row in self._host_rows.of(self._host, pending=True) if self._host.url else ():
            if self._catalogue.release(row):
                log.info("image %s: row taken from the scrubber", row.image_id)
                done.withdrawn += 1

    def keep_restored(self, _done: Pass) -> None:
        """The durable copy of an image that `glance-scrubber --restore` brought back is a location again.

        Glance restores the image's row only: its locations go on waiting for a scrubber that no longer looks at them,
        and what a host registers meanwhile would be all there is. An image with another durable location is left alone.
        """
        for row in self._catalogue.stranded():
            image = None if row.is_cached else self._catalogue.image(row.image_id)
            if image is None or image.durable:
                continue
            if self._catalogue.put_back(row, pending=True):
                log.warning("image %s: restored, and so is its location %s", row.image_id, redact(row.url))

    @crash_points
    def withdraw_dead_hosts(self, done: Pass) -> None:
        """Registrations of hosts that stopped their heartbeat long ago go; a host that comes back registers again.

        That of a last intact copy stays: it is all that says where to look for it.
        """
        for host in self._ledger.hosts():
            if host.age_seconds > self._settings.dead_after_seconds and host.name != self._settings.host_name:
                found = self._catalogue.registrations(host.name)
                own = (copy for copy in found if is_replica_of(copy, host.name, host.url))
                expendable = list(self._removals.expendable(own))
                done.withdrawn += self._withdraw(host, expendable)
                self._copies.end(host.name, {copy.image_id for copy in expendable})
                self._copies.forget_ended(host.name)

    def withdraw_all(self, host: Host) -> int:
        """Rows of Glance's withdrawn that name this host and its URL, both."""
        return self._withdraw(host, self._host_rows.of(host))

    @crash_points
    def _withdraw(self, host: Host, registrations: Iterable[Location]) -> int:
        gone = 0
        for found in registrations:
            if found.row is None or self._catalogue.withdraw(found):
                log.info("image %s: registration of host %s at %s withdrawn", found.image_id, host.name, host.url)
                gone += 1
        return gone
