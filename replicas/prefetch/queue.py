"""What a host is to fetch, gathered from all who may ask for it, and what became of it, told to them.

a row of the ledger   `replica copy`, the api, rules; tried again when it fails, and given up in the end
a name in `queue/`    programs that know Glance's own cache; also while the ledger is away; ends as a row does
a partial file left   by a filler that was killed a moment ago: to be taken up at the byte it had come to
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import stat_result
from typing import TypeVar

from ..cache import Cache
from ..cache.partial_file import PartialFile, on_disk
from ..crash_points import crash_points
from ..errors import LedgerError
from ..ledger.prefetch_requests import HIGH, NORMAL, PrefetchRequest, PrefetchRequests, State

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST = 500  # rows looked at in one step
_TRIES = 8  # without a byte more
_BACKOFF = (30.0, 3600.0)  # seconds until the second try, and at most between two
_IDLE_SECONDS = 60.0  # a partial file untouched for so long has no filler that will be back
_SPARE = 1 << 20  # bytes reserved that are not worth giving back
_LEFT_SECONDS = 3600.0  # one untouched for so long could not be taken up, and goes
_REST_SECONDS = 30.0  # how long a ledger that failed is not asked again
_KEPT_SECONDS = 7 * 86400.0  # how long it is known what became of a copy


@dataclass(frozen=True)
class Want:
    """One image that this host is to have, and on whose word; on nobody's: a partial file was left."""

    image_id: str
    priority: int = NORMAL
    asked: bool = False  # there is a row
    queued: bool = False  # there is a name in `queue/`
    pin: bool = False
    failures: int = 0  # one after the other, without a byte more


