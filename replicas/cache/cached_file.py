"""One complete file: what is known of it, and whether it is the file of an image."""

import hashlib
import os
import stat
from dataclasses import dataclass

from ..model import Digest, Image
from .notes import KnownDigest, label

STICKY = stat.S_ISVTX  # how version 0.1 pinned
_ROUNDED = 1.0  # seconds: MariaDB rounds a moment to the next one


@dataclass(frozen=True)
class CachedFile:
    """One complete file. Times are seconds since the epoch."""

    image_id: str
    size: int
    digest: Digest | None  # of its bytes, as they were last read; None: nobody of us has read what is there now
    verified_at: float  # when they were read, or else written
    used_at: float
    pinned: bool = False  # never evicted
    written_at: float = 0.0
    readable: bool = True  # by who uses the directory, when that was tried last; one that is not serves nobody
    fault: str = ""  # what the system said then; nothing where the file's mode forbids it
    tried_at: float = 0.0  # when it was tried

    @property
    def verified(self) -> bool:
        """Its bytes were read, and it was not written to since."""
        return self.digest is not None

    def is_file_of(self, image: Image) -> bool:
        """Its bytes were read, and are this image's."""
        return self.digest is not None and image.digest is not None and (self.digest, self.size) == _bytes_of(image)

    def is_anothers(self, image: Image) -> bool:
        """It cannot be this image's file: another size, another digest, or unread and older than the image.

        An id may be used again once its image was purged (OSSN-0075, LP #1593799).
        """
        if image.size is not None and self.size != image.size:
            return True
        if self.digest is None or image.digest is None:
            return image.created_at is not None and self.written_at + _ROUNDED < image.created_at.timestamp()
        return self.digest.algorithm == image.digest.algorithm and self.digest != image.digest


class OpenFile:
    """A complete file, open for reading, protected from eviction until closed."""

    def __init__(self, fd: int, entry: CachedFile, facts: os.stat_result) -> None:
        self.fd = fd
        self.entry = entry
        self.facts = facts  # when it was opened

    def detach(self) -> int:
        """The descriptor, the caller's to close from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        """Let go; may be called more than once."""
        fd = self.detach()
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def entry(
    image_id: str,
    facts: os.stat_result,
    known: KnownDigest | None = None,
    pinned: bool = False,
    fault: str | None = None,
) -> CachedFile:
    """What is known of a file by its inode and its notes."""
    tried_at, _, why = (fault or "").partition(" ")
    if known is not None and not known.holds(facts):
        known = None
    return CachedFile(
        image_id,
        facts.st_size,
        known.digest if known else None,
        known.read_at if known else facts.st_mtime,
        facts.st_atime,
        pinned or bool(facts.st_mode & STICKY),
        facts.st_mtime,
        readable=not fault,
        fault=why,
        tried_at=float(tried_at) if tried_at.isdecimal() else 0.0,
    )


def purpose(image: Image) -> str:
    """What a partial file of this image is for; short, so that it takes no block of the disk beside the inode."""
    return hashlib.sha256(label(*_bytes_of(image)).encode()).hexdigest()[:32]


def _bytes_of(image: Image) -> tuple[Digest, int]:
    if image.digest is None or image.size is None:
        raise ValueError(f"image {image.id} has no digest or no size")
    return image.digest, image.size
