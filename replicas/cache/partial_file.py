"""A file that one process writes while many read it.

The writer holds an flock, which the kernel frees on kill -9; the file's size says how far readers may go; its
place in the directory says what became of it. A reader who waits holds a lock of the other kind (open file
description locks, fcntl(2)), on its first byte. Nothing else is shared, so readers may sit in any process.

What is guaranteed against others, without reading the bytes again: the file has a name that only we use, in a folder
of mode 0700, and mode 0600, so that only root and processes of our own user can write it. Bytes are appended
(O_APPEND), never put at an offset, and the length is compared before each append and at the commit: whoever cuts the
file, or makes it longer, ends the fill, and never leaves a hole. Whoever overwrites it in place is found out by its
mtime, where the file system keeps that itself (`_LOCAL`), unless that is within one tick of the kernel's clock after
our own write (Linux before 6.13) or while our write runs. On others, such as NFS, in-place writes are not found out.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from .. import checksum
from ..crash_points import crash_points
from ..disk import ownership
from ..errors import CacheError, Unreadable

_FLOCK = "hhqqi0q"  # struct flock of fcntl(2): type, whence, start, length, pid; 0q: padded as the compiler does

_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)

# File systems whose mtime changes with writes alone, and at once: ext4, XFS, Btrfs, tmpfs, ramfs, ZFS, F2FS, bcachefs,
# overlayfs (linux/magic.h, statfs(2)). A server sets it elsewhere, some time after the write.
_LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x858458F6, 0x2FC12FC1, 0xF2F52010, 0xCA451A4E, 0x794C7630}
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


def try_lock(fd: int, kind: int) -> bool:
    """Whether the flock was free."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_awaited(fd: int) -> bool:
    """Some reader of the file waits (`wait_for`), by another descriptor."""
    try:
        asked = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, byte_range(fcntl.F_WRLCK, 0))
        kind: int = struct.unpack(_FLOCK, asked)[0]
    except OSError:  # a file system without such locks: nobody is made to wait
        return True
    return kind != fcntl.F_UNLCK


