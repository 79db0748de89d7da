"""Disk and catalogue in agreement, both ways, and own rows only.

Absent, present and unknown are three answers: what could not be asked changes nothing, a directory that is empty and
was so a moment ago is unknown, and one pass withdraws only so many rows.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial

from . import location
from .cache import Entry
from .errors import CacheError
from .keeper import Keeper
from .model import IMAGE_ACTIVE, IMAGE_DEACTIVATED, Host, Image, Location, Pass

log = logging.getLogger(__name__)

_MARK = "since"  # says since when this directory has been ours; its absence: a new or an unmounted one
_PRUNE_SECONDS = 600.0  # that a prune may take at most from its note in the ledger to the row's end
_KEEPS = (IMAGE_ACTIVE, IMAGE_DEACTIVATED)


class Reconciler:
    """One host's; each step may be killed anywhere and done again."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._cache = keeper.cache
        self._settings = keeper.settings

    def reconcile(self, done: Pass) -> None:
        """Rows are listed before files, and a file looked for again before its row goes: fills and evictions go on."""
        self._mark()
        rows = {one.image_id: one for one in self._own_rows()}
        entries = {one.image_id: one for one in self._cache.entries()}
        statuses = self._keeper.catalogue.statuses(entries)
        unknown = len(entries.keys() - statuses.keys())
        if unknown > self._settings.max_withdrawals_per_pass:
            raise CacheError(
                f"{unknown} files belong to images Glance has never heard of: another database? Nothing is removed"
            )
        for image_id, entry in entries.items():
            self._settle(entry, statuses.get(image_id), image_id in rows, done)
        lost = [row for image_id, row in rows.items() if image_id not in entries and not self._cache.exists(image_id)]
        if lost and self._are_gone(len(lost), len(entries), done):
            for row in lost[: self._settings.max_withdrawals_per_pass]:
                if self._keeper.catalogue.withdraw(row):
                    log.info("image %s: row without a file withdrawn", row.image_id)
                    done.withdrawn += 1

    def _settle(self, entry: Entry, status: str | None, has_row: bool, done: Pass) -> None:
        """One complete file against the catalogue. `status` None: the catalogue answered that it has no such image."""
        if status not in _KEEPS:
            log.info("image %s: its file goes, the image is %s", entry.image_id, status or "unknown to Glance")
            self._keeper.withdraw(entry.image_id)
            self._cache.remove(entry.image_id)
            done.removed += 1
        elif entry.verified and not has_row and status == IMAGE_ACTIVE and self._keeper.own_url(entry.image_id):
            image = self._keeper.active(entry.image_id)
            if image is not None and self._is_right(image) and not self._is_going(entry.image_id):
                self._keeper.register(image)
                done.registered += 1

    def _is_right(self, image: Image) -> bool:
        """Whether the file is known to be this image's; what cannot be goes."""
        copy = self._keeper.copy(image)
        if copy is None:
            return False
        with closing(copy):
            return copy.entry.is_file_of(image)

    def _is_going(self, image_id: str) -> bool:
        """Whether a prune has withdrawn the row and is about to ask for the file; one killed there never will."""
        ask = partial(self._keeper.ledger.withdrawals, 1, image_ids=[image_id], host=self._settings.host_name)
        return bool(self._keeper.hosts.ask("removals", partial(ask, within_seconds=_PRUNE_SECONDS, is_open=True), []))

    def _own_rows(self) -> list[Location]:
        if self._settings.host_url is None:
            return []
        rows = self._keeper.catalogue.of_host(self._settings.host_name)
        return [one for one in rows if location.is_replica_of(one, self._settings.host_name, self._settings.host_url)]

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

    def _mark(self) -> float:
        """Since when this directory has been ours, in seconds since the epoch; from now on, if it had no mark."""
        mark = self._cache.own(_MARK)
        with self._cache.errors(_MARK):
            mark.touch(exist_ok=True) if not mark.exists() else None
            return mark.stat().st_mtime

    def unhang(self, done: Pass) -> None:
        """Rows of ours that a host without our filters left to Glance's scrubber, which would try them for ever."""
        base, name = self._settings.host_url, self._settings.host_name
        for row in self._keeper.catalogue.of_host(name, pending=True) if base else ():
            if base and location.is_replica_of(row, name, base) and self._keeper.catalogue.release(row):
                log.info("image %s: row taken from the scrubber", row.image_id)
                done.withdrawn += 1

    def keep_restored(self, _done: Pass) -> None:
        """The durable copy of an image that `glance-scrubber --restore` brought back is a location again.

        Glance restores the image's row only: its locations go on waiting for a scrubber that no longer looks at them,
        and what a host registers meanwhile would be all there is. An image with another durable location is left alone.
        """
        for row in self._keeper.catalogue.stranded():
            image = None if location.has_replica_path(row) else self._keeper.catalogue.image(row.image_id)
            if image is None or any(not location.is_volatile(one) for one in image.locations):
                continue
            if self._keeper.catalogue.put_back(row, pending=True):
                log.warning("image %s: restored, and so is its location %s", row.image_id, location.redact(row.url))

    def bury(self, done: Pass) -> None:
        """Rows of hosts that stopped their heartbeat long ago go; a host that comes back registers again.

        The row of a last intact copy stays: it is all that says where to look for it.
        """
        for host in self._keeper.ledger.hosts():
            if host.age_seconds > self._settings.dead_after_seconds and host.name != self._settings.host_name:
                done.withdrawn += self._withdraw(host, self._keeper.removals.buried(self._rows(host)))

    def withdraw_all(self, host: Host) -> int:
        """Rows withdrawn that name this host and its URL, both."""
        return self._withdraw(host, self._rows(host))

    def _rows(self, host: Host) -> Iterator[Location]:
        rows = self._keeper.catalogue.of_host(host.name)
        return (row for row in rows if location.is_replica_of(row, host.name, host.url))

    def _withdraw(self, host: Host, rows: Iterable[Location]) -> int:
        gone = 0
        for row in rows:
            if self._keeper.catalogue.withdraw(row):
                log.info("image %s: row of host %s at %s withdrawn", row.image_id, host.name, host.url)
                gone += 1
        return gone
