"""Glance's own cache code in this process reaches our directory through us, and by no other way.

Glance's root application answers `/v2/cache` whatever filters stand before it, its CacheWorker fetches what is queued
there, and its own filters `cache` and `cachemanage` may still be in the pipeline. All of them use
`glance.image_cache.ImageCache`, and that uses a driver. Here is the driver (`glance.image_cache.drivers.base.Driver`),
and `take_over` makes it the only one: policies, statuses and answers stay Glance's.
"""

import functools
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import webob.exc
from glance import image_cache
from glance.image_cache import prefetcher
from glance.image_cache.drivers import base
from oslo_concurrency import lockutils
from oslo_config import cfg
from oslo_context import context

from glance_replicas.cache import Cache
from glance_replicas.errors import ConfigError, LastCopy, ReplicaError
from glance_replicas.host.cache_calls import CacheCalls

from ..client_words import Refusal

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def take_over(calls: CacheCalls, cache: Cache) -> None:
    """From now on every ImageCache of this process, made before or after, is this host's directory as we keep it.

    Private names of Glance 33.0.0 in use, all of them here: `ImageCache.driver`, which its methods use and nothing else
    does, `ImageCache.prune`, `Prefetcher.fetch_image_into_cache`. Raises ConfigError when one is missing.
    """
    for kind, name in ((image_cache.ImageCache, "prune"), (prefetcher.Prefetcher, "fetch_image_into_cache")):
        if not hasattr(kind, name):
            raise ConfigError(
                f"this release of Glance has no {kind.__name__}.{name}: its own cache calls would write into "
                "image_cache_dir; use a release that docs/install.md lists, or take replica-cache out of the pipeline"
            )
    driver = Driver(calls, cache.folder, cache.own("glance-locks"))
    driver.configure()
    image_cache.ImageCache.driver = _Fixed(driver)
    image_cache.ImageCache.prune = lambda _self: driver.prune()
    prefetcher.Prefetcher.fetch_image_into_cache = _fetch_nothing


def _fetch_nothing(_prefetcher: Any, _image_id: str) -> bool:
    """What CacheWorker does with a queued image: the janitor fetches it."""
    return False


class _Fixed:
    """An attribute that goes before the one each ImageCache has set itself, and that none can set."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __get__(self, _instance: Any, _owner: Any) -> Any:
        return self._value

    def __set__(self, _instance: Any, _value: Any) -> None:
        pass


class _Left(threading.local):
    """What one call of Glance's controller leaves for the next one of the same request."""

    _what: tuple[Any, Any] = None, None

    def leave(self, what: Any) -> None:
        """For this thread's request."""
        self._what = context.get_current(), what

    def take(self) -> Any:
        """It, once; None when this thread's request left nothing."""
        (asker, what), self._what = self._what, (None, None)
        return what if asker is not None and asker is context.get_current() else None


