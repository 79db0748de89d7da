"""What version 0.1, or Glance's own cache, left half written in `incomplete/`."""

import fcntl
import os
import time

from .directory import Directory
from .partial_file import try_lock
from .regular_file import open_regular, unlink


def clear(directory: Directory, idle_seconds: float) -> list[tuple[str, int]]:
    """It goes; image ids and bytes freed.

    Only what nobody wrote to for so long, and no filler of version 0.1 has locked. Raises CacheError.
    """
    found = []
    for image_id, facts in directory.listed("incomplete"):
        path = directory.folder / "incomplete" / image_id
        with directory.errors(image_id):
            fd = open_regular(path) if time.time() - facts.st_mtime > idle_seconds else None
            if fd is None:
                continue
            try:
                if try_lock(fd, fcntl.LOCK_EX):
                    found.append((image_id, unlink(path)))
            finally:
                os.close(fd)
    return found
