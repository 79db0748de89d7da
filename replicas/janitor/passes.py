"""Keeps one host true: its directory, its rows in the catalogue and its line in the ledger.

One pass, in this order, each step safe to be killed in and to be done again:

    heartbeat      the ledger knows that this host lives
    removals       what `replica prune` or another host asked to go: row, then file
    invalid        files set aside as wrong go after a day, what others left half written after an hour
    reconcile      files without a row are registered, rows without a file withdrawn (own rows only)
    unhang         own rows that wait for Glance's scrubber, which cannot delete them, are taken from it
    keep restored  the durable location of an image that `glance-scrubber --restore` brought back is one again
    former         what is left of names that this host had before
    pins           the files that are to stay are marked, others no longer are
    last copies    which files must not be evicted is written down, for the time without a ledger
    trim           back within the limits of space
    stock          what the policies want to be here, and is not, is asked for
    copies         what this host was asked to fetch, and growing files left behind, are filled
    answer         files that a verification asked this host to read are read
    scrub          files that nobody of us has read yet are read and registered, then the one longest unverified is
                   read again, at a bounded rate, beside the passes
    the dead       rows of hosts without a heartbeat are withdrawn
    forget         old counts of use and copies that ended a week ago go; what was served is told

Between two passes `removals`, `copies` and `answer` are looked at every few seconds.

Absent, present and unknown are three answers: when the catalogue, the directory or the ledger cannot be asked, the
steps that need it do nothing.
"""

import logging
import os
import threading
import time
from contextlib import closing
from functools import partial

from ..cache import incomplete
from ..cache.host_lock import HostLock
from ..crash_points import crash_points
from ..errors import CacheError, ReplicaError, Unreadable
from ..host.keeper import Keeper
from ..host.presence import Presence
from ..host.user import give_away
from ..ledger.ledger import Withdrawal
from ..ledger.orphans import DARK
from ..ledger.prefetch_requests import HIGH, Copies
from ..ledger.usage import KEPT_DAYS
from ..model import Pass
from ..prefetch.planner import Stocking
from ..prefetch.worker import Copier
from .reconcile import Reconciler
from .scrub import Scrubber
from .verify_worker import VerifyWorker

log = logging.getLogger(__name__)

_LOCK = "janitor"
_STEP_SECONDS = 5.0  # between two looks at what was asked of this host
_INVALID_SECONDS = 86400.0
_LEFT_SECONDS = 3600.0  # what others left half written goes when nobody wrote to it for so long


