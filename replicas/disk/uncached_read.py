"""The bytes of a file as its disk has them, not as the page cache remembers them: what a verification reads.

With O_DIRECT (open(2)) the kernel writes out what is dirty, reads the device, and leaves the page cache as it is: the
hot pages of this file and of all others stay. Where a file system refuses that, the file's clean pages are dropped
before it is read and once more behind the reader: other files keep theirs. A network file system's server, and a file
system that takes O_DIRECT and caches all the same (ext4 with data=journal, ZFS before 2.3), may answer from memory.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ..checksum import BLOCK

_ALIGNED = 4096  # no device asks for more
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.ENOENT)
_BEHIND = 8 << 20  # bytes between two moments when what was read leaves the page cache


def chunks(fd: int, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) in order, at most `checksum.BLOCK` each, one ahead of the caller; fewer where the file ends.

    Raises OSError.
    """
    direct = _reopened(fd)
    if direct is None:
        yield from _dropped(fd, start, stop)
        return
    try:
        at = start
        with ThreadPoolExecutor(1, "replica-disk-read") as pool:
            ahead = pool.submit(_read, direct, at, stop)
            while chunk := ahead.result():
                at += len(chunk)
                ahead = pool.submit(_read, direct, at, stop)
                yield chunk
    finally:
        os.close(direct)


def _reopened(fd: int) -> int | None:
    """The same file, past the page cache; None: not here."""
    try:
        direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _REFUSED:
            return None
        raise
    try:
        _read(direct, 0, 1)
    except OSError as error:
        os.close(direct)
        if error.errno in _REFUSED:
            return None
        raise
    return direct


def _read(direct: int, start: int, stop: int) -> bytes:
    """From `start` on, as much as one aligned block holds; nothing at the end."""
    if start >= stop:
        return b""
    first = start - start % _ALIGNED
    with mmap.mmap(-1, BLOCK) as block, memoryview(block) as view:
        got = os.preadv(direct, [view], first)
        return bytes(view[start - first : min(got, stop - first)])


def _dropped(fd: int, start: int, stop: int) -> Iterator[bytes]:
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    at = left = start
    try:
        while chunk := os.pread(fd, min(BLOCK, stop - at), at):
            at += len(chunk)
            if at - left >= _BEHIND:
                os.posix_fadvise(fd, left, at - left, os.POSIX_FADV_DONTNEED)
                left = at
            yield chunk
    finally:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
