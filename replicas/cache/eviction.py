"""Room for a fill: reserve before writing; evict in order, never what is pinned or being read.

What is wrong (`invalid/`) goes first, then copies that another host holds as well, then copies that only this host has,
of each the least recently used first; whatever was used in the last hour comes after all the rest.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager

from ..errors import CacheError
from .directory import Cache, Entry
from .partial_file import Growing, on_disk

log = logging.getLogger(__name__)

_HOT_SECONDS = 3600.0  # what was used so recently goes last

Withdraw = Callable[[str], None]
Elsewhere = Callable[[Collection[str]], Collection[str]]  # which of these images another host holds; none: not known


class NoRoom(CacheError):
    """The image does not fit; it passes through uncached."""


class Space:
    """The limits of one host's directory, in bytes; 0 for `max_bytes`: no quota. Watermarks are parts of the quota."""

    def __init__(
        self,
        cache: Cache,
        max_bytes: int,
        min_free_bytes: int,
        *,
        high_percent: int = 100,
        low_percent: int = 100,
        elsewhere: Elsewhere = lambda _: (),
    ) -> None:
        self._cache = cache
        self.max_bytes = max_bytes
        self.min_free_bytes = min_free_bytes
        self._high = max_bytes * high_percent // 100
        self._low = max_bytes * min(low_percent, high_percent) // 100
        self._elsewhere = elsewhere

    def used(self) -> int:
        """Bytes of complete, growing (as reserved) and invalid files, and of what others left. Raises CacheError.

        Files move on meanwhile: from where they grow to their place, from either to `invalid/`. The folders are read
        in that order, so that none is missed, and a file met twice as complete counts once.
        """
        files = {name: on_disk(one) for name, one in self._cache.listed("partial")}
        others = sum(on_disk(one) for _, one in self._cache.listed("incomplete"))
        files |= {entry.image_id: entry.size for entry in self._cache.entries()}
        return sum(files.values()) + others + sum(facts.st_size for _, facts in self._cache.listed("invalid"))

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
            if growing.held < size:
                self._make_room(size, growing.held, withdraw)
            with self._cache.errors("reserve"):
                if not growing.reserve(size):
                    raise NoRoom(f"cache directory {self._cache.folder}: the file system has no {size} bytes to give")

    def trim(self, withdraw: Withdraw) -> int:
        """Bytes evicted: above the high watermark down to the low one, ahead of need; and back within the limits.

        The limits themselves are exceeded when a quota was lowered, or others filled the disk.
        """
        with self._lock():
            over, used = self._excess(0), self.used()
            if used > self._high > 0:
                over = max(over, used - self._low)
            return over - self._evict_until(over, withdraw) if over > 0 else 0

    def _make_room(self, size: int, held: int, withdraw: Withdraw) -> None:
        """There is room for a file of `size` bytes that has `held` of them already, which are counted as used."""
        if self.max_bytes and size > self.max_bytes:
            raise NoRoom(f"{size} bytes are more than max_bytes = {self.max_bytes}")
        over = self._evict_until(self._excess(size - held), withdraw)
        if over > 0:
            raise NoRoom(f"cache directory {self._cache.folder}: no room for {size} bytes{self._why(over)}")

    def _why(self, over: int) -> str:
        pinned = [entry.size for entry in self._cache.entries() if entry.pinned]
        if sum(pinned) < over:
            return ", all else is in use"
        return (
            f": {len(pinned)} pinned copies take {sum(pinned)} bytes; see replica pin list, and let some go with "
            "replica pin remove IMAGE, or lower max_pinned_percent"
        )

    def _excess(self, size: int) -> int:
        """Bytes that must go before `size` more fit within both limits; not positive: they fit."""
        by_quota = self.used() + size - self.max_bytes if self.max_bytes else 0
        return max(by_quota, size + self.min_free_bytes - self.free())

    def _evict_until(self, over: int, withdraw: Withdraw) -> int:
        """What is still over after everything that may go for it has gone."""
        if over > 0:
            for image_id, _ in self._cache.listed("invalid"):
                over -= self._cache.drop("invalid", image_id)
        for entry in self._in_order() if over > 0 else ():
            if over <= 0:
                break
            over -= self._evict(entry, withdraw)
        return over

    def _in_order(self) -> list[Entry]:
        """What may go, the first to go first."""
        entries = [entry for entry in self._cache.entries() if not entry.pinned]
        elsewhere = set(self._elsewhere([entry.image_id for entry in entries]))
        hot = time.time() - _HOT_SECONDS
        return sorted(entries, key=lambda one: (one.used_at > hot, one.image_id not in elsewhere, one.used_at))

    def _evict(self, entry: Entry, withdraw: Withdraw) -> int:
        """Bytes freed, none when the file is being read, or was pinned just now.

        Killed after `withdraw`: the janitor registers it again.
        """
        copy = self._cache.take(entry.image_id)
        if copy is None:
            return 0
        with closing(copy):
            if copy.entry.pinned:
                return 0
            withdraw(entry.image_id)
            idle = time.time() - entry.used_at
            log.info("image %s: evicted, %d bytes, unused for %d s", entry.image_id, entry.size, idle)
            return self._cache.drop("", entry.image_id)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with self._cache.errors("space"):
            fd = os.open(self._cache.own("space"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
