"""A lock that one process of a host holds; the kernel frees it when that process dies."""

import fcntl
import os

from .directory import Directory
from .partial_file import try_lock


class HostLock:
    """By this name, in the directory of the host. For one thread at a time."""

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory, self._name = directory, name
        self._fd: int | None = None

    def take(self) -> bool:
        """Whether this process has it now; False: another has. Raises CacheError: no directory."""
        if self._fd is None:
            self._directory.prepare()
            with self._directory.errors(self._name):
                fd = self._directory.open_own(self._name)
            if try_lock(fd, fcntl.LOCK_EX):
                self._fd = fd
            else:
                os.close(fd)
        return self._fd is not None

    def free(self) -> None:
        """It is another's to take. After a fork: the parent has it still, and only the parent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
