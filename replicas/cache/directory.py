"""The directory of one host. Its files are the truth: there is no index to lose.

    <image_id>             complete; a note on the file says which bytes we read there, none: nobody of us did yet
    invalid/<image_id>     every byte arrived and the digest was wrong; kept a while as evidence
    queue/<image_id>       a request to fill
    incomplete/<image_id>  what Glance's own cache or version 0.1 left half written (`incomplete`)
    .glance-replicas/      ours alone: Glance's drivers, its cleaner and its pruner look into the four above only
        partial/<image_id> not complete; locked (flock) by the one process that fills it; a note says what is to come
        known/             the notes, where the file system cannot keep them on the files (`notes`)
        space, janitor     locks
        client-fills       locks of the places that fills of clients take (`places`)
        since              the moment this directory became ours
        server             what the WSGI server was started with
        doubts             images that the catalogue has not known lately

All that is known of a file is on its inode, so that a rename carries it: size, notes (what was read, pinned), mtime
(when written), atime (when used). Its mode says nothing. A kill -9 at any line leaves one of these states, each of
which the next start understands: a partial file without a lock is taken over, a complete one without a row is
registered.
"""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..crash_points import crash_points
from ..disk import ownership
from ..errors import CacheError, Unreadable
from ..model import is_image_id
from .notes import Notes
from .regular_file import is_regular, unlink

OWN = ".glance-replicas"
_STOCK = ("incomplete", "invalid", "queue")
_FOLDERS = {"": "", "incomplete": "incomplete", "invalid": "invalid", "queue": "queue", "partial": f"{OWN}/partial"}
_BEFORE = {"since": ".replicas"}  # names of version 0.1, which `DELETE /v2/cache` removes
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN, errno.ESTALE)  # as the system says of a file


class Directory:
    """The names in one directory. Every method may be called from many threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = Notes(self.own("known"))
        self._place = functools.lru_cache(1024)(self._path)  # to make a path takes longer than to open the file

    def prepare(self) -> None:
        """The folders exist. Raises CacheError."""
        with self.errors("prepare"):
            self.folder.mkdir(mode=0o750, exist_ok=True, parents=True)
            for name, mode in (*((folder, 0o750) for folder in _STOCK), (OWN, 0o700), (_FOLDERS["partial"], 0o700)):
                if not (self.folder / name).is_dir():
                    (self.folder / name).mkdir(mode=mode, exist_ok=True)
                    ownership.give(self.folder / name, (self.folder / name).parent)
            for name, before in _BEFORE.items():
                if not self.own(name).exists():
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(self.folder / before, self.own(name))

    def own(self, name: str) -> Path:
        """Where a file that nobody but us uses is or would be: a lock, a mark."""
        return self.folder / OWN / name

    def open_own(self, name: str, flags: int = 0) -> int:
        """A descriptor on such a file, made if there was none, and then the directory's owner's. Raises OSError.

        No symbolic link is followed: the directory's owner may have put one there for a program that root runs.
        """
        fd = os.open(self.own(name), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o640)
        ownership.give(fd, self.folder / OWN)
        return fd

    def user(self) -> ownership.User:
        """Who uses the directory: the user that runs this, or for root the directory's owner. Raises CacheError."""
        with self.errors("owner"):
            return ownership.current() or ownership.user_of(self.folder, OWN, *_STOCK) or ownership.ROOT

    def _path(self, folder: str, image_id: str) -> Path:
        return self.folder / folder / image_id

    def partial_path(self, image_id: str) -> Path:
        """Where the partial file of an image is or would be."""
        return self._place(_FOLDERS["partial"], image_id)

    def path(self, image_id: str) -> Path:
        """Where the complete file of an image is or would be."""
        if not is_image_id(image_id):
            raise ValueError(f"{image_id!r} is not an image id")
        return self._place("", image_id)

    def invalid_path(self, image_id: str) -> Path:
        """Where a file of an image is or would be that turned out wrong."""
        return self._place("invalid", image_id)

    def listed(self, folder: str) -> list[tuple[str, os.stat_result]]:
        """The image ids in `partial`, `incomplete`, `invalid`, `queue` or "" (complete), with their facts.

        Raises CacheError.
        """
        found = []
        with self.errors(folder), os.scandir(self.folder / _FOLDERS[folder]) as items:
            for item in items:
                if is_image_id(item.name) and item.is_file(follow_symlinks=False):
                    try:
                        found.append((item.name, item.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue
        return found

    @crash_points
    def drop(self, folder: str, image_id: str) -> int:
        """Remove one name from a folder; bytes freed. Not the complete file. Raises CacheError."""
        with self.errors(image_id):
            return unlink(self.folder / _FOLDERS[folder] / image_id)

    def enqueue(self, image_id: str) -> None:
        """The image is to be fetched in the background. Raises CacheError."""
        with self.errors(image_id):
            (self.folder / "queue" / image_id).touch(0o640)

    def is_queued(self, image_id: str) -> bool:
        """Whether there is a name for it in `queue/`. Raises CacheError when that cannot be known."""
        with self.errors(image_id):
            return is_regular(self.folder / "queue" / image_id)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Inside, a fault of the file system is a CacheError that names the directory and `what`.

        Of one that may be a single file's it is the child Unreadable.
        """
        try:
            yield
        except OSError as error:
            kind = Unreadable if error.errno in _UNREADABLE else CacheError
            raise kind(f"cache directory {self.folder} ({what}): {error.strerror or error}") from error
