"""Files in a cache directory, as the filters would have left them."""

import hashlib
import os
import time
from contextlib import closing
from pathlib import Path

from glance_replicas.cache import Cache
from glance_replicas.cache.cached_file import CachedFile, purpose
from glance_replicas.cache.notes import FOR, READ, KnownDigest, Notes
from glance_replicas.model import Digest, Image


def picture(image_id: str, size: int, data: bytes = b"") -> Image:
    """An image of so many bytes, which ones is all the same unless `data` says."""
    return Image(image_id, "active", size, Digest("sha512", hashlib.sha512(data).hexdigest()))


def keep(path: Path, data: bytes, *, claims: bytes | None = None, age: float = 0.0, mode: int = 0o440) -> None:
    """A complete file whose bytes we read `age` seconds ago, when they were `claims` (these, unless given)."""
    path.write_bytes(data)
    note(path, claims if claims is not None else data, age)
    path.chmod(mode)


def note(path: Path, claims: bytes, age: float = 0.0) -> None:
    """The file is known to have these bytes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        facts = os.fstat(fd)
        digest = Digest("sha512", hashlib.sha512(claims).hexdigest())
        known = KnownDigest(digest, facts.st_size, facts.st_mtime_ns, time.time() - age)
        Notes(path.parent / ".glance-replicas" / "known").set(fd, path.name, READ, str(known))
    finally:
        os.close(fd)


def entry_of(path: Path) -> CachedFile:
    """What is known of a complete file."""
    copy = Cache(path.parent).complete.hold(path.name)
    assert copy is not None
    with closing(copy):
        return copy.entry


def leave(path: Path, data: bytes, whole: bytes) -> None:
    """A partial file at `path`: what a dead filler left of an image whose bytes are `whole`."""
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        notes = Notes(path.parent.parent / "known")
        notes.set(fd, path.name, FOR, purpose(picture(path.name, len(whole), whole)))
    finally:
        os.close(fd)


def rot(path: Path, at: int, data: bytes) -> None:
    """The disk has other bytes there; nobody wrote them."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def used(path: Path, idle: float) -> None:
    """The file was used last so many seconds ago."""
    os.utime(path, ns=(time.time_ns() - int(idle * 1e9), path.stat().st_mtime_ns))
