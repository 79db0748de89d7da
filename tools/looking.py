"""Looking at many locations at once: bounded workers, results as they come."""

import concurrent.futures
import itertools
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
