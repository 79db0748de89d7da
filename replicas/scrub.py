"""Reads a host's files again: those of the stock cache once, to adopt them, our own when it has been too long."""

import logging
import time
from collections.abc import Callable
from contextlib import closing

from . import checksum, disk_read
from .cache import Copy
from .errors import Unreadable
from .keeper import Keeper
from .model import Digest, Image, Verdict

log = logging.getLogger(__name__)

_RATE = 20 << 20  # bytes per second, of what nobody has read yet, where files are never read again


class Scrubber:
    """`breathe` is called between blocks; what it raises ends the reading."""

    def __init__(self, keeper: Keeper, breathe: Callable[[], None]) -> None:
        self._damaged = self._scrubbed = self._adopted = self._registered = 0
        self._keeper = keeper
        self._breathe = breathe

    def counts(self) -> tuple[int, int, int, int]:
        """Since the last call: files read again because they were due, found wrong, adopted, registered by that."""
        found = self._scrubbed, self._damaged, self._adopted, self._registered
        self._scrubbed = self._damaged = self._adopted = self._registered = 0
        return found

    def adopt(self) -> int:
        """Files that nobody of us read, as they are now, are read at the bounded rate; how many of them were right.

        Those of the stock cache and of version 0.1, and what was written to since. They are registered then.
        """
        rate = self._keeper.settings.scrub_bytes_per_second or _RATE
        unread = [one for one in self._keeper.cache.entries() if not one.verified and one.readable]
        right = 0
        for one in sorted(unread, key=lambda entry: entry.used_at, reverse=True):
            right += self.verify(one.image_id, rate) is Verdict.INTACT
        self._adopted += right
        return right

    def oldest(self) -> Verdict | None:
        """The file longest unverified is verified, at the bounded rate, if that is due; None: nothing is."""
        rate, age = self._keeper.settings.scrub_bytes_per_second, self._keeper.settings.scrub_after_seconds
        read = [one for one in self._keeper.cache.entries() if one.verified and one.readable]
        due = [one for one in read if time.time() - one.verified_at > age]
        if not rate or not due:
            return None
        verdict = self.verify(min(due, key=lambda one: one.verified_at).image_id, rate)
        self._scrubbed += 1
        return verdict

    def verify(self, image_id: str, rate: int = 0) -> Verdict:
        """One complete file hashed: marked when right; row, then file gone when wrong, or unreadable.

        `rate` in bytes/s, 0: no limit.

        Raises CatalogueError, CacheError: nothing is known then, and nothing has changed.
        """
        image, copy = self._keeper.active(image_id), self._keeper.cache.open(image_id)
        if image is None or image.digest is None or copy is None:
            return Verdict.UNVERIFIABLE
        with closing(copy):
            if copy.entry.is_anothers(image):
                self._keeper.dispel(image, copy)
                self._damaged += 1
                return Verdict.CORRUPT
            if not self._is_right(copy, image.digest, rate):
                self._condemn(image, copy)
                return Verdict.CORRUPT
            if not self._keeper.cache.mark_verified(image, copy):
                return Verdict.UNVERIFIABLE
        if not copy.entry.verified:
            self._registered += self._keeper.verified(image)
        return Verdict.INTACT

    def _condemn(self, image: Image, copy: Copy) -> None:
        self._keeper.put_aside(image, copy)
        self._damaged += 1

    def _is_right(self, copy: Copy, digest: Digest, rate: int) -> bool:
        """A file that cannot be read serves nobody, and would be the next one due for ever."""
        try:
            return self._agrees(copy, digest, rate)
        except Unreadable as error:
            log.error("image %s: %s", copy.entry.image_id, error)
            return False

    def _agrees(self, copy: Copy, digest: Digest, rate: int) -> bool:
        running, began, length = checksum.start(digest.algorithm), time.monotonic(), 0
        try:
            for chunk in disk_read.chunks(copy.fd, 0, copy.entry.size):
                running.update(chunk)
                length += len(chunk)
                self._breathe()
                if rate and (ahead := length / rate - (time.monotonic() - began)) > 0:
                    time.sleep(ahead)
        except OSError as error:
            raise Unreadable(f"reading a cached file: {error.strerror}") from error
        return checksum.agrees(digest, running.hexdigest())