def _answers(call: Callable[P, T]) -> Callable[P, T]:
    """What must stay is 409, what could not be asked 503, and neither is 500."""

    @functools.wraps(call)
    def answered(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except LastCopy as error:
            log.warning("cache API: %s: %s", call.__name__, error)
            raise webob.exc.HTTPConflict(explanation=Refusal.LAST_CACHED) from error
        except ReplicaError as error:
            log.warning("cache API: %s: %s", call.__name__, error)
            raise webob.exc.HTTPServiceUnavailable(explanation=Refusal.CACHE_AWAY) from error

    return answered


class Driver(base.Driver):  # type: ignore[misc, unused-ignore]
    """Glance's words for what `CacheCalls` does. Writes no image, and gives none: the filter of ours does."""

    def __init__(self, calls: CacheCalls, folder: Path, locks: Path) -> None:
        self._calls = calls
        self._queued = _Left()  # when Glance listed what is cached
        self._evicted = _Left()  # how to do it again, when what was queued has been cancelled
        self.base_dir = str(folder)
        self._locks = str(locks)

    def configure(self) -> None:
        """The lock files of Glance's clean and prune calls; its own drivers have them in the directory itself."""
        lockutils.set_defaults(self._locks)

    @_answers
    def get_cached_images(self) -> list[dict[str, Any]]:
        """As the drivers of Glance answer; `hits` are the downloads from this host in the last 40 days."""
        held, queued = self._calls.state()
        self._queued.leave(queued)
        return [
            {
                "image_id": file.image_id,
                "hits": file.downloads,
                "last_modified": file.verified_at,
                "last_accessed": file.used_at,
                "size": file.size,
            }
            for file in held
        ]

    @_answers
    def get_cached_nodes(self, image_id: str) -> list[str]:
        """URLs of the hosts that have it."""
        return self._calls.hosts_with(image_id)

    @_answers
    def get_hit_count(self, image_id: str) -> int:
        """Downloads from this host."""
        return next((held.downloads for held in self._calls.state()[0] if held.image_id == image_id), 0)

    @_answers
    def get_cache_size(self) -> int:
        """Bytes of complete files."""
        return sum(held.size for held in self._calls.state()[0])

    @_answers
    def get_queued_images(self) -> list[str]:
        """What is asked for and not here, the oldest request first.

        Glance lists what is cached and then this: of one moment both, so that no image is in both, or in none.
        """
        queued: list[str] | None = self._queued.take()
        return self._calls.state()[1] if queued is None else queued

    def is_queued(self, image_id: str) -> bool:
        """Whether it is asked for and not here."""
        return image_id in self.get_queued_images()

    def is_cached(self, _image_id: str) -> bool:
        """Whether Glance's own filter may answer from here: never, the one before it does."""
        return False

    is_cacheable = is_cached

    @_answers
    def queue_image(self, image_id: str) -> bool:
        """False: it is here already."""
        return self._calls.queue(image_id, _who())

    @_answers
    def delete_cached_image(self, image_id: str) -> None:
        """Its row, then its file, if there is one."""
        again = partial(self._calls.evict, image_id, _who())
        again()
        self._evicted.leave(again)

    @_answers
    def delete_all_cached_images(self) -> int:
        """The same for each; how many there were."""
        again = partial(self._calls.evict_all, _who())
        gone = again()
        self._evicted.leave(again)
        return gone

    @_answers
    def delete_queued_image(self, image_id: str) -> None:
        """Nobody's request for it is left, nor what came of it since Glance, in the same call, had it evicted."""
        self._calls.unqueue(image_id)
        self._evict_again()

    @_answers
    def delete_all_queued_images(self) -> int:
        """The same for each; how many requests there were."""
        gone = self._calls.unqueue_all()
        self._evict_again()
        return gone

    def _evict_again(self) -> None:
        again: Callable[[], object] | None = self._evicted.take()
        if again is not None:
            again()

    @_answers
    def clean(self, stall_time: int | None = None) -> None:
        """`image_cache_stall_time` (seconds) unless told otherwise."""
        self._calls.clean(cfg.CONF.image_cache_stall_time if stall_time is None else stall_time)

    @_answers
    def prune(self) -> tuple[int, int]:
        """Files and bytes that went, by our own limits (`[replicas] max_bytes`, `min_free_bytes`, watermarks)."""
        return self._calls.prune()

    def get_least_recently_accessed(self) -> None:
        """None: nothing here is Glance's to prune."""
        return

    def open_for_write(self, image_id: str) -> NoReturn:
        """Nothing is written here but by a fill of ours."""
        raise PermissionError(f"image {image_id}: only the filter replica-cache writes to {self.base_dir}")

    def open_for_read(self, image_id: str) -> NoReturn:
        """Nor read: the filter of ours does, with the digest it was verified by."""
        raise PermissionError(f"image {image_id}: only the filter replica-cache reads from {self.base_dir}")


def _who() -> str:
    """The caller of the request that this thread answers."""
    found = context.get_current()
    return f"user {found.user_id} of project {found.project_id}" if found and found.user_id else "Glance's cache API"
