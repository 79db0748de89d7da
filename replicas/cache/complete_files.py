"""The complete files of a host's directory: open, verified, pinned, used, removed.

A file is known by its inode and the notes on it (`entry`). Who has one open protects it from eviction by a lock that
the kernel frees.
"""

import contextlib
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ..crash_points import crash_points
from ..disk import ownership
from ..disk.folder_sync import sync_folder
from ..errors import Unreadable
from ..model import Image, is_image_id
from .cached_file import STICKY, CachedFile, OpenFile, entry
from .directory import Directory
from .notes import FAULT, PINNED, READ, parse
from .partial_file import try_lock
from .regular_file import is_regular, open_regular, unlink

log = logging.getLogger(__name__)

_TOUCH_SECONDS = 60.0  # the last use is written at most this often


class CompleteFiles:
    """Those of one directory. Every method may be called from many threads and processes at once."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def exists(self, image_id: str) -> bool:
        """Whether there is a complete file, verified or not. Raises CacheError when that cannot be known."""
        path = self._directory.path(image_id)
        with self._directory.errors(image_id):
            return is_regular(path)

    def open(self, image_id: str) -> OpenFile | None:
        """The complete file, verified or not (the caller looks), or None. Raises CacheError, its child Unreadable."""
        with self._directory.errors(image_id):
            fd = open_regular(self._directory.path(image_id))
            if fd is None:
                return None
            try_lock(fd, fcntl.LOCK_SH)  # taken or not, the open file stays readable
            return self._copy(fd, image_id)

    def hold(self, image_id: str) -> OpenFile | None:
        """The complete file, kept from eviction until closed; None when it is gone or going. Raises CacheError."""
        with self._directory.errors(image_id):
            fd = open_regular(self._directory.path(image_id))
            if fd is None:
                return None
            if try_lock(fd, fcntl.LOCK_SH) and os.fstat(fd).st_nlink:
                return self._copy(fd, image_id)
            os.close(fd)
            return None

    @crash_points
    def take(self, image_id: str) -> OpenFile | None:
        """The complete file while nobody reads it, or None; nobody evicts it at the same time. Raises CacheError.

        Also None when it cannot be opened: nobody knows whether it is read.
        """
        with self._directory.errors(image_id):
            try:
                fd = open_regular(self._directory.path(image_id))
            except PermissionError:
                return None
            if fd is None:
                return None
            if try_lock(fd, fcntl.LOCK_EX):
                return self._copy(fd, image_id)
            os.close(fd)  # no crash test: somebody reads it
            return None

    def entries(self) -> Iterator[CachedFile]:
        """Every complete file, in no order. Names that are no image id are left alone. Raises CacheError."""
        user = self._directory.user()
        groups = user.groups
        with self._directory.errors("list"), os.scandir(self._directory.folder) as found:
            for item in found:
                if is_image_id(item.name) and item.is_file(follow_symlinks=False):
                    try:
                        facts = item.stat(follow_symlinks=False)
                        if ownership.may_read(facts, user, groups):
                            yield self._listed(Path(item.path), facts)
                        else:
                            yield replace(entry(item.name, facts), readable=False)
                    except FileNotFoundError:
                        continue

    def _listed(self, path: Path, facts: os.stat_result) -> CachedFile:
        """One whose notes cannot be read cannot be read itself: it is none the less there."""
        try:
            return self._entry(path, path.name, facts)
        except FileNotFoundError:
            raise
        except OSError as error:
            return replace(entry(path.name, facts), readable=False, fault=error.strerror or str(error))

    @crash_points
    def mark_verified(self, image: Image, copy: OpenFile) -> bool:
        """The open file was hashed just now, and agreed; False: somebody wrote to it meanwhile. Raises CacheError.

        Its bytes are on disk before the note is: the stock cache, which may have written them, does not see to that.
        """
        with self._directory.errors(image.id):
            os.fsync(copy.fd)
            facts = os.fstat(copy.fd)
            if (facts.st_size, facts.st_mtime_ns) != (copy.facts.st_size, copy.facts.st_mtime_ns):
                return False
            self._directory.notes.mark_read(copy.fd, image.id, image.digest, facts)
            return True

    def withhold(self, image_id: str, fd: int, error: Unreadable) -> None:
        """The complete file behind `fd` could not be read: it is kept and serves nobody until somebody can.

        Nothing is noted of a partial one. Raises CacheError.
        """
        with self._directory.errors(image_id), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.lstat(self._directory.path(image_id))):
                why = str(error).encode("ascii", "replace").decode()
                self._directory.notes.set(fd, image_id, FAULT, f"{int(time.time())} {why}")

    def used(self, image_id: str) -> None:
        """Bytes of the image were sent to somebody who asked for them: its file goes later than others."""
        try:
            path = self._directory.path(image_id)
            facts = os.lstat(path)
            if time.time() - facts.st_atime > _TOUCH_SECONDS:
                os.utime(path, ns=(time.time_ns(), facts.st_mtime_ns), follow_symlinks=False)
        except OSError as error:  # the order of eviction suffers, nothing else
            log.debug("image %s: its last use cannot be recorded: %s", image_id, error)

    @crash_points
    def pin(self, image_id: str, pinned: bool) -> bool:
        """The complete file stays whatever space is needed, or no longer does; False: there is none.

        Raises CacheError.
        """
        copy = self.hold(image_id)
        if copy is None:
            return False
        with closing(copy), self._directory.errors(image_id):
            if copy.entry.pinned != pinned:
                self._directory.notes.set(copy.fd, image_id, PINNED, "1" if pinned else None)
                mode = stat.S_IMODE(os.fstat(copy.fd).st_mode)
                if mode & STICKY:
                    os.fchmod(copy.fd, mode & ~STICKY)
        return True

    @crash_points
    def remove(self, image_id: str) -> int:
        """Nothing complete is kept of an image; bytes freed. Its registration must be gone already (promise 1).

        A fill in progress goes on: it has followers, and its registration will be refused if the image is gone.
        """
        with self._directory.errors(image_id):
            places = (
                self._directory.path(image_id),
                *(self._directory.folder / name / image_id for name in ("invalid", "queue")),
            )
            freed = sum(unlink(place) for place in places)
            self._directory.notes.forget(image_id)
            sync_folder(self._directory.folder)
        return freed

    @crash_points
    def set_aside(self, image_id: str, copy: OpenFile) -> None:
        """The complete file, which turned out wrong, goes to `invalid/`; not one that took its place meanwhile."""
        with self._directory.errors(image_id):
            try:
                if os.path.samestat(os.fstat(copy.fd), os.lstat(self._directory.path(image_id))):
                    os.rename(self._directory.path(image_id), self._directory.invalid_path(image_id))
            except FileNotFoundError:
                return
            sync_folder(self._directory.folder)

    @crash_points
    def remove_copy(self, image_id: str, copy: OpenFile) -> int:
        """The complete file is gone, unless another took its place meanwhile; bytes freed.

        Its registration must be gone already.
        """
        with self._directory.errors(image_id), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(copy.fd), os.lstat(self._directory.path(image_id))):
                self._directory.notes.forget(image_id)
                os.unlink(self._directory.path(image_id))
                return copy.entry.size
        return 0

    def _copy(self, fd: int, image_id: str) -> OpenFile:
        try:
            facts = os.fstat(fd)
            return OpenFile(fd, self._entry(fd, image_id, facts), facts)
        except BaseException:
            os.close(fd)
            raise

    def _entry(self, file: int | Path, image_id: str, facts: os.stat_result) -> CachedFile:
        known = parse(self._directory.notes.get(file, image_id, READ))
        pinned = self._directory.notes.get(file, image_id, PINNED) is not None
        return entry(image_id, facts, known, pinned, self._directory.notes.get(file, image_id, FAULT))
