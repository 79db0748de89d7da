"""Numbered places that all processes of a host share; the kernel frees those of a process that dies.

A place is a lock on one byte of a file of our own (open file description locks, fcntl(2)). The file has no bytes: locks
may lie behind its end, so that any number of groups needs one file, and nothing is ever cleared away.
"""

import contextlib
import fcntl
import hashlib
import os

from .directory import Directory
from .partial_file import byte_range

_MOST_BITS = 20  # of the number of a place; the bits above are the group's


class FillSlots:
    """What one fill holds, in the file of this name, until it is freed or its process dies. For one thread."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory, self._name = directory, name
        self._fd = -1

    def take(self, group: str, most: int) -> bool:
        """Whether one of the `most` places of a group was free, and is taken now. Raises CacheError."""
        with self._directory.errors(self._name):
            if self._fd < 0:
                self._fd = self._directory.open_own(self._name)
            first = _first(group)
            return any(self._lock(first + number) for number in range(min(most, 1 << _MOST_BITS)))

    def _lock(self, at: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, byte_range(fcntl.F_WRLCK, at))
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, fcntl(2)
            return False
        return True

    def free(self) -> None:
        """Also where a process forked meanwhile has the descriptor; may be called more than once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, byte_range(fcntl.F_UNLCK, 0, 0))
            os.close(fd)


def _first(group: str) -> int:
    """The byte of a group's first place: the same in every process."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:5]) << _MOST_BITS
