"""The partial files of a host's directory: begun by one, followed by many, and moved to where they end."""

import fcntl
import logging
import os

from ..crash_points import crash_points
from ..disk.folder_sync import sync_folder
from ..errors import CacheError
from ..model import Image
from .cached_file import purpose
from .directory import Directory
from .notes import FOR
from .partial_file import PartialFile, is_awaited, try_lock
from .regular_file import is_regular, open_regular

log = logging.getLogger(__name__)

COMPLETE = 0o440  # the mode of a file once it is in its place: against accidents, it says nothing
_READABLE = 0o640  # a web server in our group may send it


class PartialFiles:
    """Those of one directory. Every method may be called from many threads and processes at once."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    @crash_points
    def begin(self, image: Image) -> PartialFile | None:
        """The partial file of an image, ours alone to write, with what an earlier filler left; None: another fills.

        Also None when there is a complete file by now. What was left of another image with this id goes (OSSN-0075).
        Raises CacheError.
        """
        with self._directory.errors(image.id):
            while self._is_free(image.id):
                partial_file = PartialFile.lock(self._directory.partial_path(image.id), image.size or 0)
                if partial_file is None:
                    return None
                try:
                    if self._is_free(image.id) and self._is_for(partial_file, image):
                        self._directory.notes.set(partial_file.fd, image.id, FOR, purpose(image))
                        return partial_file
                except BaseException:  # no crash test: a fault; its lock must not outlive this call
                    partial_file.give_up()
                    raise
                partial_file.discard()
            return None

    def _is_free(self, image_id: str) -> bool:
        """Whether no complete file is there. Raises CacheError where something else has its name: nobody waits."""
        path = self._directory.path(image_id)
        if is_regular(path):
            return False
        if os.path.lexists(path):
            raise CacheError(f"{path} is not a regular file, so that no copy can be kept there; remove it")
        return True

    def _is_for(self, partial_file: PartialFile, image: Image) -> bool:
        """Whether what is there by now, if anything, is of this image. Killed after the note: nothing is there."""
        return not partial_file.length or self._directory.notes.get(partial_file.fd, image.id, FOR) == purpose(image)

    def follow(self, image: Image) -> int | None:
        """A file descriptor on the partial file of an image, or None when nobody fills it. Raises CacheError."""
        with self._directory.errors(image.id):
            fd = open_regular(self._directory.partial_path(image.id))
            if fd is None:
                return None
            try:
                if self._directory.notes.get(fd, image.id, FOR) == purpose(image):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            return None

    def is_filled(self, image_id: str, *, alone: bool = False) -> bool:
        """Whether somebody writes to the partial file of an image, with `alone` and no reader waits for it.

        Raises CacheError.
        """
        with self._directory.errors(image_id):
            fd = open_regular(self._directory.partial_path(image_id))
            if fd is None:
                return False
            try:
                return not try_lock(fd, fcntl.LOCK_SH) and not (alone and is_awaited(fd))
            finally:
                os.close(fd)

    def drop_left(self, image_id: str) -> int:
        """The partial file of an image is gone, unless somebody fills it; bytes of the disk freed.

        Raises CacheError.
        """
        with self._directory.errors(image_id):
            partial_file = PartialFile.lock(self._directory.partial_path(image_id), 1 << 62)
            if partial_file is None:
                return 0
            freed = partial_file.held
            partial_file.discard()
        log.info("image %s: partial file without a filler removed, %d bytes", image_id, freed)
        return freed

    def fate(self, image_id: str, fd: int) -> str:
        """What became of the partial file behind `fd`: `partial`, `complete`, `invalid` or `gone`."""
        places = {
            "partial": self._directory.partial_path(image_id),
            "complete": self._directory.path(image_id),
            "invalid": self._directory.invalid_path(image_id),
        }
        for name, place in places.items():
            try:
                if os.path.samestat(os.fstat(fd), os.lstat(place)):
                    return name
            except FileNotFoundError:
                continue
        return "gone"

    def is_condemned(self, image_id: str, fd: int) -> bool:
        """Whether the file behind `fd`, partial or complete, lies in `invalid/`: `fate`, for half its system calls."""
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self._directory.invalid_path(image_id)))
        except FileNotFoundError:
            return False

    @crash_points
    def commit(self, partial_file: PartialFile, image: Image) -> None:
        """The partial file is the image's complete file, on disk, verified. Raises CacheError, and then it is gone.

        The note comes after the bytes are on disk and before the name. Killed before the rename: a partial file that
        the next filler takes over, and reads. After it: a complete file, verified, whatever its mode is.
        """
        with self._directory.errors(image.id):
            try:
                os.fsync(partial_file.fd)
            except OSError:  # no crash test: the disk fails
                partial_file.discard()  # a second fsync would succeed, whatever is on the disk
                raise
            partial_file.confirm(partial_file.size)
            self._directory.notes.mark_read(partial_file.fd, image.id, image.digest, os.fstat(partial_file.fd))
            os.fchmod(partial_file.fd, _READABLE)  # before it can be found
            os.rename(partial_file.path, self._directory.path(image.id))
            os.fchmod(partial_file.fd, COMPLETE)
            sync_folder(self._directory.folder)
            partial_file.close()

    @crash_points
    def condemn(self, partial_file: PartialFile, image_id: str) -> None:
        """The partial file is known to be wrong: followers see it in `invalid/` and break off. Raises CacheError."""
        with self._directory.errors(image_id):
            os.ftruncate(partial_file.fd, partial_file.length)  # what was reserved beyond its end is free again
            os.rename(partial_file.path, self._directory.invalid_path(image_id))
            partial_file.close()
