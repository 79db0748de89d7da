"""Keeps one host true: its directory, its rows in the catalogue and its line in the ledger.

One pass, in this order, each step safe to be killed in and to be done again:

    heartbeat      the ledger knows that this host lives
    removals       what `replica prune` or another host asked to go: row, then file
    invalid        files set aside as wrong go after a day, what others left half written after an hour
    reconcile      files without a row are registered, rows without a file withdrawn (own rows only)
    release        own rows that wait for Glance's scrubber, which cannot delete them, are taken from it
    keep restored  the durable location of an image that `glance-scrubber --restore` brought back is one again
    former         what is left of names that this host had before
    pins           the files that are to stay are marked, others no longer are
    last copies    which files must not be evicted is written down, for the time without a ledger
    trim           back within the limits of space
    stock          what the policies want to be here, and is not, is asked for
    copies         what this host was asked to fetch, and partial files left behind, are filled
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

from ..cache import incomplete
from ..cache.host_lock import HostLock
from ..cache.statistics import Load
from ..crash_points import crash_points
from ..errors import CacheError, ReplicaError
from ..host.local_host import LocalHost
from ..host.user import give_away
from ..ledger.usage import KEPT_DAYS
from ..model import Pass
from ..prefetch.planner import PrefetchPlanner
from . import assembly

log = logging.getLogger(__name__)

_LOCK = "janitor"
_STEP_SECONDS = 5.0  # between two looks at what was asked of this host
_INVALID_SECONDS = 86400.0
_LEFT_SECONDS = 3600.0  # what others left half written goes when nobody wrote to it for so long


class Janitor:
    """One host's janitor; `start` for the thread in a glance-api process, `run_once` for a program."""

    def __init__(self, host: LocalHost) -> None:
        self._host = host
        self._cache, self._settings = host.cache, host.settings
        self._stop = threading.Event()
        self._news = threading.Event()  # there is something to look at
        self._scrubber = assembly.scrubber(host, self._keep_alive)
        self._reconciler = assembly.reconciler(host)
        self._presence = assembly.presence(host, self._reconciler)
        self._prefetch_planner = PrefetchPlanner(host.settings, host.cache, host.eviction, host.catalogue, host.ledger)
        self._prefetch_worker = assembly.prefetch_worker(host, self.wake)
        self._verify_worker = assembly.verify_worker(host, self._keep_alive)
        self._requested_removals = assembly.requested_removals(host, self._is_fetched)
        self._alone = HostLock(host.cache, _LOCK)
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
                f"another janitor is at work in {self._cache.folder}: that of this host's glance-api, or another "
                "`replica janitor --once`. It does the same work, so that nothing is left to do. To run passes by cron "
                "alone, set [replicas] janitor = false and restart glance-api"
            )
        try:
            done = self._pass() if self._presence.claim() else self._visit()
            done.filled += self._prefetch_worker.finish(self._keep_alive)
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
        self._prefetch_worker = assembly.prefetch_worker(self._host, self.wake)
        self._verify_worker = assembly.verify_worker(self._host, self._keep_alive)
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
        owns = self._presence.claim() if is_time else self._host.standing.owner() is None
        if not owns:
            self._alone.free()
        return owns

    def _beside(self) -> None:
        """The pass of a process that does not have the lock: another of this host has it, or another host."""
        if self._settings.janitor and self._host.standing.owner() is not None:
            self._visit()
        self._host.usage_count.flush_usage()

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
            *(self._reconciler.release_pending_delete, self._reconciler.keep_restored),
            *(self._pins, self._last_copies, self._trim, self._stock, self._copy, self._answer, self._scrub),
            *(self._reconciler.withdraw_dead_hosts, self._forget),
        )
        for step in steps:
            try:
                step(done)
            except ReplicaError as error:
                problem = f"{step.__name__.strip('_')}: {error}"
                log.warning("janitor: %s", problem)
                done.problems.append(problem)
            except Exception as error:  # a fault of one step, such as a row it stumbles over, stops no other
                log.exception("janitor: %s", step.__name__.strip("_"))
                done.problems.append(f"{step.__name__.strip('_')}: {error!r}")
        self._count(done)
        load = Load(*self._host.statistics.now(), self._host.usage_count.flush_usage())
        is_idle = done == Pass() and load == Load()
        log.log(logging.DEBUG if is_idle else logging.INFO, "janitor: %s, this process: %s", done, load)
        return done

    def _look(self) -> None:
        """What others asked of this host is not left until the next pass."""
        self._prefetch_worker.step()
        self._verify_worker.step()
        self._requested_removals.look()

    @crash_points
    def _heartbeat(self, done: Pass) -> None:
        self._presence.announce(done)

    def _is_fetched(self, image_id: str) -> bool:
        return self._prefetch_worker.fills(image_id)

    def _keep_alive(self) -> None:
        """Called often in long work: the host goes on to say that it lives. Raises CacheError when told to stop."""
        if self._stop.is_set():
            raise CacheError("stopped")
        self._presence.keep_alive()

    @crash_points
    def _removals(self, done: Pass) -> None:
        self._requested_removals.run(done)

    @crash_points
    def _invalid(self, _done: Pass) -> None:
        for image_id, facts in self._cache.listed("invalid"):
            if time.time() - facts.st_ctime > _INVALID_SECONDS:
                self._cache.drop("invalid", image_id)  # no crash test: it takes a day
        for image_id, freed in incomplete.clear(self._cache, _LEFT_SECONDS):
            log.info("image %s: abandoned partial file of %d bytes removed from incomplete/", image_id, freed)

    @crash_points
    def _pins(self, done: Pass) -> None:
        self._host.pin_sync.apply_pins(done)

    def _last_copies(self, _done: Pass) -> None:
        found = [entry.image_id for entry in self._cache.complete.entries()]
        self._host.host_registry.ask("last copies", lambda: self._host.keeping.refresh(found), None)

    @crash_points
    def _trim(self, done: Pass) -> None:
        done.evicted_bytes += self._host.eviction.trim().bytes

    def _stock(self, done: Pass) -> None:
        self._prefetch_planner.run(done)

    @crash_points
    def _copy(self, done: Pass) -> None:
        done.filled += self._prefetch_worker.step()

    def _answer(self, _done: Pass) -> None:
        self._verify_worker.step()

    def _scrub(self, _done: Pass) -> None:
        """Beside the passes, not in one: at a bounded rate a large file takes hours."""
        if self._scrubbing is None or not self._scrubbing.is_alive():
            self._scrubbing = threading.Thread(target=self._scrub_one, name="replica-scrub", daemon=True)
            self._scrubbing.start()

    def _forget(self, _done: Pass) -> None:
        self._prefetch_worker.forget()
        self._host.usage.trim(KEPT_DAYS)

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
