"""Writes a damaged durable copy anew from intact ones, in place, while the catalogue still names it.

The flow between readers, writers and the catalogue: the bytes are guarded by the image's digest on their way, the
catalogue is asked again just before they take the place of the damaged ones, and once more after it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..catalogue.images import LIVE, Catalogue
from ..errors import Refused
from ..location import redact
from ..model import Image, Location
from ..stores.contract import Written
from ..stores.sources import Sources
from ..stores.writers import Writers
from ..transfer.failover_stream import FailoverStream, guarded

log = logging.getLogger(__name__)


class OriginalBytes:
    """The bytes of an image out of its intact copies: `contract.Original`. `progress` is told each chunk's length."""

    def __init__(
        self, image: Image, intact: Sequence[Location], sources: Sources, progress: Callable[[int], None] | None = None
    ) -> None:
        if image.digest is None or image.size is None:
            raise Refused(f"image {image.id} has no digest or no size: no copy of it can be proven")
        self.size, self.digest, self.md5 = image.size, image.digest, image.checksum
        self._image, self._intact, self._sources = image, intact, sources
        self._progress = progress or (lambda _: None)

    def whole(self) -> Iterator[bytes]:
        """As `Original.whole`."""
        stream = FailoverStream(self._image.id, self.size, self._intact, self._sources.open)
        return guarded(self._told(stream), self.digest, self.size)

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """As `Original.part`."""
        left = length
        for chunk in (
            FailoverStream(self._image.id, self.size, self._intact, self._sources.open, offset) if length else ()
        ):
            piece = chunk[:left]
            self._progress(len(piece))
            yield piece
            left -= len(piece)
            if not left:
                return

    def _told(self, chunks: FailoverStream) -> Iterator[bytes]:
        for chunk in chunks:
            self._progress(len(chunk))
            yield chunk


class Rewriter:
    """Restores durable copies. For many threads at once."""

    def __init__(self, catalogue: Catalogue, sources: Sources, writers: Writers) -> None:
        self._catalogue, self._sources, self._writers = catalogue, sources, writers

    def restore(
        self, image: Image, target: Location, intact: Sequence[Location], progress: Callable[[int], None] | None = None
    ) -> Written:
        """The target holds the image's bytes. After any error it holds what it held before.

        Raises SourceError, Unwritable, CatalogueError, and Refused when the catalogue no longer wants it so.
        """
        original = OriginalBytes(image, intact, self._sources, progress)
        log.info("image %s: writing %s anew", image.id, redact(target.url))
        return self._writers.of(target).rewrite(target.url, original, partial(self._must_be_wanted, image, target))

    def keep_or_remove(self, image: Image, restored: Written, is_intact: bool) -> None:
        """To be called after the verification that follows: of an image deleted meanwhile nothing is left behind.

        Glance removes an object first and its rows afterwards. When that takes longer than the verification did, the
        object stays behind all the same, and `replica audit` finds it. Raises Refused when the image is deleted.
        """
        status = self._catalogue.statuses([image.id]).get(image.id)
        if status == "deleted":
            restored.remove()
            raise Refused(f"image {image.id} was deleted meanwhile; what was written has been removed")
        if status is None:  # purged, or a database that is behind: nobody is served what stays behind
            raise Refused(f"Glance no longer knows image {image.id}; what was written stays: see replica audit")
        if is_intact:
            restored.keep()

    def _must_be_wanted(self, image: Image, target: Location) -> None:
        """Under the lock, so that a change of the image that is under way has come to its end."""
        now = self._catalogue.decide(image.id, lambda locked: locked.image)
        if now.status not in LIVE:
            raise Refused(f"image {image.id} is {now.status} by now; nothing was changed")
        if not any(location.row == target.row and location.url == target.url for location in now.locations):
            raise Refused(f"image {image.id}: the location is no longer in the catalogue; nothing was changed")
        if (now.digest, now.size) != (image.digest, image.size):
            raise Refused(f"image {image.id} has other bytes by now; nothing was changed")
