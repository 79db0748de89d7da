"""Reads a host's files again: those of the stock cache once, to adopt them, our own when it has been too long."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from .. import checksum
from ..cache import Cache, CachedFile, OpenFile
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..disk import uncached_read
from ..errors import Unreadable
from ..host.full_reads import FullReads
from ..host.own_copies import OwnCopies
from ..model import Digest, Image
from ..removal import withheld
from ..settings import Settings
from ..verdict import Verdict

_RATE = 20 << 20  # bytes per second, of what nobody has read yet, where files are never read again
_FRESH_SECONDS = 1.0  # how old a list may be when the file longest unverified is taken from it
_AGAIN_SECONDS = 600.0  # between two tries of a file that could not be read


class Scrubber:
    """`keep_alive` is called between blocks; what it raises ends the reading."""

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        own_copies: OwnCopies,
        full_reads: FullReads,
        keep_alive: Callable[[], None],
    ) -> None:
        self._damaged = self._scrubbed = self._adopted = self._registered = 0
        self._settings, self._cache, self._catalogue = settings, cache, catalogue
        self._own_copies, self._full_reads, self._keep_alive = own_copies, full_reads, keep_alive

    def counts(self) -> tuple[int, int, int, int]:
        """Since the last call: files read again because they were due, found wrong, adopted, registered by that."""
        found = self._scrubbed, self._damaged, self._adopted, self._registered
        self._scrubbed = self._damaged = self._adopted = self._registered = 0
        return found

    def step(self) -> None:
        """The next three. They share a list of the directory, which takes a look at each file, while it is fresh.

        Raises CatalogueError, CacheError.
        """
        entries, began = list(self._cache.complete.entries()), time.monotonic()
        self.adopt(entries)
        self.again(entries)
        self.oldest(entries if time.monotonic() - began < _FRESH_SECONDS else None)

    @crash_points
    def adopt(self, entries: Sequence[CachedFile] | None = None) -> int:
        """Files that nobody of us read, as they are now, are read at the bounded rate; how many of them were right.

        Those of the stock cache and of version 0.1, and what was written to since. They are registered then.
        """
        rate = self._settings.scrub_bytes_per_second or _RATE
        unread = [file for file in self._listed(entries) if not file.verified and file.readable]
        right = 0
        for file in sorted(unread, key=lambda entry: entry.used_at, reverse=True):
            right += self.verify(file.image_id, rate) is Verdict.INTACT
        self._adopted += right
        return right

    def again(self, entries: Sequence[CachedFile] | None = None) -> None:
        """Files that could not be read are tried again, not too often; one that is right has its row again."""
        rate = self._settings.scrub_bytes_per_second or _RATE
        for file in self._listed(entries):
            if file.fault and time.time() - file.tried_at > _AGAIN_SECONDS:
                self.verify(file.image_id, rate)

    @crash_points
    def oldest(self, entries: Sequence[CachedFile] | None = None) -> Verdict | None:
        """The file longest unverified is verified, at the bounded rate, if that is due; None: nothing is."""
        rate, age = self._settings.scrub_bytes_per_second, self._settings.scrub_after_seconds
        read = [file for file in self._listed(entries) if file.verified and file.readable]
        due = [file for file in read if time.time() - file.verified_at > age]
        if not rate or not due:
            return None
        verdict = self.verify(min(due, key=lambda file: file.verified_at).image_id, rate)
        self._scrubbed += 1
        return verdict

    def _listed(self, entries: Sequence[CachedFile] | None) -> Iterable[CachedFile]:
        return self._cache.complete.entries() if entries is None else entries

    @crash_points
    def verify(self, image_id: str, rate: int = 0) -> Verdict:
        """One complete file hashed: marked when right; row, then file gone when wrong.

        One that cannot be read is unknown, not wrong: it stays, and is withheld until it can (`removal.withheld`).

        `rate` in bytes/s, 0: no limit.

        Raises CatalogueError, CacheError: nothing is known then, and nothing has changed.
        """
        image = self._catalogue.active(image_id)
        try:
            copy = self._cache.complete.open(image_id)
        except Unreadable as error:  # no crash test: a file that cannot be read
            return withheld.verdict(error)
        if image is None or image.digest is None or copy is None:
            return Verdict.UNVERIFIABLE  # no crash test: gone just now
        with closing(copy):
            verdict = self._judge(image, image.digest, copy, rate)
        if verdict is Verdict.INTACT and (copy.entry.fault or not copy.entry.verified):
            self._registered += self._full_reads.verified(image)
        return verdict

    @crash_points
    def _judge(self, image: Image, digest: Digest, copy: OpenFile, rate: int) -> Verdict:
        """What the file is; it is marked, or gone, or withheld then."""
        if copy.entry.is_anothers(image):
            self._own_copies.remove_wrong(image, copy)
            self._damaged += 1
            return Verdict.CORRUPT
        try:
            is_right = self._agrees(copy, digest, rate)
        except Unreadable as error:  # no crash test: a file that cannot be read
            withheld.withhold(self._cache, image.id, copy.fd, error)
            return withheld.verdict(error)
        if not is_right:
            self._condemn(image, copy)
            return Verdict.CORRUPT
        return Verdict.INTACT if self._cache.complete.mark_verified(image, copy) else Verdict.UNVERIFIABLE

    @crash_points
    def _condemn(self, image: Image, copy: OpenFile) -> None:
        self._own_copies.set_aside(image, copy)
        self._damaged += 1

    def _agrees(self, copy: OpenFile, digest: Digest, rate: int) -> bool:
        """Whether all bytes of the file are those of the digest. Raises Unreadable."""
        running, began, length = checksum.start(digest.algorithm), time.monotonic(), 0
        try:
            for chunk in uncached_read.chunks(copy.fd, 0, copy.entry.size):
                running.update(chunk)
                length += len(chunk)
                self._keep_alive()
                if rate and (ahead := length / rate - (time.monotonic() - began)) > 0:
                    time.sleep(ahead)
        except OSError as error:
            raise Unreadable(f"reading a cached file: {error.strerror}") from error
        return checksum.agrees(digest, running.hexdigest())
