"""What people ask of one host through Glance's own cache API, done as everything else here is done.

    queue    a request in the ledger that this host fetches the image; a name in `queue/` while the ledger is away
    list     the complete files, and what is asked for and not here yet
    delete   the row goes first, then the file (promise 1)
    prune    back within the limits of space, as the janitor trims
    clean    what is wrong and what was left half-written goes now, not when the janitor comes to it

Every method raises CatalogueError, CacheError or LedgerError when something could not be asked; nothing else has
changed then.
"""

import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..cache import Cache
from ..cache.eviction import Eviction
from ..cache.partial_file import try_lock
from ..catalogue.images import Catalogue
from ..errors import LastCopy, LedgerError
from ..ledger.host_registry import HostRegistry
from ..ledger.prefetch_requests import OPEN, PrefetchRequests
from ..ledger.usage import KEPT_DAYS, Usage
from ..location import is_ours
from ..model import is_image_id
from ..settings import Settings
from .own_copies import OwnCopies

log = logging.getLogger(__name__)

_END_SECONDS, _LOOK_SECONDS = 3.0, 0.02  # how long a cancelled fill is waited for, and between two looks


@dataclass(frozen=True)
class Held:
    """One complete file. Times are seconds since the epoch."""

    image_id: str
    size: int
    verified_at: float
    used_at: float
    downloads: int  # from this host, as long as the ledger keeps count


class CacheCalls:
    """`wake` has the janitor look at once at what is asked of this host."""

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        hosts: HostRegistry,
        requests: PrefetchRequests,
        usage: Usage,
        eviction: Eviction,
        own_copies: OwnCopies,
        wake: Callable[[], None],
    ) -> None:
        self._settings, self._cache, self._catalogue, self._hosts = settings, cache, catalogue, hosts
        self._copies, self._usage, self._eviction = requests, usage, eviction
        self._own_copies, self._wake = own_copies, wake
        self._host = settings.host_name

    def state(self) -> tuple[list[Held], list[str]]:
        """Every complete file, by image id; and what was asked for and is not here, the oldest request first.

        An image that comes meanwhile is in one of the two: a request ends after its file has its place.
        """
        rows = self._hosts.ask("requests", lambda: self._copies.list(hosts=[self._host], states=OPEN), [])
        names = sorted(self._cache.listed("queue"), key=lambda item: item[1].st_mtime)
        entries = sorted(self._cache.complete.entries(), key=lambda entry: entry.image_id)
        here = {file.image_id for file in entries}
        used = self._hosts.ask("usage", lambda: self._usage.of_copies(here, KEPT_DAYS), {})
        held = [
            Held(
                entry.image_id, entry.size, entry.verified_at, entry.used_at, used.get((entry.image_id, self._host), 0)
            )
            for entry in entries
        ]
        asked = dict.fromkeys([*(row.image_id for row in rows), *(name for name, _ in names)])
        return held, [image_id for image_id in asked if image_id not in here]

    def hosts_with(self, image_id: str) -> list[str]:
        """The URLs of the hosts that have a complete copy, as the catalogue says; of this one, as its disk says."""
        image = self._catalogue.image(image_id) if is_image_id(image_id) else None
        if image is None:
            return []
        elsewhere = [location for location in image.cached if is_ours(location) and location.host != self._host]
        here = self._settings.host_url
        own = [here] if here and self._cache.complete.exists(image_id) else []
        return sorted({*own, *(location.url.removesuffix(f"/replicas/{image_id}") for location in elsewhere)})

    def queue(self, image_id: str, who: str) -> bool:
        """This host fetches the image as soon as it may; False: it is here already."""
        if not is_image_id(image_id) or self._cache.complete.exists(image_id):
            return False
        try:
            self._copies.request([image_id], [self._host], who=who)
        except LedgerError as error:
            log.warning("image %s: asked for by a name in queue/, without the ledger: %s", image_id, error)
            self._cache.enqueue(image_id)
        log.info("image %s: this host is to fetch it, asked by %s", image_id, who)
        self._wake()
        return True

    def unqueue(self, image_id: str) -> bool:
        """Nobody's request for the image is left on this host, and its fill has ended; whether there was one."""
        was_there = self._cancel(image_id)
        if was_there:
            self._await_end([image_id])
        return was_there

    def unqueue_all(self) -> int:
        """The same for every image; how many there were."""
        gone = [image_id for image_id in self.state()[1] if self._cancel(image_id)]
        self._await_end(gone)
        return len(gone)

    def _cancel(self, image_id: str) -> bool:
        if not is_image_id(image_id):
            return False
        with self._cache.errors(image_id):
            named = _remove(self._cache.folder / "queue" / image_id)
        rows = self._hosts.ask("requests", lambda: self._copies.cancel([image_id], [self._host]), 0)
        if rows:
            self._wake()
        return bool(rows) or named

    def _await_end(self, image_ids: Collection[str]) -> None:
        """No fill of these goes on that began before, unless somebody waits for it, or it does not end in time.

        So what such a fill brings is there by now, or never: one that began later, or that ends later, finds its
        request gone when it has all bytes.
        """
        end = time.monotonic() + _END_SECONDS
        for image_id in image_ids:
            while self._cache.partials.is_filled(image_id, alone=True) and time.monotonic() < end:
                time.sleep(_LOOK_SECONDS)

    def evict(self, image_id: str, who: str) -> bool:
        """This host has no copy of the image; whether it had one. Raises LastCopy, and then it has it still."""
        if not is_image_id(image_id) or not self._cache.complete.exists(image_id):
            return False
        self._end_request(image_id)
        self._own_copies.remove_as_asked(image_id, who=who, reason="asked for through Glance's cache API")
        return True

    def _end_request(self, image_id: str) -> None:
        """A request that brought the file, and does not know yet, is done: it must not bring it once more."""
        with suppress(FileNotFoundError):
            size = self._cache.path(image_id).lstat().st_size
            self._hosts.ask("requests", lambda: self._copies.finished(image_id, self._host, size), False)

    def evict_all(self, who: str) -> int:
        """No copy is left here that may go; how many went. Raises LastCopy for the first of those that stay."""
        gone, kept = 0, None
        for entry in list(self._cache.complete.entries()):
            try:
                gone += self.evict(entry.image_id, who)
            except LastCopy as error:
                log.warning("%s", error)
                kept = kept or error
        if kept is not None:
            raise kept
        return gone

    def prune(self) -> tuple[int, int]:
        """Files and bytes that went, so that this host is within its limits of space."""
        evicted = self._eviction.trim()
        return evicted.copies, evicted.copy_bytes

    def clean(self, stalled_seconds: float) -> int:
        """What is in `invalid/` is gone, and what nobody wrote to in `incomplete/` for so long; how many files.

        Neither folder holds anything that this project will go on with.
        """
        oldest = time.time() - stalled_seconds
        left = sum(_remove(path) for path in self._files("invalid"))
        left += sum(_remove(path) for path in self._files("incomplete") if _is_stalled(path, oldest))
        self._wake()
        return left

    def _files(self, folder: str) -> Iterator[Path]:
        """Regular files, whatever their names; those with a dot in front are ours."""
        with self._cache.errors(folder):
            for path in sorted((self._cache.folder / folder).iterdir()):
                if not path.name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                    yield path


def _is_stalled(path: Path, oldest: float) -> bool:
    """Whether it was not written to since then, and nobody holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_mtime < oldest and try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    log.info("%s removed", path)
    return True