class PrefetchQueue:
    """One host's, for one thread. A ledger that is away is asked again after a while.

    What is told returns False when it has to be told again: the ledger did not answer.
    """

    def __init__(self, cache: Cache, copies: PrefetchRequests, host: str) -> None:
        self._cache = cache
        self._copies = copies
        self._host = host
        self._later: dict[str, tuple[int, float]] = {}  # of what has no row: failures, and when it is tried again
        self._rests_until = 0.0

    @crash_points
    def wants(self, partial_file: Mapping[str, stat_result]) -> list[Want]:
        """All there is to do: partial files first, since somebody waited for them, then by priority, then by age."""
        rows = self._ask(lambda: self._copies.due(self._host, _MOST)) or []
        wants = {row.image_id: _want(row) for row in rows}
        condemned = {image_id for image_id, _ in self._cache.listed("invalid")}
        for image_id, _ in self._cache.listed("queue"):
            if image_id in condemned:  # wrong bytes end a request
                self._cache.drop("queue", image_id)
            else:
                wants[image_id] = replace(wants.get(image_id, Want(image_id)), queued=True)
        idle = _idle({image_id: facts for image_id, facts in partial_file.items() if image_id not in wants})
        found = [*self._left(idle), *sorted(wants.values(), key=lambda want: -want.priority)]
        return [want for want in found if want.asked or time.monotonic() >= self._failed(want)[1]]

    @crash_points
    def _left(self, idle: Mapping[str, float]) -> Iterator[Want]:
        """Of partial files untouched for so long those worth going on with; the others are removed."""
        rows = self._ask(lambda: self._copies.list(idle, [self._host])) if idle else []
        known = {row.image_id: row for row in rows or ()}
        for image_id in idle if rows is not None else ():  # else one may wait for its hour
            row = known.get(image_id)
            if row is not None and row.state.is_open:
                continue
            if idle[image_id] > _LEFT_SECONDS or (row is not None and _was_cancelled(row)):
                discard(self._cache, image_id)
            else:
                yield Want(image_id, HIGH)

    @crash_points
    def running(self, want: Want, done: int, size: int) -> bool:
        """`done` bytes of `size` are there; False: it is wanted no more."""
        if not want.asked:
            return True
        return self._ask(lambda: self._copies.progress(want.image_id, self._host, done, size)) is not False

    def is_open(self, want: Want, size: int) -> bool:
        """Whether all `size` bytes that are there now are wanted still. May be called from any thread.

        A partial file that was left is, without anybody's word.
        """
        if want.queued and self._cache.is_queued(want.image_id):
            return True
        return self.running(want, size, size) if want.asked else not want.queued

    @crash_points
    def done(self, want: Want, size: int) -> bool:
        """The complete file is there, verified."""
        self._later.pop(want.image_id, None)
        if want.queued:
            self._cache.drop("queue", want.image_id)
        return self._tell(want, lambda: self._copies.finished(want.image_id, self._host, size))

    @crash_points
    def paused(self, want: Want, why: str) -> bool:
        """It goes on when it may."""
        return self._tell(want, lambda: self._copies.put_off(want.image_id, self._host, why, 0, want.failures))

    @crash_points
    def failed(self, want: Want, why: str, *, advanced: bool = False) -> bool:
        """It is tried later, each time twice as much later, or given up. `advanced`: not without some bytes more."""
        failures = 1 if advanced else 1 + (want.failures if want.asked else self._failed(want)[0])
        if (want.asked or want.queued) and failures >= _TRIES:
            return self.refused(want, f"tried {_TRIES} times without success; the last error: {why}")
        wait = min(_BACKOFF[0] * 2 ** (failures - 1), _BACKOFF[1])
        log.info("image %s: its copy is tried again in %.0f s: %s", want.image_id, wait, why)
        self._later[want.image_id] = failures, time.monotonic() + wait
        return self._tell(want, lambda: self._copies.put_off(want.image_id, self._host, why, wait, failures))

    @crash_points
    def refused(self, want: Want, why: str) -> bool:
        """It cannot be; what was written so far goes."""
        log.warning("image %s: its copy is given up: %s", want.image_id, why)
        if want.queued:
            self._cache.drop("queue", want.image_id)
        self.dropped(want)
        return self._tell(want, lambda: self._copies.failed(want.image_id, self._host, why))

    @crash_points
    def dropped(self, want: Want) -> bool:
        """Nobody wants it any more; what was written so far goes."""
        self._later.pop(want.image_id, None)
        discard(self._cache, want.image_id)
        return True

    def forget(self) -> None:
        """Requests that ended long ago are no longer known."""
        self._ask(lambda: self._copies.trim(_KEPT_SECONDS))

    def _failed(self, want: Want) -> tuple[int, float]:
        return self._later.get(want.image_id, (0, 0.0))

    @crash_points
    def _tell(self, want: Want, change: Callable[[], bool]) -> bool:
        return not want.asked or self._ask(change) is not None

    def _ask(self, question: Callable[[], T]) -> T | None:
        """What the ledger answers; None: it is away."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            return question()
        except LedgerError as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            log.warning("host %s: the copies asked of this host cannot be read: %s", self._host, error)
            return None


@crash_points
def discard(cache: Cache, image_id: str) -> None:
    """The partial file of an image is gone, unless somebody fills it. Raises CacheError."""
    cache.partials.drop_left(image_id)


@crash_points
def give_back(cache: Cache, partial_file: Mapping[str, stat_result]) -> None:
    """Of these partial files those that nobody has filled for a while hold no more than their bytes. Raises CacheError.

    One of them may wait for hours. Whoever goes on with it reserves the rest again.
    """
    for image_id, facts in partial_file.items():
        if on_disk(facts) - facts.st_size < _SPARE or _age(facts) <= _IDLE_SECONDS:
            continue
        with cache.errors(image_id):
            left = PartialFile.lock(cache.partial_path(image_id), 1 << 62)
            if left is not None:
                log.info("image %s: %d bytes written, the rest of its room is free again", image_id, left.length)
                left.give_back() if left.length else left.discard()
                left.close()


def _want(row: PrefetchRequest) -> Want:
    return Want(row.image_id, row.priority, asked=True, pin=row.pin, failures=row.attempts)


def _was_cancelled(row: PrefetchRequest) -> bool:
    """Just now, so that the file is what it left."""
    return row.state is State.CANCELLED and (row.ended_seconds or 0.0) < _LEFT_SECONDS


def _idle(partial_files: Mapping[str, stat_result]) -> dict[str, float]:
    """Seconds since somebody wrote to each, of those that nobody writes to."""
    ages = {image_id: _age(facts) for image_id, facts in partial_files.items()}
    return {image_id: age for image_id, age in ages.items() if age > _IDLE_SECONDS}


def _age(facts: stat_result) -> float:
    return time.time() - facts.st_mtime