class Janitor:
    """One host's janitor; `start` for the thread in a glance-api process, `run_once` for a program."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._cache = keeper.cache
        self._settings = keeper.settings
        self._stop = threading.Event()
        self._news = threading.Event()  # there is something to look at
        self._scrubber = Scrubber(keeper, self._breathe)
        self._reconciler = Reconciler(keeper)
        self._presence = Presence(keeper, self._reconciler.withdraw_all)
        self._stocking = Stocking(keeper.settings, keeper.cache, keeper.space, keeper.catalogue, keeper.ledger)
        self._copier = Copier(keeper, self.wake)
        self._verify_worker = VerifyWorker(keeper, self._breathe)
        self._alone = HostLock(keeper.cache, _LOCK)
        self._scrubbing: threading.Thread | None = None

    def start(self) -> None:
        """A daemon thread here and in every process forked from here.

        Each tells the ledger what its process served; one of a host at a time does the rest, none without
        `[replicas] janitor`.
        """
        os.register_at_fork(after_in_child=self._after_fork)
        self._start_thread()

    def stop(self) -> None:
        """The thread ends after the step it is in."""
        self._stop.set()
        self._news.set()

    def wake(self) -> None:
        """What was asked of this host is looked at now if its janitor runs in this process, else within seconds."""
        self._news.set()

    @crash_points
    def run_once(self) -> Pass:
        """One pass, and the fills it started. Raises CacheError: no directory, or another janitor at work."""
        give_away(self._cache)
        if not self._alone.take():
            raise CacheError(
                f"another janitor is at work in {self._cache.folder}, that of this host's glance-api or another "
                "`replica janitor --once`; there is nothing to do, since it does the same; for passes by cron alone "
                "set [replicas] janitor = false and restart glance-api"
            )
        try:
            done = self._pass() if self._presence.claim() else self._visit()
            done.filled += self._copier.finish(self._breathe)
            self._verify_worker.finish()
            if self._scrubbing is not None:
                self._scrubbing.join()
            self._count(done)
            return done
        finally:
            self._alone.free()

    def _after_fork(self) -> None:
        """Threads are not inherited, but the lock's descriptor is: kept, it would outlive the process that works."""
        self._alone.free()
        self._news = threading.Event()  # the other's lock may have been taken just then
        self._copier = Copier(self._keeper, self.wake)
        self._verify_worker = VerifyWorker(self._keeper, self._breathe)
        if not self._stop.is_set():
            self._start_thread()

    def _start_thread(self) -> None:
        threading.Thread(target=self._run, name="replica-janitor", daemon=True).start()

    def _run(self) -> None:
        interval, next_pass = self._settings.janitor_interval_seconds, 0.0
        while not self._stop.is_set():
            is_time = time.monotonic() >= next_pass
            try:
                if self._settings.janitor and self._alone.take() and self._is_owner(is_time):
                    self._pass() if is_time else self._look()
                elif is_time:
                    self._beside()
            except ReplicaError as error:
                log.warning("janitor: %s", error)
            except Exception:  # outermost edge of a thread
                log.exception("janitor")
            if is_time:
                next_pass = time.monotonic() + interval
            self._news.wait(min(_STEP_SECONDS, interval))
            self._news.clear()
        self._alone.free()

    def _is_owner(self, is_time: bool) -> bool:
        """Whether the directory is this host's, claimed anew in each pass; else the lock is free for its owner."""
        owns = self._presence.claim() if is_time else self._keeper.standing.owner() is None
        if not owns:
            self._alone.free()
        return owns

    def _beside(self) -> None:
        """The pass of a process that does not have the lock: another of this host has it, or another host."""
        if self._settings.janitor and self._keeper.standing.owner() is not None:
            self._visit()
        self._keeper.tell()

    def _visit(self) -> Pass:
        """The pass of a host in a directory of another one."""
        done = Pass()
        self._presence.visit(done)
        return done

    def _pass(self) -> Pass:
        done = Pass()
        self._cache.prepare()
        steps = (
            *(self._heartbeat, self._removals, self._invalid),
            *(self._reconciler.reconcile, self._presence.forget_former),
            *(self._reconciler.unhang, self._reconciler.keep_restored),
            *(self._pins, self._last_copies, self._trim, self._stock, self._copy, self._answer, self._scrub),
            *(self._reconciler.bury, self._forget),
        )
        for step in steps:
            try:
                step(done)
            except ReplicaError as error:
                problem = f"{step.__name__.strip('_')}: {error}"
                log.warning("janitor: %s", problem)
                done.problems.append(problem)
        self._count(done)
        done.filling, done.readers = self._keeper.activity.now()
        done.served_bytes = self._keeper.tell()
        log.log(logging.DEBUG if done == Pass() else logging.INFO, "janitor: %s", done)
        return done

    def _look(self) -> None:
        """What others asked of this host is not left until the next pass."""
        self._copier.step()
        self._verify_worker.step()
        asked = partial(self._keeper.ledger.pending_withdrawals, self._settings.host_name)
        for request in self._keeper.hosts.ask("removals", asked, ()):
            try:
                self._remove(request, Pass())
            except CacheError as error:
                log.warning("image %s: not removed as asked: %s", request.image_id, error)

    @crash_points
    def _heartbeat(self, done: Pass) -> None:
        self._presence.announce(done)

    def _breathe(self) -> None:
        """Called often in long work: the host goes on to say that it lives. Raises CacheError when told to stop."""
        if self._stop.is_set():
            raise CacheError("stopped")
        self._presence.keep_alive()

    @crash_points
    def _removals(self, done: Pass) -> None:
        for request in self._keeper.ledger.pending_withdrawals(self._settings.host_name):
            try:
                self._remove(request, done)
            except CacheError as error:  # no crash test: a fault, perhaps of this file alone
                done.problems.append(f"removals: image {request.image_id}: {error}")

    @crash_points
    def _remove(self, request: Withdrawal, done: Pass) -> None:
        if self._copier.fills(request.image_id):  # a copy that was cancelled ends first, or its file would come after
            return
        if request.reason == DARK and not self._is_dark(request):
            log.info("image %s: not removed as asked by %s: it is not dark any more", request.image_id, request.who)
            self._keeper.ledger.finish_withdrawal(request.id)
            return
        if request.reason != DARK and self._is_refused(request):
            return
        self._keeper.withdraw(request.image_id)
        done.removed += bool(self._cache.complete.remove(request.image_id))
        log.info("image %s: removed as asked by %s: %s", request.image_id, request.who, request.reason)
        if (request.proof or {}).get("refill"):  # `replica repair`; killed before the next line, both are done again
            copies = Copies(self._keeper.ledger.database)
            copies.request([request.image_id], [self._settings.host_name], who=request.who, priority=HIGH)
        self._keeper.ledger.finish_withdrawal(request.id)

    def _is_refused(self, request: Withdrawal) -> bool:
        """Whether the file stays, being the last one. Raises CatalogueError, LedgerError, CacheError: not known."""
        try:
            copy = self._cache.complete.hold(request.image_id)
        except Unreadable:
            return self._keeper.removals.is_refused(request, time.time())  # whatever was known of it may be of another
        if copy is None:
            return False
        with closing(copy):
            verified_at = copy.entry.verified_at if copy.entry.verified else None
        return self._keeper.removals.is_refused(request, verified_at)

    def _is_dark(self, request: Withdrawal) -> bool:
        """Whether the file is the one that an audit saw, and still nobody's. Raises CatalogueError, CacheError."""
        status = self._keeper.catalogue.statuses([request.image_id]).get(request.image_id)
        copy = self._cache.complete.hold(request.image_id)
        if copy is None:
            return False
        with closing(copy):
            return status in (None, "deleted") and copy.entry.size == (request.proof or {}).get("bytes")

    @crash_points
    def _invalid(self, _done: Pass) -> None:
        for image_id, facts in self._cache.listed("invalid"):
            if time.time() - facts.st_ctime > _INVALID_SECONDS:
                self._cache.drop("invalid", image_id)  # no crash test: it takes a day
        for image_id, freed in incomplete.clear(self._cache, _LEFT_SECONDS):
            log.info("image %s: %d bytes that nobody goes on writing removed from incomplete/", image_id, freed)

    @crash_points
    def _pins(self, done: Pass) -> None:
        self._keeper.pinning.carry(done)

    def _last_copies(self, _done: Pass) -> None:
        found = [one.image_id for one in self._cache.complete.entries()]
        self._keeper.hosts.ask("last copies", lambda: self._keeper.keeping.refresh(found), None)

    @crash_points
    def _trim(self, done: Pass) -> None:
        done.evicted_bytes += self._keeper.space.trim(self._keeper.withdraw)

    def _stock(self, done: Pass) -> None:
        self._stocking.run(done)

    @crash_points
    def _copy(self, done: Pass) -> None:
        done.filled += self._copier.step()

    def _answer(self, _done: Pass) -> None:
        self._verify_worker.step()

    def _scrub(self, _done: Pass) -> None:
        """Beside the passes, not in one: at a bounded rate a large file takes hours."""
        if self._scrubbing is None or not self._scrubbing.is_alive():
            self._scrubbing = threading.Thread(target=self._scrub_one, name="replica-scrub", daemon=True)
            self._scrubbing.start()

    def _forget(self, _done: Pass) -> None:
        self._copier.forget()
        self._keeper.uses.trim(KEPT_DAYS)

    def _count(self, done: Pass) -> None:
        scrubbed, damaged, adopted, registered = self._scrubber.counts()
        done.registered += registered
        done.adopted += adopted
        done.scrubbed += scrubbed
        done.damaged += damaged

    def _scrub_one(self) -> None:
        try:
            self._scrubber.step()
        except ReplicaError as error:
            log.warning("janitor: scrub: %s", error)
        except Exception:  # outermost edge of a thread
            log.exception("janitor: scrub")
