"""Writes a file beside the damaged one, and renames it over that once it is proven.

    .NAME.repair   bytes on their way, locked (flock) by the process that writes them

A kill leaves that file without its lock, and the damaged one under its own name as it was: the next repair begins the
file anew. A rename is all or nothing, so that at no time neither is there.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import checksum
from ...cache.partial_file import try_lock
from ...disk.folder_sync import sync_folder
from ...errors import Corrupt, Refused, Unwritable
from ...location import redact
from ...model import Digest
from ..contract import Original
from .access import owner
from .holes import HoleWriter
from .options import FileHabits
from .reader import below, folder
from .room import Room

STAGED = ".{}.repair"
_MODE = 0o640  # where the store's options do not say
_SECTOR = 512  # bytes, the unit of `st_blocks`
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Writer:
    """Writes regular files below `roots`. No symbolic link is followed on the way down from a root."""

    schemes = ("file", "filesystem")
    store = None

    def __init__(self, roots: Sequence[Path], habits: Mapping[Path, FileHabits] | None = None) -> None:
        self._roots = tuple(roots)
        self._habits = {Path(os.path.realpath(root)): habit for root, habit in (habits or {}).items()}

    def rewrite(self, url: str, original: Original, ready: Callable[[], None]) -> "_Written":
        """As `contract.Writer.rewrite`. Unwritable before the first byte, where there is no room for all of them.

        Owner and mode are those of the damaged file, as long as the owner of the store's folder can read it with them;
        else the file is as Glance would have written it.
        """
        root, steps = below(self._roots, url)
        habits = self._habits.get(root, FileHabits())
        with _errors(url), _folder(root, steps[:-1]) as at, contextlib.closing(_Staged(at, steps[-1])) as staged:
            staged.write(original, habits.is_thin)
            staged.dress(root, habits.mode or _MODE)
            staged.prove(original.digest)
            ready()
            staged.switch()
            return _Written(root, steps, staged.facts())


class _Staged:
    """The file on its way. When closed before `switch` it is gone."""

    def __init__(self, at: int, name: str) -> None:
        self._at, self._name, self._hidden = at, name, STAGED.format(name)
        self._before = _facts(at, name)
        self._fd = os.open(self._hidden, _OPEN, 0o600, dir_fd=at)
        self._is_staged = try_lock(self._fd, fcntl.LOCK_EX) and self._is_ours()
        if not self._is_staged:
            os.close(self._fd)
            raise Refused(f"another repair is writing {name}; wait for its end")

    def write(self, original: Original, is_thin: bool) -> None:
        """Every byte; with holes for zeros where the store wants them, or the damaged file has some."""
        os.ftruncate(self._fd, 0)  # what a killed one left
        before, size = self._before, original.size
        taken = before.st_blocks * _SECTOR if before is not None and before.st_size == size else 0  # bytes on the disk
        is_thin = is_thin or 0 < taken < size
        room, file = Room(self._fd, self._name), HoleWriter(self._fd, is_thin)
        room.require(min(taken, size) if is_thin else size)  # of a thin file that is gone nothing is known beforehand
        for chunk in original.whole():
            room.wrote(file.write(chunk))
        file.end()

    def dress(self, root: Path, mode: int) -> None:
        """Whoever could read the damaged file can read this one, and the owner of the store can; all on the disk."""
        reader, here, before = owner(root), os.fstat(self._fd), self._before
        uid, gid = reader.uid, reader.gid
        if before is not None and (os.geteuid() or reader.may(before, 4)):
            uid, gid, mode = before.st_uid, before.st_gid, stat.S_IMODE(before.st_mode)
        if (here.st_uid, here.st_gid) != (uid, gid):
            os.fchown(self._fd, uid, gid)
        os.fchmod(self._fd, mode)
        os.fsync(self._fd)

    def prove(self, digest: Digest) -> None:
        """What the disk gives back has this digest: read from there, not from memory, as far as the kernel allows."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(self._fd, 0, os.SEEK_SET)
        found, _ = checksum.of(iter(lambda: os.read(self._fd, checksum.PIECE), b""), digest.algorithm)
        if not checksum.agrees(digest, found.value):
            raise Corrupt(f"what was written to {self._hidden} reads back with another digest: check that disk")

    def switch(self) -> None:
        """It has the damaged file's name, on the disk. Refused when that is another file than at the start, or gone."""
        if not _is_same(_facts(self._at, self._name), self._before):
            raise Refused(f"{self._name} was replaced or removed meanwhile; run the command again")
        os.rename(self._hidden, self._name, src_dir_fd=self._at, dst_dir_fd=self._at)
        self._is_staged = False
        sync_folder(".", self._at)

    def facts(self) -> os.stat_result:
        return os.fstat(self._fd)

    def close(self) -> None:
        """The name goes before the lock: whoever has the lock has the file of that name."""
        if self._is_staged:
            os.unlink(self._hidden, dir_fd=self._at)
        os.close(self._fd)

    def _is_ours(self) -> bool:
        """The locked file still has this name and no other: the one before us may have made the image's file of it."""
        mine, named = os.fstat(self._fd), _facts(self._at, self._hidden)
        return named is not None and os.path.samestat(mine, named) and stat.S_ISREG(mine.st_mode) and mine.st_nlink == 1


@dataclass(frozen=True)
class _Written:
    root: Path
    steps: tuple[str, ...]
    facts: os.stat_result

    def keep(self) -> None:
        """The rename has left nothing of the damaged file."""

    def remove(self) -> None:
        """The file is gone, if it is still the one that was written."""
        with _errors("/".join(self.steps)), _folder(self.root, self.steps[:-1]) as at:
            now = _facts(at, self.steps[-1])
            if now and _is_same(now, self.facts):
                os.unlink(self.steps[-1], dir_fd=at)
                sync_folder(".", at)


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{redact(url)}: {(error.strerror or 'cannot be written').lower()}"
        raise Unwritable(f"{text}; run this as a user who may write there, with room for the file") from error


@contextlib.contextmanager
def _folder(root: Path, steps: Sequence[str]) -> Iterator[int]:
    at = folder(root, steps)
    try:
        yield at
    finally:
        os.close(at)


def _facts(at: int, name: str) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    return None


def _is_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """An inode number is given anew soon after its file is gone, so its times count, too."""
    if one is None or other is None:
        return one is other
    return os.path.samestat(one, other) and (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
