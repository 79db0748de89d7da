"""The names in a folder, on disk: a rename or an unlink is there after a crash of the machine only then."""

import os
from pathlib import Path


def sync_folder(folder: str | Path, dir_fd: int | None = None) -> None:
    """Its names are on disk; `folder` counts from `dir_fd`, which may be a descriptor that only names a folder.

    Raises OSError.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
