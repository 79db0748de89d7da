"""The directory of one host. Its files are the truth: there is no index to lose.

    <image_id>             complete; read-only mode bits say that we verified it, others the stock cache left behind
    invalid/<image_id>     every byte arrived and the digest was wrong; kept a while as evidence
    queue/<image_id>       a request to fill
    incomplete/<image_id>  what Glance's own cache or version 0.1 left half written (`clear_incomplete`)
    .glance-replicas/      ours alone: Glance's drivers, its cleaner and its pruner look into the four above only
        partial/<image_id> growing; locked (flock) by the one process that fills it
        space, janitor     locks
        since              the moment this directory became ours

All that is known of a file is on its inode, so that a rename carries it: size, mode (verified; sticky bit: pinned),
mtime (when verified), atime (last used). A kill -9 at any line leaves one of these states, each of which the next start
understands: a growing file without a lock is taken over, a complete one without a row is registered.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import CacheError
from ..model import is_image_id
from .partial_file import Growing, try_lock

log = logging.getLogger(__name__)

VERIFIED = 0o440  # the mode of a file whose bytes agreed with the image's digest; no user but ours reads images
_READABLE = 0o640  # a web server in our group may send it
PINNED = stat.S_ISVTX  # Linux lets the owner of a regular file set it, and does nothing with it
OWN = ".glance-replicas"
_FOLDERS = {"incomplete": "incomplete", "invalid": "invalid", "queue": "queue", "partial": f"{OWN}/partial"}
_BEFORE = {"since": ".replicas"}  # names of version 0.1, which `DELETE /v2/cache` removes
_TOUCH_SECONDS = 60.0  # the last use is written at most this often


@dataclass(frozen=True)
class Entry:
    """One complete file. Times are seconds since the epoch."""

    image_id: str
    size: int
    verified: bool
    verified_at: float
    used_at: float
    pinned: bool = False  # never evicted


class Copy:
    """A complete file, open for reading, protected from eviction until closed."""

    def __init__(self, fd: int, entry: Entry) -> None:
        self.fd = fd
        self.entry = entry

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


class Cache:
    """What one host keeps. Every method may be called from many threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """The folders exist. Raises CacheError."""
        with self.errors("prepare"):
            for name in ("", "incomplete", "invalid", "queue"):
                (self.folder / name).mkdir(mode=0o750, exist_ok=True, parents=not name)
            for name in (OWN, _FOLDERS["partial"]):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
            for name, before in _BEFORE.items():
                if not self.own(name).exists():
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(self.folder / before, self.own(name))

    def own(self, name: str) -> Path:
        """Where a file that nobody but us uses is or would be: a lock, a mark."""
        return self.folder / OWN / name

    def partial(self, image_id: str) -> Path:
        """Where the growing file of an image is or would be."""
        return self.folder / _FOLDERS["partial"] / image_id

    def path(self, image_id: str) -> Path:
        """Where the complete file of an image is or would be."""
        if not is_image_id(image_id):
            raise ValueError(f"{image_id!r} is no image id")
        return self.folder / image_id

    def exists(self, image_id: str) -> bool:
        """Whether there is a complete file, verified or not. Raises CacheError when that cannot be known."""
        with self.errors(image_id):
            fd = self._open(self.path(image_id))
            if fd is not None:
                os.close(fd)
            return fd is not None

    def open(self, image_id: str) -> Copy | None:
        """The complete file, verified or not (the caller looks), or None. Raises CacheError."""
        with self.errors(image_id):
            fd = self._open(self.path(image_id))
            if fd is None:
                return None
            try_lock(fd, fcntl.LOCK_SH)  # taken or not, the open file stays readable
            facts = os.fstat(fd)
            if time.time() - facts.st_atime > _TOUCH_SECONDS:
                self._touch(fd, facts)
            return Copy(fd, _entry(image_id, facts))

    def entries(self) -> Iterator[Entry]:
        """Every complete file, in no order. Names that are no image id are left alone. Raises CacheError."""
        with self.errors("list"), os.scandir(self.folder) as found:
            for item in found:
                if is_image_id(item.name) and item.is_file(follow_symlinks=False):
                    try:
                        yield _entry(item.name, item.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        continue

    def begin(self, image_id: str, size: int) -> Growing | None:
        """The growing file of an image, ours alone to write, with what an earlier filler left; None: another fills.

        Also None when the image is complete by now. Raises CacheError.
        """
        with self.errors(image_id):
            if self.path(image_id).exists():
                return None
            growing = Growing.lock(self.partial(image_id), size)
            if growing is not None and self.path(image_id).exists():
                growing.discard()
                return None
            return growing

    def follow(self, image_id: str) -> int | None:
        """A file descriptor on the growing file of an image, or None when nobody fills it. Raises CacheError."""
        with self.errors(image_id):
            return self._open(self.partial(image_id))

    def fate(self, image_id: str, fd: int) -> str:
        """What became of the growing file behind `fd`: `growing`, `complete`, `invalid` or `gone`."""
        places = {
            "growing": self.partial(image_id),
            "complete": self.path(image_id),
            "invalid": self.folder / "invalid" / image_id,
        }
        for name, place in places.items():
            try:
                if os.path.samestat(os.fstat(fd), os.lstat(place)):
                    return name
            except FileNotFoundError:
                continue
        return "gone"

    def commit(self, growing: Growing, image_id: str) -> None:
        """The growing file is the image's complete file, on disk, verified. Raises CacheError, and then it is gone.

        Killed before the rename: a growing file that the next filler takes over. Between it and the change of
        mode: a complete file like one of the stock cache, which the janitor verifies once more.
        """
        with self.errors(image_id):
            try:
                os.fsync(growing.fd)
            except OSError:
                growing.discard()  # a second fsync would succeed, whatever is on the disk
                raise
            growing.confirm(growing.size)
            os.fchmod(growing.fd, _READABLE)  # before it can be found
            os.rename(growing.path, self.path(image_id))
            _mark_verified(growing.fd)
            self._sync(self.folder)
            growing.close()

    def condemn(self, growing: Growing, image_id: str) -> None:
        """The growing file is known to be wrong: followers see it in `invalid/` and break off. Raises CacheError."""
        with self.errors(image_id):
            os.ftruncate(growing.fd, growing.length)  # what was reserved beyond its end is free again
            os.rename(growing.path, self.folder / "invalid" / image_id)
            growing.close()

    def mark_verified(self, image_id: str, copy: Copy) -> None:
        """The open file was hashed just now and agreed."""
        with self.errors(image_id):
            _mark_verified(copy.fd)
            os.utime(copy.fd, ns=(os.fstat(copy.fd).st_atime_ns, time.time_ns()))

    def pin(self, image_id: str, pinned: bool) -> bool:
        """The complete file stays whatever space is needed, or no longer does; False: there is none. Raises CacheError.

        Two processes that change the mode at once may lose the pin, or have the file verified once more: the next
        pass of the janitor puts both right.
        """
        copy = self.hold(image_id)
        if copy is None:
            return False
        with closing(copy), self.errors(image_id):
            if copy.entry.pinned != pinned:
                mode = stat.S_IMODE(os.fstat(copy.fd).st_mode)
                os.fchmod(copy.fd, mode | PINNED if pinned else mode & ~PINNED)
        return True

    def remove(self, image_id: str) -> int:
        """Nothing complete is kept of an image; bytes freed. Its registration must be gone already (promise 1).

        A fill in progress goes on: it has followers, and its registration will be refused if the image is gone.
        """
        with self.errors(image_id):
            places = (self.path(image_id), *(self.folder / name / image_id for name in ("invalid", "queue")))
            freed = sum(self._unlink(place) for place in places)
            self._sync(self.folder)
        return freed

    def set_aside(self, image_id: str) -> None:
        """A complete file that turned out wrong goes to `invalid/`."""
        with self.errors(image_id):
            try:
                os.rename(self.path(image_id), self.folder / "invalid" / image_id)
            except FileNotFoundError:
                return
            self._sync(self.folder)

    def enqueue(self, image_id: str) -> None:
        """The image is to be fetched in the background. Raises CacheError."""
        with self.errors(image_id):
            (self.folder / "queue" / image_id).touch(0o640)

    def listed(self, folder: str) -> list[tuple[str, os.stat_result]]:
        """The image ids in `partial`, `incomplete`, `invalid` or `queue`, with their facts. Raises CacheError."""
        found = []
        with self.errors(folder), os.scandir(self.folder / _FOLDERS[folder]) as items:
            for item in items:
                if is_image_id(item.name) and item.is_file(follow_symlinks=False):
                    try:
                        found.append((item.name, item.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue
        return found

    def drop(self, folder: str, image_id: str) -> int:
        """Remove one name from a folder ("" for the complete file); bytes freed. Raises CacheError."""
        with self.errors(image_id):
            return self._unlink(self.folder / _FOLDERS.get(folder, folder) / image_id)

    def clear_incomplete(self, idle_seconds: float) -> list[tuple[str, int]]:
        """What version 0.1 or Glance's own cache left in `incomplete/` goes; image ids and bytes freed.

        Only what nobody wrote to for so long, and no filler of version 0.1 has locked. Raises CacheError.
        """
        found = []
        for image_id, facts in self.listed("incomplete"):
            path = self.folder / "incomplete" / image_id
            with self.errors(image_id):
                fd = self._open(path) if time.time() - facts.st_mtime > idle_seconds else None
                if fd is None:
                    continue
                try:
                    if try_lock(fd, fcntl.LOCK_EX):
                        found.append((image_id, self._unlink(path)))
                finally:
                    os.close(fd)
        return found

    @staticmethod
    def _open(path: Path) -> int | None:
        """None when there is no such regular file; a symbolic link is not followed."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        return fd

    @staticmethod
    def _unlink(path: Path) -> int:
        try:
            size = os.lstat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    @staticmethod
    def _touch(fd: int, facts: os.stat_result) -> None:
        try:
            os.utime(fd, ns=(time.time_ns(), facts.st_mtime_ns))
        except OSError as error:  # the order of eviction suffers, nothing else
            log.debug("cannot note the last use: %s", error)

    @staticmethod
    def _sync(folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def hold(self, image_id: str) -> Copy | None:
        """The complete file, kept from eviction until closed; None when it is gone or going. Raises CacheError."""
        with self.errors(image_id):
            fd = self._open(self.path(image_id))
            if fd is None:
                return None
            if try_lock(fd, fcntl.LOCK_SH) and os.fstat(fd).st_nlink:
                return Copy(fd, _entry(image_id, os.fstat(fd)))
            os.close(fd)
            return None

    def take(self, image_id: str) -> Copy | None:
        """The complete file while nobody reads it, or None; nobody evicts it at the same time. Raises CacheError."""
        with self.errors(image_id):
            fd = self._open(self.path(image_id))
            if fd is None:
                return None
            if try_lock(fd, fcntl.LOCK_EX):
                return Copy(fd, _entry(image_id, os.fstat(fd)))
            os.close(fd)
            return None

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Inside, a fault of the file system is a CacheError that names the directory and `what`."""
        try:
            yield
        except OSError as error:
            raise CacheError(f"cache directory {self.folder} ({what}): {error.strerror or error}") from error


def _entry(image_id: str, facts: os.stat_result) -> Entry:
    verified = not facts.st_mode & 0o222
    pinned = bool(facts.st_mode & PINNED)
    return Entry(image_id, facts.st_size, verified, facts.st_mtime, facts.st_atime, pinned)


def _mark_verified(fd: int) -> None:
    """No write bit is left; a pin is."""
    os.fchmod(fd, VERIFIED | (os.fstat(fd).st_mode & PINNED))
