"""Reader of file URLs, within the folders of this host's file stores and nowhere else."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import urlparse

from ...checksum import PIECE
from ...disk import uncached_read
from ...errors import Absent, Denied, Unreachable, Unsupported, WrongAnswer
from ...location import redact
from ..body import Body
from . import access

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNMOUNTED = frozenset({"lost+found"})  # what a folder may hold that has lost its images all the same


class Reader:
    """Reads regular files below `roots`. No symbolic link is followed on the way down from a root.

    A file that is not there is Absent only when its root is healthy: there, readable and not empty. The root of an
    unmounted file system is an empty folder, and everything in it would otherwise be missing at once. A read of a
    dead network file system cannot be cut short: the caller waits as long as the kernel does. `from_disk`: what is
    read is what the disk has, for a verification.
    """

    schemes = ("file", "filesystem")
    store = None

    def __init__(self, roots: Sequence[Path], *, from_disk: bool = False) -> None:
        self._roots = tuple(roots)
        self._chunks = _disk_chunks if from_disk else _chunks

    def size(self, url: str) -> int | None:
        """The length of the file in bytes; it was opened for reading to get it."""
        with self._file(url) as file:
            return os.fstat(file.fileno()).st_size

    def open(self, url: str, offset: int = 0, _stop: int | None = None) -> Body:
        """The bytes from `offset` up to the size the file had when it was opened."""
        file = self._file(url)
        size = os.fstat(file.fileno()).st_size
        if offset > size:
            file.close()
            raise WrongAnswer(f"{redact(url)}: {size} bytes, shorter than the offset {offset}")
        return Body(self._chunks(file, redact(url), offset, size), size, file.close)

    def obstacle(self, url: str) -> str | None:
        """Why glance-api cannot read the file that could be read here; None: it can, as far as can be told."""
        root, steps = below(self._roots, url)
        return access.obstacle(root, steps)

    def _file(self, url: str) -> BinaryIO:
        root, steps = below(self._roots, url)
        try:
            descriptor = _descend(root, steps)
        except OSError as error:
            _refuse(url, root, error)
        except ValueError as error:  # a NUL in the path
            raise Denied(f"{redact(url)!r}: no path of a file store") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise WrongAnswer(f"{redact(url)}: not a regular file")
        return open(descriptor, "rb", buffering=0)


def below(roots: Sequence[Path], url: str) -> tuple[Path, tuple[str, ...]]:
    """The root that a URL's file is in, and the way down from there. Denied when it is in none of them.

    Links above the root may be spelled either way; whoever opens the file follows none below it (`folder`).
    """
    path = _path(url)
    with contextlib.suppress(ValueError):  # a NUL in the path
        real = Path(os.path.realpath(path.parent), path.name)
        for root in sorted(roots, key=lambda root: -len(root.parts)):
            real_root = Path(os.path.realpath(root))
            if real_root in real.parents and path.name not in ("", "..", "."):
                return real_root, real.relative_to(real_root).parts
    raise Denied(f"{str(path)!r}: outside the folders of the file stores")


def folder(root: Path, steps: Sequence[str]) -> int:
    """A descriptor (O_PATH) of a folder below `root`, the caller's to close.

    It is reached one folder at a time, so that no link put in between leads elsewhere. Raises OSError.
    """
    at = os.open(root, _FOLDER)
    try:
        for step in steps:
            inside = os.open(step, _FOLDER, dir_fd=at)
            os.close(at)
            at = inside
    except BaseException:
        os.close(at)
        raise
    return at


def _path(url: str) -> Path:
    """The path of a file URL as glance_store's filesystem driver has it: nothing is percent-decoded."""
    try:
        parts = urlparse(url)
    except ValueError as error:
        raise Unsupported("a file URL that cannot be parsed") from error
    path = Path((parts.netloc + parts.path).strip())
    if not path.is_absolute():
        raise Denied(f"{redact(url)!r}: no absolute path")
    return path


def _descend(root: Path, steps: tuple[str, ...]) -> int:
    """A descriptor of the file."""
    at = folder(root, steps[:-1])
    try:
        return os.open(steps[-1], _FILE, dir_fd=at)
    finally:
        os.close(at)


def _refuse(url: str, root: Path, error: OSError) -> NoReturn:
    shown = redact(url)
    text = f"{shown}: {(error.strerror or 'unreadable').lower()}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR):
        raise Denied(text) from error
    if error.errno != errno.ENOENT:
        raise Unreachable(text) from error
    try:
        with os.scandir(root) as entries:
            healthy = any(entry.name not in _UNMOUNTED for entry in entries)
    except OSError as broken:
        raise Unreachable(f"{shown}: {root}: {(broken.strerror or 'unreadable').lower()}") from broken
    if not healthy:
        raise Unreachable(f"{shown}: {root} is empty; is it mounted?") from error
    raise Absent(text) from error


def _disk_chunks(file: BinaryIO, shown: str, offset: int, size: int) -> Iterator[bytes]:
    """Past the page cache, which may hold what the disk has lost."""
    try:
        for piece in uncached_read.chunks(file.fileno(), offset, size):
            offset += len(piece)
            yield piece
    except OSError as error:
        raise Unreachable(f"{shown}: {(error.strerror or 'unreadable').lower()}") from error
    if offset < size:
        raise Unreachable(f"{shown}: cut off at {offset} of {size} bytes while it was read")


def _chunks(file: BinaryIO, shown: str, offset: int, size: int) -> Iterator[bytes]:
    try:
        file.seek(offset)
        while offset < size:
            piece = file.read(min(PIECE, size - offset))
            if not piece:
                raise Unreachable(f"{shown}: cut off at {offset} of {size} bytes while it was read")
            offset += len(piece)
            yield piece
    except OSError as error:
        raise Unreachable(f"{shown}: {(error.strerror or 'unreadable').lower()}") from error
