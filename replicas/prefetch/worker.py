"""Fetches what this host was asked to have (`queue`), whoever asked it and wherever that program is by now.

A fill is a job of the process it runs in. Killed anywhere, it leaves a partial file and an order that stands: the next
start goes on from there. What an order says of itself in between is for people to look at.
"""

from collections.abc import Callable
from datetime import datetime, time
from functools import partial
from threading import Thread

from ..cache import Cache, CachedFile
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import CacheError, Corrupt, Refused, Unreadable
from ..host.fill_setup import FillSetup
from ..host.own_copies import OwnCopies
from ..host.pin_sync import PinSync
from ..host.registration import Registration
from ..ledger.prefetch_requests import HIGH, PrefetchRequests
from ..model import Image
from ..settings import Hours, Settings
from ..throttle import Throttle
from ..transfer.fill import start
from .queue import PrefetchQueue, Want, give_back

_CANCELLED, _TOO_LATE = "cancelled", "waits for copy_hours"


class Job:
    """One fill while nobody waits for it (`fill.Background`); `is_open` asks at its end whether its request is."""

    def __init__(
        self,
        want: Want,
        image: Image,
        throttle: Throttle | None,
        is_open: Callable[[], bool],
        done: Callable[[], None],
    ) -> None:
        self.want = want
        self.size = image.size or 0
        self.fresh = 0  # bytes that it brought
        self.thread: Thread | None = None
        self.told: str | None = None  # why it is to end
        self.failure: Exception | None = None  # why it did
        self._throttle = throttle
        self._is_open = is_open
        self._done = done

    @crash_points
    def written(self, length: int, is_wanted: Callable[[], bool]) -> None:
        """Keep the rate, and end when told; neither while a client follows."""
        self.fresh += length
        if self._throttle and not is_wanted():
            self._throttle(length, until=lambda: bool(self.told) or is_wanted())
        if self.told and not is_wanted():
            raise CacheError(self.told)

    def finishing(self, is_wanted: Callable[[], bool]) -> None:
        """Whoever has cancelled the request finds no file that came of it, also when no step was in between."""
        if not self._is_open() and not is_wanted():
            self.told = _CANCELLED
            raise CacheError(_CANCELLED)

    def ended(self, failure: Exception | None) -> None:
        """Why it is not complete, if it is not."""
        self.failure = failure
        self._done()

    @property
    def alive(self) -> bool:
        """The fill goes on."""
        return self.thread is not None and self.thread.is_alive()


