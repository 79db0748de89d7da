"""Keeps one host true: its directory, its rows in the catalogue and its line in the ledger.

One pass, in this order, each step safe to be killed in and to be done again:

    heartbeat      the ledger knows that this host lives
    removals       what `replica prune` or another host asked to go: row, then file
    growing        what a dead filler left is removed once nobody took it over
    adopt          files of the stock cache are verified and marked
    reconcile      files without a row are registered, rows without a file withdrawn (own rows only)
    trim           back within the limits of space
    queue          `queue/<image_id>` is filled
    scrub          the file longest unverified is read again, at a bounded rate
    the dead       rows of hosts without a heartbeat are withdrawn

Absent, present and unknown are three answers: when the catalogue, the directory or the ledger cannot be asked, the
steps that need it do nothing. A directory that was empty a moment ago is unknown, too (see `_may_withdraw`).
"""

import fcntl
import logging
import os
import threading
import time
from dataclasses import dataclass, field

from . import location
from .cache import Entry
from .errors import CacheError, ReplicaError
from .fill import start
from .growing import Growing, try_lock
from .keeper import Keeper
from .model import IMAGE_ACTIVE, IMAGE_DEACTIVATED, Host, Location
from .scrub import Scrubber

log = logging.getLogger(__name__)

_MARK = ".replicas"  # says since when this directory has been ours; its absence: a new or an unmounted one
_LOCK = ".janitor"
_INCOMPLETE_SECONDS = 3600.0  # a growing file nobody fills is kept so long for somebody to take over
_INVALID_SECONDS = 86400.0
_KEEPS = (IMAGE_ACTIVE, IMAGE_DEACTIVATED)


@dataclass
class Pass:
    """What one pass did."""

    registered: int = 0
    withdrawn: int = 0
    adopted: int = 0
    removed: int = 0
    evicted_bytes: int = 0
    filled: int = 0
    scrubbed: int = 0
    damaged: int = 0
    problems: list[str] = field(default_factory=list)


