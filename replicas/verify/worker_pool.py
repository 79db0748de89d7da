"""Many items worked on at once: bounded workers, so many for each place, results as they come."""

import collections
import concurrent.futures
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ..location import redact, scheme
from ..model import Image, Location, Result
from ..stores.sources import Sources
from ..verdict import Evidence
from .probe import probe

LOOKAHEAD = 1000  # items that may wait because their place is busy
GATHER_SECONDS = 0.2  # for which items are gathered to be claimed together

Item = tuple[Image, Location, Evidence]
T = TypeVar("T")
R = TypeVar("R")


class Bounds(NamedTuple):
    """How many items are worked on at a time."""

    workers: int
    each: int  # at one place


def backend(location: Location) -> str:
    """The place that reading a location keeps busy: a host, a store, or a server."""
    if location.host:
        return f"host {location.host}"
    if location.store:
        return f"store {location.store}"
    return f"{scheme(location.url)}://{urlsplit(redact(location.url)).netloc}"


def probe_all(
    sources: Sources, items: Iterable[Item], workers: int, throttle: Callable[[int], None] | None = None
) -> Iterator[tuple[Image, Result]]:
    """A result for each item, in the order they are done."""

    def see(item: Item) -> Result:
        image, location, evidence = item
        return probe(sources, image, location, evidence, throttle=throttle)

    found = run_all(items, see, lambda item: backend(item[1]), Bounds(workers, workers))
    return ((item[0], result) for item, result in found)


def run_all(
    items: Iterable[T],
    see: Callable[[T], R],
    place: Callable[[T], str],
    bounds: Bounds,
    *,
    claim: Callable[[Sequence[T]], Sequence[T]] = lambda items: items,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[T, R]]:
    """What `see` says of each item, in the order they are done; a place that is slow holds up its own items only.

    `claim` says which of some items are really ours, shortly before they are verified. After `stop` nothing new is
    verified.
    """
    waiting = _Queue(iter(items), place, claim, bounds.each)
    pool = concurrent.futures.ThreadPoolExecutor(bounds.workers, thread_name_prefix="verify")
    done: queue.SimpleQueue[concurrent.futures.Future[R]] = queue.SimpleQueue()
    running: dict[concurrent.futures.Future[R], T] = {}
    try:
        while True:
            while len(running) < bounds.workers and not stop() and (item := waiting.take()) is not None:
                future = pool.submit(see, item)
                running[future] = item
                future.add_done_callback(done.put)
            if not running:
                return
            future = done.get()
            item = running.pop(future)
            waiting.done(item)
            yield item, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Queue(Generic[T]):
    """Items by place: those read ahead, and of them those that are ours and go next."""

    def __init__(
        self,
        items: Iterator[T],
        place: Callable[[T], str],
        claim: Callable[[Sequence[T]], Sequence[T]],
        most: int,
    ) -> None:
        self._items, self._place, self._claim, self._most = items, place, claim, most
        self._waiting: dict[str, collections.deque[T]] = {}
        self._ready: dict[str, collections.deque[T]] = {}
        self._busy: collections.Counter[str] = collections.Counter()
        self._is_over = False

    def take(self) -> T | None:
        """The next item whose place is not busy; None: there is none now."""
        while (place := self._next()) is None:
            batch = self._batch()
            if not batch:
                return None
            for item in self._claim(batch):
                self._ready.setdefault(self._place(item), collections.deque()).append(item)
        item = self._ready[place].popleft()
        if not self._ready[place]:
            del self._ready[place]
        self._busy[place] += 1
        return item

    def done(self, item: T) -> None:
        """Its place is less busy."""
        place = self._place(item)
        self._busy[place] -= 1
        if not self._busy[place]:
            del self._busy[place]

    def _next(self) -> str | None:
        return next((place for place in self._ready if self._busy[place] < self._most), None)

    def _batch(self) -> list[T]:
        """Some items whose places are not busy; none: there are no more, or too many wait for busy places."""
        self._read_ahead()
        batch: list[T] = []
        for place in [place for place in self._waiting if self._busy[place] < self._most]:
            waiting = self._waiting[place]
            batch += [waiting.popleft() for _ in range(min(2 * self._most, len(waiting)))]
            if not waiting:
                del self._waiting[place]
        return batch

    def _read_ahead(self) -> None:
        free = sum(len(waiting) for place, waiting in self._waiting.items() if self._busy[place] < self._most)
        began = time.monotonic()
        while free < 2 * self._most and not self._is_over and self._waits() < LOOKAHEAD:
            try:
                item = next(self._items)
            except StopIteration:
                self._is_over = True
                return
            place = self._place(item)
            self._waiting.setdefault(place, collections.deque()).append(item)
            free += self._busy[place] < self._most
            if free and time.monotonic() - began > GATHER_SECONDS:
                return

    def _waits(self) -> int:
        return sum(map(len, self._waiting.values()))
