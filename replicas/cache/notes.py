"""What is known of a file, noted on the file itself: extended attributes, which a rename takes along.

    user.replicas         which bytes these are: digest, size, mtime, and when they were last read
    user.replicas.for     of a partial file: which image's bytes they are to be
    user.replicas.pinned  never evicted
    user.replicas.fault   it could not be read: when that was tried last, and what the system said

chmod and chown change none of them, and make none. What is said of the bytes holds only for the size and the mtime it
names: whoever writes to a file takes it back. Only root and processes of our own user can write a note.

Where the file system has no user attributes (ramfs, tmpfs before Linux 6.6, NFS before 4.2) the same lines are in files
beside, by the image's id, and hold by the same size and mtime. Weaker there: a copy of the directory that leaves out
the hidden folder knows nothing of its files, and a file put in the place of another with the same size and the same
mtime, to the nanosecond, is taken for it.
"""

import contextlib
import errno
import os
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ..crash_points import crash_points
from ..disk import ownership
from ..model import Digest

READ, FOR, PINNED, FAULT = "", ".for", ".pinned", ".fault"
_ATTRIBUTE = "user.replicas"
_FORM = "1"  # of the line; another one is a later version's, and says nothing to us
_NO_NOTE = (errno.ENODATA, errno.ENOENT)
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENOSYS)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 3  # two processes that open a file to their notes at once may close it to each other


@dataclass(frozen=True)
class KnownDigest:
    """A digest that all bytes of a file had when they were read; times in seconds since the epoch."""

    digest: Digest
    size: int
    mtime_ns: int
    read_at: float

    def holds(self, facts: os.stat_result) -> bool:
        """Whether nobody wrote to the file since."""
        return (facts.st_size, facts.st_mtime_ns) == (self.size, self.mtime_ns)

    def __str__(self) -> str:
        return f"{_FORM} {label(self.digest, self.size)} {self.mtime_ns} {self.read_at:.3f}"


def label(digest: Digest, size: int) -> str:
    """The name of these bytes."""
    return f"{digest.algorithm}:{digest.value} {size}"


def parse(text: str | None) -> KnownDigest | None:
    """What a line says; None when it is of another form."""
    try:
        form, name, size, mtime_ns, read_at = (text or "").split(" ")
        algorithm, value = name.split(":")
        known = KnownDigest(Digest(algorithm, value), int(size), int(mtime_ns), float(read_at))
    except ValueError:
        return None
    return known if form == _FORM else None


class Notes:
    """Of the files of one directory; `beside` is the folder for what a file system cannot keep. Raises OSError."""

    def __init__(self, beside: Path) -> None:
        self._beside = beside

    def get(self, file: int | Path, image_id: str, key: str) -> str | None:
        """The note on an open file, or on the file at a path; None: there is none."""
        try:
            return os.getxattr(file, _ATTRIBUTE + key).decode("ascii", "replace")
        except OSError as error:
            if error.errno in _NO_NOTE:
                return None
            if error.errno not in _NO_ATTRIBUTES:
                raise
        try:
            return (self._beside / f"{image_id}{key}").read_text("ascii", "replace")
        except FileNotFoundError:
            return None

    def set(self, fd: int, image_id: str, key: str, text: str | None) -> None:
        """The note says this; None: there is none. Killed anywhere it is the old one or the new one."""
        try:
            self._set_attribute(fd, _ATTRIBUTE + key, text)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
            self._set_beside(self._beside / f"{image_id}{key}", text)

    @crash_points
    def mark_read(self, fd: int, image_id: str, digest: Digest | None, facts: os.stat_result) -> None:
        """All bytes of the open file were read just now, and have this digest; whatever fault it had is over."""
        if digest is not None:
            known = KnownDigest(digest, facts.st_size, facts.st_mtime_ns, time.time())
            self.set(fd, image_id, READ, str(known))
            self.set(fd, image_id, FAULT, None)

    def forget(self, image_id: str) -> None:
        """What was noted beside of a file that is gone or about to go; nothing of it holds for the next one."""
        for key in (READ, FOR, PINNED, FAULT):
            (self._beside / f"{image_id}{key}").unlink(missing_ok=True)

    def _set_attribute(self, fd: int, name: str, text: str | None) -> None:
        """Linux asks for the right to write the file, which the mode of a complete one denies its own owner."""
        for left in reversed(range(_TRIES)):
            try:
                _change(fd, name, text)
            except PermissionError:
                mode = stat.S_IMODE(os.fstat(fd).st_mode)
                os.fchmod(fd, mode | stat.S_IWUSR)
                try:
                    with contextlib.nullcontext() if not left else contextlib.suppress(PermissionError):
                        _change(fd, name, text)
                        return
                finally:
                    os.fchmod(fd, mode & ~stat.S_IWUSR)
            else:
                return

    @staticmethod
    def _set_beside(path: Path, text: str | None) -> None:
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        ownership.give(path.parent, path.parent.parent)
        new = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        with open(os.open(new, _NEW, 0o640), "w", encoding="ascii") as file:
            file.write(text)
        ownership.give(new, path.parent)
        os.replace(new, path)


def _change(fd: int, name: str, text: str | None) -> None:
    if text is not None:
        os.setxattr(fd, name, text.encode())
        return
    try:
        os.removexattr(fd, name)
    except OSError as error:
        if error.errno not in _NO_NOTE:
            raise
