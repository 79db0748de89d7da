"""Room for a fill: reserve before writing; evict in order, never what is pinned, being read, or a last copy.

What is wrong (`invalid/`) goes first, then copies that another host holds as well, then copies that only this host has,
of each the least recently used first; whatever was used in the last hour comes after all the rest.

Partial files that nobody fills go last of all, where nothing else is left: they wait for the background, and whoever
goes on with one then begins anew.

It is decided first what goes; when that is not enough, nothing goes. The lock of the space is held while bytes are
counted and reserved, never while a database is asked: of two fills that evict at a time each counts again afterwards.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice

from ..crash_points import crash_points
from ..errors import CacheError
from .cached_file import CachedFile, OpenFile
from .host_cache import Cache
from .partial_file import PartialFile, on_disk

log = logging.getLogger(__name__)

_HOT_SECONDS = 3600.0  # what was used so recently goes last
_ROUNDS = 10  # of making room that others take
_ASKED = 500  # images of one question
_HELD = 64  # files open at a time while their rows go

Withdraw = Callable[[str], None]
Elsewhere = Callable[[Collection[str]], Collection[str]]  # which of these images another host holds; none: not known
Kept = Callable[[Collection[str]], Collection[str]]  # of which of these images no copy may be evicted


class NoRoom(CacheError):
    """The image does not fit; it passes through uncached."""


@dataclass
class Victims:
    """What is to go, chosen and not touched yet."""

    over: int  # bytes that are still wanted when all of it has gone; not positive: none
    wrong: list[str] = field(default_factory=list)  # in `invalid/`
    left: list[str] = field(default_factory=list)  # partial files without a filler
    files: list[CachedFile] = field(default_factory=list)
    kept: list[CachedFile] = field(default_factory=list)  # last copies that were passed over


@dataclass
class Evicted:
    """What has gone."""

    copies: int = 0
    copy_bytes: int = 0
    other_bytes: int = 0  # of wrong files, and of partial ones that nobody fills

    @property
    def bytes(self) -> int:
        """All together."""
        return self.copy_bytes + self.other_bytes


class Eviction:
    """The limits of one host's directory, in bytes; 0 for `max_bytes`: no quota. Watermarks are parts of the quota.

    `withdraw(image_id)` is called before a file goes, `withdraw_soon` in its place where somebody waits for the room;
    when it raises, the error passes through and the file stays. `kept` is asked before that, `kept_now` after it.
    """

    def __init__(
        self,
        cache: Cache,
        max_bytes: int,
        min_free_bytes: int,
        *,
        withdraw: Withdraw,
        withdraw_soon: Withdraw | None = None,
        high_percent: int = 100,
        low_percent: int = 100,
        elsewhere: Elsewhere = lambda _: (),
        kept: Kept = lambda _: (),
        kept_now: Kept | None = None,
    ) -> None:
        self._cache = cache
        self.max_bytes = max_bytes
        self.min_free_bytes = min_free_bytes
        self._high = max_bytes * high_percent // 100
        self._low = max_bytes * min(low_percent, high_percent) // 100
        self._elsewhere, self._kept = elsewhere, kept
        self._eviction = _Remover(cache, kept_now or kept, withdraw)
        self._eviction_for_fills = _Remover(cache, kept_now or kept, withdraw_soon or withdraw)

    def used(self) -> int:
        """Bytes of complete, partial (as reserved) and invalid files, and of what others left. Raises CacheError.

        Files move on meanwhile: from `partial/` to their place, from either to `invalid/`. The folders are read
        in that order, so that none is missed, and a file met twice as complete counts once.
        """
        files = {name: on_disk(facts) for name, facts in self._cache.listed("partial")}
        others = sum(on_disk(facts) for _, facts in self._cache.listed("incomplete"))
        files |= {name: facts.st_size for name, facts in self._cache.listed("")}
        return sum(files.values()) + others + sum(facts.st_size for _, facts in self._cache.listed("invalid"))

    def free(self) -> int:
        """Bytes the file system still gives us. Raises CacheError."""
        with self._cache.errors("statvfs"):
            facts = os.statvfs(self._cache.folder)
            return facts.f_bavail * facts.f_frsize

    @crash_points
    def reserve(self, partial_file: PartialFile, size: int) -> None:
        """`partial_file` may become `size` bytes; what must go to make room has gone. Raises NoRoom, CacheError.

        NoRoom when it cannot fit, and then nothing has gone. Reservations of several processes add up.
        """
        for _ in range(_ROUNDS):
            over = self._claim(partial_file, size)
            if over <= 0:
                return
            victims = self._choose(over, whole=True)
            if victims.over > 0:
                raise NoRoom(f"cache directory {self._cache.folder}: no room for {size} bytes{self._why(victims)}")
            self._eviction_for_fills.run(victims)
        raise NoRoom(f"cache directory {self._cache.folder}: others take the room for {size} bytes as it is made")

    @crash_points
    def trim(self) -> Evicted:
        """What goes: above the high watermark down to the low one, ahead of need; and back within the limits.

        The limits themselves are exceeded when a quota was lowered, or others filled the disk.
        """
        with self._lock():
            over, used = self._excess(0), self.used()
        if used > self._high > 0:
            over = max(over, used - self._low)
        victims = self._choose(over, whole=False)
        self._tell(victims)
        return self._eviction.run(victims)

    @crash_points
    def _claim(self, partial_file: PartialFile, size: int) -> int:
        """The file has its room, or so many bytes must go first. What it holds already counts as used."""
        if partial_file.held < size and 0 < self.max_bytes < size:
            raise NoRoom(f"{size} bytes are more than max_bytes = {self.max_bytes}")
        with self._lock():
            over = self._excess(size - partial_file.held) if partial_file.held < size else 0
            if over > 0:
                return over
            with self._cache.errors("reserve"):
                if not partial_file.reserve(size):
                    raise NoRoom(f"cache directory {self._cache.folder}: the file system cannot reserve {size} bytes")
        return 0

    def _excess(self, size: int) -> int:
        """Bytes that must go before `size` more fit within both limits; not positive: they fit."""
        by_quota = self.used() + size - self.max_bytes if self.max_bytes else 0
        return max(by_quota, size + self.min_free_bytes - self.free())

    def _choose(self, over: int, *, whole: bool) -> Victims:
        """What goes for so many bytes; with `whole` nobody is asked where even everything would not do."""
        victims = Victims(over)
        for image_id, facts in self._cache.listed("invalid") if over > 0 else ():
            if victims.over > 0:
                victims.wrong.append(image_id)
                victims.over -= facts.st_size
        if victims.over > 0:
            entries = [entry for entry in self._cache.complete.entries() if not entry.pinned]
            left = self._left()
            everything = sum(entry.size for entry in entries) + sum(left.values())
            if whole and everything < victims.over:
                victims.over -= everything
            else:
                self._choose_files(self._in_order(entries), victims)
                self._choose_left(left, victims)
        return victims

    def _left(self) -> dict[str, int]:
        """Bytes of the disk that partial files have which nobody fills, the longest untouched first."""
        partial = sorted(self._cache.listed("partial"), key=lambda item: item[1].st_mtime)
        return {image_id: on_disk(facts) for image_id, facts in partial if not self._cache.partials.is_filled(image_id)}

    @staticmethod
    def _choose_left(left: dict[str, int], victims: Victims) -> None:
        for image_id, size in left.items():
            if victims.over > 0:
                victims.left.append(image_id)
                victims.over -= size

    def _choose_files(self, entries: Iterable[CachedFile], victims: Victims) -> None:
        """As many as it takes, asked about together."""
        idle = (entry for entry in entries if self._is_idle(entry))
        while victims.over > 0 and (batch := list(_enough(idle, victims.over))):
            kept = set(self._kept([entry.image_id for entry in batch]))
            for entry in batch:
                (victims.kept if entry.image_id in kept else victims.files).append(entry)
                victims.over -= 0 if entry.image_id in kept else entry.size

    def _in_order(self, entries: Collection[CachedFile]) -> list[CachedFile]:
        """The first to go first."""
        elsewhere = set(self._elsewhere([entry.image_id for entry in entries])) if entries else set()
        hot = time.time() - _HOT_SECONDS
        return sorted(entries, key=lambda file: (file.used_at > hot, file.image_id not in elsewhere, file.used_at))

    def _is_idle(self, entry: CachedFile) -> bool:
        """Whether nobody reads it just now."""
        copy = self._cache.complete.take(entry.image_id)
        if copy is not None:
            copy.close()
        return copy is not None

    def _tell(self, victims: Victims) -> None:
        if victims.over > 0 and victims.kept:
            why = self._why(victims)
            log.warning("cache directory %s: above its limits by %d bytes%s", self._cache.folder, victims.over, why)

    def _why(self, victims: Victims) -> str:
        pinned = [entry.size for entry in self._cache.complete.entries() if entry.pinned]
        told = ""
        if kept := [entry.size for entry in victims.kept]:
            told = (
                f": {len(kept)} copies ({sum(kept)} bytes) stay: each may be the last intact copy of its image; "
                "put these images back into a store: replica repair --all, or replica repair IMAGE --to-store STORE"
            )
        if sum(pinned) >= victims.over:
            told += (
                f": {len(pinned)} pinned copies take {sum(pinned)} bytes; see replica pin list, and unpin some with "
                "replica pin remove IMAGE, or lower max_pinned_percent"
            )
        return told or ", everything else is in use"

    @contextmanager
    @crash_points
    def _lock(self) -> Iterator[None]:
        with self._cache.errors("space"):
            fd = self._cache.open_own("space")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


class _Remover:
    """Takes away what was chosen, the rows of copies first."""

    def __init__(self, cache: Cache, kept: Kept, withdraw: Withdraw) -> None:
        self._cache, self._kept, self._withdraw = cache, kept, withdraw

    @crash_points
    def run(self, victims: Victims) -> Evicted:
        """Raises what `withdraw` raises, and CacheError: what has gone by then stays so."""
        evicted = Evicted()
        evicted.other_bytes += sum(self._cache.drop("invalid", image_id) for image_id in victims.wrong)
        evicted.other_bytes += sum(self._cache.partials.drop_left(image_id) for image_id in victims.left)
        for start in range(0, len(victims.files), _HELD):
            self._take(victims.files[start : start + _HELD], evicted)
        return evicted

    @crash_points
    def _take(self, entries: Collection[CachedFile], evicted: Evicted) -> None:
        """These go, but none that is being read or was pinned just now.

        Whether one is a last copy is asked once more when the rows are gone: by then whoever orders another copy away
        knows that this one goes. Killed after `withdraw`: the janitor registers it again.
        """
        with ExitStack() as taken:
            copies = [copy for entry in entries if (copy := self._cache.complete.take(entry.image_id)) is not None]
            for copy in copies:
                taken.enter_context(closing(copy))
            gone = [copy for copy in copies if not copy.entry.pinned]
            for copy in gone:
                self._withdraw(copy.entry.image_id)
            kept = set(self._kept([copy.entry.image_id for copy in gone])) if gone else set()
            for copy in gone:
                if copy.entry.image_id not in kept:
                    self._drop(copy, evicted)

    @crash_points
    def _drop(self, copy: OpenFile, evicted: Evicted) -> None:
        """Nothing goes where an order has taken the file meanwhile, and a fill has put one of its own there."""
        entry, idle = copy.entry, time.time() - copy.entry.used_at
        log.info("image %s: evicted, %d bytes, unused for %d s", entry.image_id, entry.size, idle)
        freed = self._cache.complete.remove_copy(entry.image_id, copy)
        evicted.copies += freed > 0
        evicted.copy_bytes += freed


def _enough(entries: Iterator[CachedFile], size: int) -> Iterator[CachedFile]:
    """The next ones, until they have so many bytes."""
    for entry in islice(entries, _ASKED):
        yield entry
        size -= entry.size
        if size <= 0:
            return