class PrefetchWorker:
    """One host's; `step` again and again, from one thread at a time and under the janitor's lock.

    `wake` is called when a fill has ended: there is a step to do.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        requests: PrefetchRequests,
        registration: Registration,
        own_copies: OwnCopies,
        pin_sync: PinSync,
        fill_setup: FillSetup,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._cache, self._catalogue = settings, cache, catalogue
        self._registration, self._own_copies, self._pin_sync = registration, own_copies, pin_sync
        self._fill_setup, self._wake = fill_setup, wake
        self._queue = PrefetchQueue(cache, requests, settings.host_name)
        rate = settings.copy_bytes_per_second
        self._throttle = Throttle(rate) if rate else None
        self._jobs: dict[str, Job] = {}

    @crash_points
    def step(self) -> int:
        """What has ended is noted, what goes on is steered, what can be started is; how many that were.

        Raises CacheError, CatalogueError; what was not done then is done by a later step.
        """
        for image_id, job in list(self._jobs.items()):
            if not job.alive and self._report_end(job):
                del self._jobs[image_id]
        self._steer()
        partial_file = dict(self._cache.listed("partial"))
        started = sum(
            self._take_up(want) for want in self._queue.wants(partial_file) if want.image_id not in self._jobs
        )
        give_back(
            self._cache, {image_id: facts for image_id, facts in partial_file.items() if image_id not in self._jobs}
        )
        return started

    @crash_points
    def finish(self, keep_alive: Callable[[], None]) -> int:
        """Every fill that may be started has come to its end; how many more were started. Raises as `step`."""
        started = 0
        while self._jobs:
            running = [job.thread for job in self._jobs.values() if job.thread and job.alive]
            for thread in running[:1]:
                thread.join(1.0)
            keep_alive()
            new = self.step()
            started += new
            if not running and not new:  # what ended cannot be told: the ledger is away
                break
        return started

    def fills(self, image_id: str) -> bool:
        """Whether this copier is fetching the image just now."""
        return image_id in self._jobs

    def forget(self) -> None:
        """Orders that ended long ago are no longer known."""
        self._queue.forget()

    @crash_points
    def _take_up(self, want: Want) -> bool:
        """Whether a fill was started."""
        try:
            copy = self._cache.complete.hold(want.image_id)
        except Unreadable as error:  # no crash test: a file that cannot be read
            self._queue.failed(want, f"a file is there and cannot be read: {error}")
            return False
        if copy is not None:
            copy.close()
            self._is_there(want, copy.entry)
        elif self._may_run(want) and sum(job.alive for job in self._jobs.values()) < self._settings.copies_at_once:
            image = self._catalogue.active(want.image_id)
            if image is not None:
                return self._start(want, image)
            self._queue.refused(want, "the image is not active")
        return False

    @crash_points
    def _is_there(self, want: Want, entry: CachedFile) -> None:
        """The host has a complete file; one that nobody has read yet is read by the janitor first."""
        image = self._catalogue.active(want.image_id)
        if not want.asked and not want.queued:
            self._queue.dropped(want)
        elif image is None:
            self._queue.refused(want, "the image is not active")
        elif entry.is_anothers(image):
            self._drop(image)
        elif entry.fault:  # no crash test: a file that cannot be read
            self._queue.failed(want, f"a file is there and cannot be read: {entry.fault}")
        elif entry.is_file_of(image):
            self._registration.register(image)
            if want.pin:
                self._pin_sync.try_pin(image.id)
            self._queue.done(want, entry.size)

    def _drop(self, image: Image) -> None:
        copy = self._own_copies.open(image)
        if copy is not None:  # another one took its place
            copy.close()

    @crash_points
    def _start(self, want: Want, image: Image) -> bool:
        """Whether a fill was started; when another process has one, it is that one's progress that is told."""
        is_open = partial(self._queue.is_open, want, image.size or 0)
        job = Job(want, image, self._throttle, is_open, self._wake)
        try:
            job.thread = start(self._cache, self._fill_setup.plan(image, background=True), job)
        except Refused as error:
            self._queue.refused(want, str(error))
        except CacheError as error:
            self._queue.failed(want, str(error))
        else:
            if job.thread is not None:
                self._jobs[image.id] = job
            self._tell(job)
        return job.thread is not None

    @crash_points
    def _steer(self) -> None:
        """Fills that go on say how far they are, and are told to end if they may not."""
        for job in [running for running in self._jobs.values() if running.alive]:
            if not self._tell(job):
                job.told = _CANCELLED
            elif not self._may_run(job.want):
                job.told = _TOO_LATE

    @crash_points
    def _tell(self, job: Job) -> bool:
        facts = dict(self._cache.listed("partial")).get(job.want.image_id)
        return self._queue.running(job.want, facts.st_size if facts else 0, job.size)

    @crash_points
    def _report_end(self, job: Job) -> bool:
        """What became of a fill is told; False: not yet."""
        copy = self._cache.complete.hold(job.want.image_id)
        if copy is not None:
            copy.close()
            return self._queue.done(job.want, copy.entry.size)
        if job.told == _CANCELLED:
            return self._queue.dropped(job.want)
        if job.told:
            return self._queue.paused(job.want, job.told)
        if isinstance(job.failure, Corrupt):
            return self._queue.refused(job.want, f"wrong bytes: {job.failure}")
        why = str(job.failure or "its file was removed again")
        return self._queue.failed(job.want, why, advanced=job.fresh > 0 and job.failure is not None)

    def _may_run(self, want: Want) -> bool:
        return want.priority >= HIGH or within(self._settings.copy_hours, datetime.now().time())


def within(hours: Hours | None, now: time) -> bool:
    """Whether it is one of these hours; the second may be earlier than the first, over midnight."""
    if hours is None:
        return True
    first, last = hours
    return first <= now < last if first < last else now >= first or now < last