class Janitor:
    """One host's janitor; `start` for the thread in a glance-api process, `run_once` for a program."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._cache = keeper.cache
        self._settings = keeper.settings
        self._stop = threading.Event()
        self._scrubber = Scrubber(keeper, self._breathe)
        self._beaten = 0.0
        self._fillers: list[threading.Thread] = []

    def start(self) -> None:
        """A daemon thread here and in every process forked from here; one of a host at a time does the work."""
        os.register_at_fork(after_in_child=self._start_thread)
        self._start_thread()

    def stop(self) -> None:
        """The thread ends after the step it is in."""
        self._stop.set()

    def run_once(self) -> Pass:
        """One pass, and the fills it started. Raises CacheError: no directory, or another janitor at work."""
        self._cache.prepare()
        fd = self._lock()
        if fd is None:
            raise CacheError(f"another janitor is at work in {self._cache.folder}")
        try:
            done = self._pass()
            for filler in self._fillers:
                filler.join()
            return done
        finally:
            os.close(fd)

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name="replica-janitor", daemon=True).start()

    def _run(self) -> None:
        fd: int | None = None
        while not self._stop.is_set():
            try:
                fd = self._lock() if fd is None else fd
                if fd is not None:
                    self._pass()
            except ReplicaError as error:
                log.warning("janitor: %s", error)
            except Exception:  # outermost edge of a thread
                log.exception("janitor")
            self._stop.wait(self._settings.janitor_interval_seconds)

    def _lock(self) -> int | None:
        """The host-wide lock, freed by the kernel when this process dies; None: another holds it."""
        with self._cache.errors("janitor"):
            fd = os.open(self._cache.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if try_lock(fd, fcntl.LOCK_EX):
            return fd
        os.close(fd)
        return None

    def _pass(self) -> Pass:
        done = Pass()
        self._fillers = []
        self._cache.prepare()
        steps = (self._heartbeat, self._removals, self._growing, self._adopt, self._reconcile, self._trim, self._queue,
                 self._scrub, self._bury)  # fmt: skip
        for step in steps:
            try:
                step(done)
            except ReplicaError as error:
                problem = f"{step.__name__.strip('_')}: {error}"
                log.warning("janitor: %s", problem)
                done.problems.append(problem)
        log.log(logging.DEBUG if done == Pass() else logging.INFO, "janitor: %s", done)
        return done

    def _heartbeat(self, done: Pass) -> None:
        """The ledger knows this host. Rows under a URL the host had before go first, while that is still known."""
        if self._settings.host_url is None:
            done.problems.append(f"heartbeat: {self._keeper.why_unregistered()}")
            return
        before = next((one for one in self._keeper.ledger.hosts() if one.name == self._settings.host_name), None)
        if before is not None and before.url != self._settings.host_url:
            log.warning("host %s moved from %s to %s", before.name, before.url, self._settings.host_url)
            done.withdrawn += self._withdraw_all(before)
        self._beat()

    def _beat(self) -> None:
        entries = list(self._cache.entries())
        self._beaten = time.monotonic()
        self._keeper.ledger.heartbeat(
            Host(
                name=self._settings.host_name,
                zone=self._settings.host_zone,
                url=self._settings.host_url or "",
                files=len(entries),
                bytes_used=sum(one.size for one in entries),
                bytes_free=self._keeper.space.free(),
            )
        )

    def _breathe(self) -> None:
        """Called often in long work: the host goes on to say that it lives. Raises CacheError when told to stop."""
        if self._stop.is_set():
            raise CacheError("stopped")
        if self._settings.host_url and time.monotonic() - self._beaten > self._settings.janitor_interval_seconds:
            self._beat()

    def _removals(self, done: Pass) -> None:
        for request in self._keeper.ledger.pending_withdrawals(self._settings.host_name):
            self._keeper.withdraw(request.image_id)
            done.removed += bool(self._cache.remove(request.image_id))
            log.info("image %s: removed as asked by %s: %s", request.image_id, request.who, request.reason)
            self._keeper.ledger.finish_withdrawal(request.id)

    def _growing(self, _done: Pass) -> None:
        for image_id, facts in self._cache.listed("incomplete"):
            if time.time() - facts.st_mtime > _INCOMPLETE_SECONDS:
                with self._cache.errors(image_id):
                    growing = Growing.lock(self._cache.folder / "incomplete" / image_id, facts.st_size)
                if growing is not None:
                    log.info("image %s: growing file without a filler removed", image_id)
                    growing.discard()
        for image_id, facts in self._cache.listed("invalid"):
            if time.time() - facts.st_ctime > _INVALID_SECONDS:
                self._cache.drop("invalid", image_id)

    def _adopt(self, done: Pass) -> None:
        done.adopted += self._scrubber.adopt()

    def _reconcile(self, done: Pass) -> None:
        """Rows are listed before and after the files, so that one made or withdrawn meanwhile is nobody's fault."""
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
        if lost and self._may_withdraw(len(lost), len(entries), done):
            for row in lost:
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
            if image is not None:
                self._keeper.register(image)
                done.registered += 1

    def _own_rows(self) -> list[Location]:
        if self._settings.host_url is None:
            return []
        rows = self._keeper.catalogue.of_host(self._settings.host_name)
        return [one for one in rows if location.is_replica_of(one, self._settings.host_name, self._settings.host_url)]

    def _may_withdraw(self, lost: int, files: int, done: Pass) -> bool:
        """Whether files that are gone may be believed gone, rather than their disk.

        Not while the directory is empty and was so a short time ago (unmounted, or new), and not when more are gone
        than one pass may withdraw.
        """
        left = self._settings.dead_after_seconds - (time.time() - self._mark())
        if files == 0 and left > 0:
            problem = f"the directory is empty: unmounted? Nothing is withdrawn for {left:.0f} s more"
        elif lost > self._settings.max_withdrawals_per_pass:
            problem = (
                f"more than max_withdrawals_per_pass = {self._settings.max_withdrawals_per_pass}: none is withdrawn"
            )
        else:
            return True
        done.problems.append(f"reconcile: {lost} registered files are gone and {problem}")
        log.error("janitor: %s: %s", self._cache.folder, done.problems[-1])
        return False

    def _mark(self) -> float:
        """Since when this directory has been ours, in seconds since the epoch; from now on, if it had no mark."""
        mark = self._cache.folder / _MARK
        with self._cache.errors(_MARK):
            mark.touch(exist_ok=True) if not mark.exists() else None
            return mark.stat().st_mtime

    def _trim(self, done: Pass) -> None:
        done.evicted_bytes += self._keeper.space.trim(self._keeper.withdraw)

    def _queue(self, done: Pass) -> None:
        """A name stays until its file is there, so that a pass cut short asks again; wrong bytes end it, too."""
        condemned = {image_id for image_id, _ in self._cache.listed("invalid")}
        for image_id, _ in self._cache.listed("queue"):
            image = self._keeper.active(image_id)
            if image is None or image_id in condemned or self._cache.exists(image_id):
                self._cache.drop("queue", image_id)
            elif filler := start(self._cache, self._keeper.plan(image)):
                done.filled += 1
                self._fillers.append(filler)

    def _scrub(self, done: Pass) -> None:
        done.scrubbed += self._scrubber.oldest() is not None
        done.damaged = self._scrubber.damaged

    def _bury(self, done: Pass) -> None:
        """Rows of hosts that stopped their heartbeat long ago go; a host that comes back registers again."""
        for host in self._keeper.ledger.hosts():
            if host.age_seconds > self._settings.dead_after_seconds and host.name != self._settings.host_name:
                done.withdrawn += self._withdraw_all(host)

    def _withdraw_all(self, host: Host) -> int:
        """Rows withdrawn that name this host and its URL, both."""
        gone = 0
        for row in self._keeper.catalogue.of_host(host.name):
            if location.is_replica_of(row, host.name, host.url) and self._keeper.catalogue.withdraw(row):
                log.info("image %s: row of host %s at %s withdrawn", row.image_id, host.name, host.url)
                gone += 1
        return gone
