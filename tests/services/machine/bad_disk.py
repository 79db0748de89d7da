"""A real disk that cannot be read for a while: a file system on a loop device whose backing file is cut short."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import absent, need

_MIB = 1 << 20
_ORDERLY = _MIB // 4  # of the backing file stay: the tables of the file system, and little else


class BadDisk:
    """`folder` is on it."""

    def __init__(self, backing: Path, folder: Path) -> None:
        self._backing, self.folder = backing, folder

    @contextmanager
    def failing(self, *paths: Path) -> Iterator[None]:
        """Meanwhile these files give EIO when they are read; their inodes can be read, and noted on."""
        for path in paths:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        whole = self._backing.stat().st_size
        with self._backing.open("r+b") as file:
            file.seek(_ORDERLY)
            rest = file.read()
            file.truncate(_ORDERLY)
            try:
                yield
            finally:
                file.truncate(whole)
                file.seek(_ORDERLY)
                file.write(rest)
                file.flush()
                for path in paths:
                    with path.open("rb") as one:
                        os.posix_fadvise(one.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def bad_disk(folder: Path) -> Iterator[BadDisk]:
    """A small one, mounted in `folder`: one group of blocks, whose tables come first."""
    backing, mounted = folder / "disk.img", folder / "disk"
    mounted.mkdir()
    with backing.open("wb") as file:
        file.truncate(64 * _MIB)
    options = ["-q", "-F", "-b", "4096", "-N", "256", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=0"]
    subprocess.run([need("mkfs.ext4"), *options, backing], check=True, timeout=60)
    done = subprocess.run(["mount", "-o", "loop", backing, mounted], capture_output=True, text=True, check=False)
    if done.returncode:
        absent(f"no file system can be mounted here: {done.stderr[-200:]}")
    try:
        yield BadDisk(backing, mounted)
    finally:
        subprocess.run(["umount", mounted], check=True, timeout=60)
