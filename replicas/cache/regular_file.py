"""Regular files of a cache directory: opening one is no use of it, and follows no symbolic link. Raises OSError."""

import errno
import os
import stat
from pathlib import Path


def open_regular(path: Path) -> int | None:
    """A descriptor to read from; None when there is no such regular file."""
    try:
        fd = _without_atime(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd


def is_regular(path: Path) -> bool:
    """Whether there is one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def unlink(path: Path) -> int:
    """There is none any more; its size, if there was one."""
    try:
        size = os.lstat(path).st_size
        os.unlink(path)
    except FileNotFoundError:
        return 0
    return size


def _without_atime(path: Path, flags: int) -> int:
    """Opened so that reading is no use: `CompleteFiles.used` says what is. Somebody else's file does not let us."""
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)
