"""Looking at many locations at once: bounded workers, bounded bytes per second, results as they come."""

import concurrent.futures
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from glance_replicas import look
from glance_replicas.model import Evidence, Image, Location, Result
from glance_replicas.sources import Sources

Item = tuple[Image, Location, Evidence]


def look_at(
    sources: Sources, items: Iterable[Item], workers: int, throttle: Callable[[int], None] | None = None
) -> Iterator[tuple[Image, Result]]:
    """A result for each item, in the order they are done. At most `2 * workers` items are under way."""
    todo = iter(items)
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="look")
    running: dict[concurrent.futures.Future[Result], Image] = {}
    try:
        while True:
            for image, location, evidence in itertools.islice(todo, 2 * workers - len(running)):
                running[pool.submit(look.look, sources, image, location, evidence, throttle=throttle)] = image
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Throttle:
    """Called with a number of bytes, returns when all callers together are within the rate."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate, self._free_at, self._lock = bytes_per_second, 0.0, threading.Lock()

    def __call__(self, length: int) -> None:
        """Sleep as long as these bytes are worth, after those before them."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + length / self._rate
            wait = self._free_at - now
        time.sleep(wait)