class PartialFile:
    """The one writer's side. Raises OSError; `directory.Cache` turns it into CacheError."""

    def __init__(self, fd: int, path: Path, size: int) -> None:
        self.fd = fd
        self.path = path
        self.size = size  # bytes it should get
        self._is_local = _file_system(fd) in _LOCAL
        self._mtime_ns: int | None = None  # after our last write; None: it says nothing

    @classmethod
    @crash_points
    def lock(cls, path: Path, size: int) -> "PartialFile | None":
        """The file at `path`, created or taken over, locked by us; None when another holds it.

        What a dead writer left is kept, except after a crash of the machine (unwritten pages read as zeros then)
        and when it is longer than the `size` it should get.
        """
        while True:
            partial_file = cls(os.open(path, _FLAGS, 0o600), path, size)
            try:
                ownership.give(partial_file.fd, path.parent)
                if not try_lock(partial_file.fd, fcntl.LOCK_EX):
                    partial_file.close()  # no crash test: another process fills it
                    return None
                facts = os.fstat(partial_file.fd)
                if _is_at(facts, path) and facts.st_nlink > 1:
                    # A crash of the machine cut its rename in two: the complete file is this very one.
                    os.unlink(path)  # no crash test: only after a crash of the machine
                elif _is_at(facts, path):
                    if facts.st_size > size or facts.st_mtime < _boot_time():
                        os.ftruncate(partial_file.fd, 0)
                    partial_file.remember()
                    return partial_file
                partial_file.close()  # no crash test: renamed or removed between open and lock, or just now
            except BaseException:  # no crash test: the disk fails
                partial_file.close()
                raise

    @property
    def is_open(self) -> bool:
        """Neither closed nor discarded yet."""
        return self.fd >= 0

    @property
    def is_in_place(self) -> bool:
        """It is open, and its name is still its own."""
        return self.fd >= 0 and _is_at(os.fstat(self.fd), self.path)

    @property
    def length(self) -> int:
        """Bytes written so far."""
        return os.fstat(self.fd).st_size

    @property
    def is_wanted(self) -> bool:
        """Some reader waits (`wait_for`)."""
        return is_awaited(self.fd)

    @property
    def held(self) -> int:
        """Bytes of the disk that it has, written or reserved."""
        return on_disk(os.fstat(self.fd))

    @crash_points
    def reserve(self, size: int) -> bool:
        """Blocks for `size` bytes are set aside by the file system, the length unchanged; False: no space.

        A file system that cannot (NFS before 4.2) is taken at its word that there is room.
        """
        result = _libc.fallocate(self.fd, _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(size))
        if result == 0:
            self.remember()
            return True
        return _is_room(ctypes.get_errno())  # no crash test: the disk is full

    @crash_points
    def give_back(self) -> None:
        """What was reserved and not written is free again; the file looks no younger for it."""
        facts = os.fstat(self.fd)
        os.ftruncate(self.fd, facts.st_size)  # frees what is behind the end
        os.utime(self.fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    @crash_points
    def append(self, data: bytes, offset: int) -> None:
        """Write at `offset`, the end; readers may see it at once. Raises CacheError when others wrote to the file."""
        self.confirm(offset)
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)  # at the end, whatever the offset: O_APPEND, see pwrite(2)
            view, offset = view[written:], offset + written
        self.remember()

    def confirm(self, length: int) -> None:
        """The file is as our last write left it: so long, in its place, the same mtime. Else it is gone: CacheError."""
        facts = os.fstat(self.fd)
        if facts.st_size != length:
            why = f"it has {facts.st_size} bytes, we wrote {length}"
        elif not facts.st_nlink:
            why = "it was removed"
        elif self._mtime_ns not in (None, facts.st_mtime_ns):
            why = "it was written to"
        else:
            return
        self.discard()
        raise CacheError(f"{self.path}: another program changed this file while it was filled: {why}")

    def remember(self) -> None:
        """What is there now is our doing."""
        self._mtime_ns = os.fstat(self.fd).st_mtime_ns if self._is_local else None

    def stir(self) -> None:
        """Followers see that the writer lives though nothing can be written yet: another ctime, the same mtime."""
        os.utime(self.fd, ns=(time.time_ns(), os.fstat(self.fd).st_mtime_ns))

    def give_up(self) -> None:
        """What is written is left unlocked for the next filler; a file without a byte is gone."""
        if self.is_open and self.length:
            self.close()
        else:
            self.discard()

    @crash_points
    def discard(self) -> None:
        """The file is gone; readers find it so and go on elsewhere. Nothing happens to one closed or moved away."""
        if self.is_in_place:
            os.unlink(self.path)
        self.close()

    def close(self) -> None:
        """Free the lock, also where a process forked meanwhile has the descriptor; may be called more than once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)


def on_disk(facts: os.stat_result) -> int:
    """Bytes that a file has, written or reserved."""
    return max(facts.st_size, facts.st_blocks * 512)


def wait_for(fd: int) -> None:
    """Whoever fills the open file sees that it is wanted, until `fd` is closed or this process dies."""
    with contextlib.suppress(OSError):  # see `is_wanted`
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, byte_range(fcntl.F_RDLCK, 0))


def byte_range(kind: int, start: int, length: int = 1) -> bytes:
    """A lock of this kind as fcntl(2) takes it; length 0: to the end, however far that is."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0)


def _is_room(number: int) -> bool:
    """What a refusal to set blocks aside means. Raises OSError for all that says nothing about room."""
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return False
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        return True
    raise OSError(number, os.strerror(number))


def _is_at(facts: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(facts, os.lstat(path))
    except FileNotFoundError:
        return False


def _file_system(fd: int) -> int:
    """Its magic number, the first word of struct statfs; 0: not known."""
    answer = (ctypes.c_ulong * 32)()
    return int(answer[0]) if _libc.fstatfs(fd, answer) == 0 else 0


def _boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def read(fd: int, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of an open file in chunks of at most `checksum.PIECE`. Raises Unreadable.

    CacheError when it is shorter.
    """
    while start < stop:
        try:
            chunk = os.pread(fd, min(checksum.PIECE, stop - start), start)
        except OSError as error:
            raise Unreadable(f"reading a cached file: {error.strerror}") from error
        if not chunk:
            raise CacheError(f"a cached file ends at byte {start}, expected {stop}")
        yield chunk
        start += len(chunk)
