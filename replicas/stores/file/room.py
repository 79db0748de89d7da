"""Room in a file system for a file that is written beside others: looked for before the first byte, and on the way."""

import os

from ...errors import Unwritable

RESERVE_SHARE = 0.02  # of the file system, which stays free for uploads
RESERVE_BYTES = 10 << 30  # at most
_STEP = 64 << 20  # bytes written between two looks, at most


class Room:
    """What the file system of `fd` has left. A quota is not seen here; it ends the write as a full disk does."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd, self._name, self._since, self._step = fd, name, 0, _STEP

    def require(self, needed: int) -> None:
        """There are so many bytes and the reserve. Raises Unwritable."""
        facts = os.fstatvfs(self._fd)
        if not facts.f_blocks:
            return  # a file system that does not say
        size, free = facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize
        reserve = min(int(size * RESERVE_SHARE), RESERVE_BYTES)
        self._step = min(_STEP, reserve // 2)
        if free - needed < reserve:
            what = f"needs {_size(needed)} beside the old file, and " if needed else ""
            raise Unwritable(
                f"{self._name}: {what}its file system has {_size(free)} left, of which {_size(reserve)} stay free for "
                "uploads; nothing was changed: make room there, then run the command again (an image of mostly zeros "
                "needs less with filesystem_thin_provisioning = True in its store's group)"
            )

    def wrote(self, length: int) -> None:
        """So many bytes more are in the file; every so often the reserve is looked at. Raises Unwritable."""
        self._since += length
        if self._since >= self._step:
            self._since = 0
            self.require(0)


def _size(number: int) -> str:
    return f"{number / (1 << 20):.0f} MiB"
