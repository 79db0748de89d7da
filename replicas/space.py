"""Room for a fill: reserve before writing, evict the least recently used first, never what is being read."""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from .cache import Cache, Entry
from .errors import CacheError
from .growing import Growing

log = logging.getLogger(__name__)

Withdraw = Callable[[str], None]


class NoRoom(CacheError):
    """The image does not fit; it passes through uncached."""


class Space:
    """The two limits of one host's directory, in bytes; 0 for `max_bytes`: no quota."""

    def __init__(self, cache: Cache, max_bytes: int, min_free_bytes: int) -> None:
        self._cache = cache
        self.max_bytes = max_bytes
        self.min_free_bytes = min_free_bytes

    def used(self) -> int:
        """Bytes of complete, growing (as reserved) and invalid files. Raises CacheError."""
        total = sum(entry.size for entry in self._cache.entries())
        for folder in ("incomplete", "invalid"):
            total += sum(max(facts.st_size, facts.st_blocks * 512) for _, facts in self._cache.listed(folder))
        return total

    def free(self) -> int:
        """Bytes the file system still gives us. Raises CacheError."""
        with self._cache.errors("statvfs"):
            facts = os.statvfs(self._cache.folder)
            return facts.f_bavail * facts.f_frsize

    def reserve(self, growing: Growing, size: int, withdraw: Withdraw) -> None:
        """`growing` may become `size` bytes; what must go to make room has gone. Raises NoRoom, CacheError.

        One process at a time, so that reservations add up. `withdraw(image_id)` is called before a file goes; when
        it raises, the error passes through and the file stays.
        """
        with self._lock():
            if not growing.is_reserved:
                self._make_room(size, withdraw)
            with self._cache.errors("reserve"):
                if not growing.reserve(size):
                    raise NoRoom(f"cache directory {self._cache.folder}: the file system has no {size} bytes to give")

    def trim(self, withdraw: Withdraw) -> int:
        """Bytes evicted to get back within the limits (a quota lowered, a disk filled by others)."""
        with self._lock():
            over = self._excess(0)
            return over - self._evict_until(over, withdraw) if over > 0 else 0

    def _make_room(self, size: int, withdraw: Withdraw) -> None:
        if self.max_bytes and size > self.max_bytes:
            raise NoRoom(f"{size} bytes are more than max_bytes = {self.max_bytes}")
        if self._evict_until(self._excess(size), withdraw) > 0:
            raise NoRoom(f"cache directory {self._cache.folder}: no room for {size} bytes, all else is in use")

    def _excess(self, size: int) -> int:
        """Bytes that must go before `size` more fit within both limits; not positive: they fit."""
        by_quota = self.used() + size - self.max_bytes if self.max_bytes else 0
        return max(by_quota, size + self.min_free_bytes - self.free())

    def _evict_until(self, over: int, withdraw: Withdraw) -> int:
        """What is still over after everything that may go for it has gone."""
        if over > 0:
            for image_id, _ in self._cache.listed("invalid"):
                over -= self._cache.drop("invalid", image_id)
        for entry in sorted(self._cache.entries(), key=lambda one: one.used_at) if over > 0 else ():
            if over <= 0:
                break
            over -= self._evict(entry, withdraw)
        return over

    def _evict(self, entry: Entry, withdraw: Withdraw) -> int:
        """Bytes freed, none when the file is being read. Killed after `withdraw`: the janitor registers it again."""
        copy = self._cache.take(entry.image_id)
        if copy is None:
            return 0
        with closing(copy):
            withdraw(entry.image_id)
            idle = time.time() - entry.used_at
            log.info("image %s: evicted, %d bytes, unused for %d s", entry.image_id, entry.size, idle)
            return self._cache.drop("", entry.image_id)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self._cache.errors("space"):
            fd = os.open(self._cache.folder / "incomplete" / ".space", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
