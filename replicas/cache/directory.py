"""The directory of one host. Its files are the truth: there is no index to lose.

    <image_id>             complete; a note on the file says which bytes we read there, none: nobody of us did yet
    invalid/<image_id>     every byte arrived and the digest was wrong; kept a while as evidence
    queue/<image_id>       a request to fill
    incomplete/<image_id>  what Glance's own cache or version 0.1 left half written (`clear_incomplete`)
    .glance-replicas/      ours alone: Glance's drivers, its cleaner and its pruner look into the four above only
        partial/<image_id> growing; locked (flock) by the one process that fills it; a note says what is to come
        known/             the notes, where the file system cannot keep them on the files (`notes`)
        space, janitor     locks
        client-fills       locks of the places that fills of clients take (`places`)
        since              the moment this directory became ours
        server             what the WSGI server was started with
        doubts             images that the catalogue has not known lately

All that is known of a file is on its inode, so that a rename carries it: size, notes (what was read, pinned), mtime
(when written), atime (when used). Its mode says nothing. A kill -9 at any line leaves one of these states, each of
which the next start understands: a growing file without a lock is taken over, a complete one without a row is
registered.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from .. import ownership
from ..crash_points import crash_points
from ..errors import CacheError, Unreadable
from ..model import Digest, Image, is_image_id
from .entry import STICKY, Copy, Entry, entry, purpose
from .notes import FAULT, FOR, PINNED, READ, Known, Notes, parse
from .partial_file import Growing, is_awaited, try_lock

log = logging.getLogger(__name__)

COMPLETE = 0o440  # the mode of a file once it is in its place: against accidents, it says nothing
_READABLE = 0o640  # a web server in our group may send it
OWN = ".glance-replicas"
_STOCK = ("incomplete", "invalid", "queue")
_FOLDERS = {"": "", "incomplete": "incomplete", "invalid": "invalid", "queue": "queue", "partial": f"{OWN}/partial"}
_BEFORE = {"since": ".replicas"}  # names of version 0.1, which `DELETE /v2/cache` removes
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN, errno.ESTALE)  # as the system says of a file
_TOUCH_SECONDS = 60.0  # the last use is written at most this often


class Cache:
    """What one host keeps. Every method may be called from many threads and processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._notes = Notes(self.own("known"))

    def prepare(self) -> None:
        """The folders exist. Raises CacheError."""
        with self.errors("prepare"):
            self.folder.mkdir(mode=0o750, exist_ok=True, parents=True)
            for name, mode in (*((one, 0o750) for one in _STOCK), (OWN, 0o700), (_FOLDERS["partial"], 0o700)):
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

    def partial(self, image_id: str) -> Path:
        """Where the growing file of an image is or would be."""
        return self.folder / _FOLDERS["partial"] / image_id

    def path(self, image_id: str) -> Path:
        """Where the complete file of an image is or would be."""
        if not is_image_id(image_id):
            raise ValueError(f"{image_id!r} is no image id")
        return self.folder / image_id

    def exists(self, image_id: str) -> bool:
        """Whether there is a complete file, verified or not. Raises CacheError when that cannot be known."""
        return self._is_file(image_id, self.path(image_id))

    def _is_file(self, image_id: str, path: Path) -> bool:
        with self.errors(image_id), contextlib.suppress(FileNotFoundError):
            return stat.S_ISREG(os.lstat(path).st_mode)
        return False

    def open(self, image_id: str) -> Copy | None:
        """The complete file, verified or not (the caller looks), or None. Raises CacheError, its child Unreadable."""
        with self.errors(image_id):
            fd = self._open(self.path(image_id))
            if fd is None:
                return None
            try_lock(fd, fcntl.LOCK_SH)  # taken or not, the open file stays readable
            return self._copy(fd, image_id)

    def entries(self) -> Iterator[Entry]:
        """Every complete file, in no order. Names that are no image id are left alone. Raises CacheError."""
        user = self.user()
        groups = user.groups
        with self.errors("list"), os.scandir(self.folder) as found:
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

    def _listed(self, path: Path, facts: os.stat_result) -> Entry:
        """One whose notes cannot be read cannot be read itself: it is none the less there."""
        try:
            return self._entry(path, path.name, facts)
        except FileNotFoundError:
            raise
        except OSError as error:
            return replace(entry(path.name, facts), readable=False, fault=error.strerror or str(error))

    @crash_points
    def begin(self, image: Image) -> Growing | None:
        """The growing file of an image, ours alone to write, with what an earlier filler left; None: another fills.

        Also None when there is a complete file by now. What was left of another image with this id goes (OSSN-0075).
        Raises CacheError.
        """
        with self.errors(image.id):
            while not self.path(image.id).exists():
                growing = Growing.lock(self.partial(image.id), image.size or 0)
                if growing is None:
                    return None
                try:
                    if not self.path(image.id).exists() and self._is_for(growing, image):
                        self._notes.set(growing.fd, image.id, FOR, purpose(image))
                        return growing
                except BaseException:  # no crash test: a fault; its lock must not outlive this call
                    growing.give_up()
                    raise
                growing.discard()
            return None

    def _is_for(self, growing: Growing, image: Image) -> bool:
        """Whether what is there by now, if anything, is of this image. Killed after the note: nothing is there."""
        return not growing.length or self._notes.get(growing.fd, image.id, FOR) == purpose(image)

    def follow(self, image: Image) -> int | None:
        """A file descriptor on the growing file of an image, or None when nobody fills it. Raises CacheError."""
        with self.errors(image.id):
            fd = self._open(self.partial(image.id))
            if fd is None:
                return None
            try:
                if self._notes.get(fd, image.id, FOR) == purpose(image):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            return None

    def is_filled(self, image_id: str, *, alone: bool = False) -> bool:
        """Whether somebody writes to the growing file of an image, with `alone` and no reader waits for it.

        Raises CacheError.
        """
        with self.errors(image_id):
            fd = self._open(self.partial(image_id))
            if fd is None:
                return False
            try:
                return not try_lock(fd, fcntl.LOCK_SH) and not (alone and is_awaited(fd))
            finally:
                os.close(fd)

    def drop_left(self, image_id: str) -> int:
        """The growing file of an image is gone, unless somebody fills it; bytes of the disk freed.

        Raises CacheError.
        """
        with self.errors(image_id):
            growing = Growing.lock(self.partial(image_id), 1 << 62)
            if growing is None:
                return 0
            freed = growing.held
            growing.discard()
        log.info("image %s: growing file without a filler removed, %d bytes", image_id, freed)
        return freed

    def fate(self, image_id: str, fd: int) -> str:
        """What became of the growing file behind `fd`: `growing`, `complete`, `invalid` or `gone`."""
        places = {
            "growing": self.partial(image_id),
            "complete": self.path(image_id),
            "invalid": self.folder / "invalid" / image_id,
        }
        for name, place in places.items():
            try:
                if os.path.samestat(os.fstat(fd), os.lstat(place)):
                    return name
            except FileNotFoundError:
                continue
        return "gone"

    @crash_points
    def commit(self, growing: Growing, image: Image) -> None:
        """The growing file is the image's complete file, on disk, verified. Raises CacheError, and then it is gone.

        The note comes after the bytes are on disk and before the name. Killed before the rename: a growing file that
        the next filler takes over, and reads. After it: a complete file, verified, whatever its mode is.
        """
        with self.errors(image.id):
            try:
                os.fsync(growing.fd)
            except OSError:  # no crash test: the disk fails
                growing.discard()  # a second fsync would succeed, whatever is on the disk
                raise
            growing.confirm(growing.size)
            self._note(growing.fd, image.id, image.digest, os.fstat(growing.fd))
            os.fchmod(growing.fd, _READABLE)  # before it can be found
            os.rename(growing.path, self.path(image.id))
            os.fchmod(growing.fd, COMPLETE)
            self._sync(self.folder)
            growing.close()

    @crash_points
    def condemn(self, growing: Growing, image_id: str) -> None:
        """The growing file is known to be wrong: followers see it in `invalid/` and break off. Raises CacheError."""
        with self.errors(image_id):
            os.ftruncate(growing.fd, growing.length)  # what was reserved beyond its end is free again
            os.rename(growing.path, self.folder / "invalid" / image_id)
            growing.close()

    @crash_points
    def mark_verified(self, image: Image, copy: Copy) -> bool:
        """The open file was hashed just now, and agreed; False: somebody wrote to it meanwhile. Raises CacheError.

        Its bytes are on disk before the note is: the stock cache, which may have written them, does not see to that.
        """
        with self.errors(image.id):
            os.fsync(copy.fd)
            facts = os.fstat(copy.fd)
            if (facts.st_size, facts.st_mtime_ns) != (copy.facts.st_size, copy.facts.st_mtime_ns):
                return False
            self._note(copy.fd, image.id, image.digest, facts)
            return True

    @crash_points
    def _note(self, fd: int, image_id: str, digest: Digest | None, facts: os.stat_result) -> None:
        if digest is not None:
            known = Known(digest, facts.st_size, facts.st_mtime_ns, time.time())
            self._notes.set(fd, image_id, READ, str(known))
            self._notes.set(fd, image_id, FAULT, None)

    def withhold(self, image_id: str, fd: int, error: Unreadable) -> None:
        """The complete file behind `fd` could not be read: it is kept and serves nobody until somebody can.

        Nothing is noted of a growing one. Raises CacheError.
        """
        with self.errors(image_id), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.lstat(self.path(image_id))):
                why = str(error).encode("ascii", "replace").decode()
                self._notes.set(fd, image_id, FAULT, f"{int(time.time())} {why}")

    def used(self, image_id: str) -> None:
        """Bytes of the image were sent to somebody who asked for them: its file goes later than others."""
        try:
            facts = os.lstat(self.path(image_id))
            if time.time() - facts.st_atime > _TOUCH_SECONDS:
                os.utime(self.path(image_id), ns=(time.time_ns(), facts.st_mtime_ns), follow_symlinks=False)
        except OSError as error:  # the order of eviction suffers, nothing else
            log.debug("image %s: its last use cannot be noted: %s", image_id, error)

    @crash_points
    def pin(self, image_id: str, pinned: bool) -> bool:
        """The complete file stays whatever space is needed, or no longer does; False: there is none.

        Raises CacheError.
        """
        copy = self.hold(image_id)
        if copy is None:
            return False
        with closing(copy), self.errors(image_id):
            if copy.entry.pinned != pinned:
                self._notes.set(copy.fd, image_id, PINNED, "1" if pinned else None)
                mode = stat.S_IMODE(os.fstat(copy.fd).st_mode)
                if mode & STICKY:
                    os.fchmod(copy.fd, mode & ~STICKY)
        return True

    @crash_points
    def remove(self, image_id: str) -> int:
        """Nothing complete is kept of an image; bytes freed. Its registration must be gone already (promise 1).

        A fill in progress goes on: it has followers, and its registration will be refused if the image is gone.
        """
        with self.errors(image_id):
            places = (self.path(image_id), *(self.folder / name / image_id for name in ("invalid", "queue")))
            freed = sum(self._unlink(place) for place in places)
            self._notes.forget(image_id)
            self._sync(self.folder)
        return freed

    @crash_points
    def set_aside(self, image_id: str, copy: Copy) -> None:
        """The complete file, which turned out wrong, goes to `invalid/`; not one that took its place meanwhile."""
        with self.errors(image_id):
            try:
                if os.path.samestat(os.fstat(copy.fd), os.lstat(self.path(image_id))):
                    os.rename(self.path(image_id), self.folder / "invalid" / image_id)
            except FileNotFoundError:
                return
            self._sync(self.folder)

    def enqueue(self, image_id: str) -> None:
        """The image is to be fetched in the background. Raises CacheError."""
        with self.errors(image_id):
            (self.folder / "queue" / image_id).touch(0o640)

    def is_queued(self, image_id: str) -> bool:
        """Whether there is a name for it in `queue/`. Raises CacheError when that cannot be known."""
        return self._is_file(image_id, self.folder / "queue" / image_id)

    @crash_points
    def remove_copy(self, image_id: str, copy: Copy) -> int:
        """The complete file is gone, unless another took its place meanwhile; bytes freed.

        Its registration must be gone already.
        """
        with self.errors(image_id), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(copy.fd), os.lstat(self.path(image_id))):
                self._notes.forget(image_id)
                os.unlink(self.path(image_id))
                return copy.entry.size
        return 0

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
        """Remove one name from a folder; bytes freed. Not the complete file: `remove`. Raises CacheError."""
        with self.errors(image_id):
            return self._unlink(self.folder / _FOLDERS[folder] / image_id)

    def clear_incomplete(self, idle_seconds: float) -> list[tuple[str, int]]:
        """What version 0.1 or Glance's own cache left in `incomplete/` goes; image ids and bytes freed.

        Only what nobody wrote to for so long, and no filler of version 0.1 has locked. Raises CacheError.
        """
        found = []
        for image_id, facts in self.listed("incomplete"):
            path = self.folder / "incomplete" / image_id
            with self.errors(image_id):
                fd = self._open(path) if time.time() - facts.st_mtime > idle_seconds else None
                if fd is None:
                    continue
                try:
                    if try_lock(fd, fcntl.LOCK_EX):
                        found.append((image_id, self._unlink(path)))
                finally:
                    os.close(fd)
        return found

    @staticmethod
    def _open(path: Path) -> int | None:
        """None when there is no such regular file; a symbolic link is not followed."""
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

    @staticmethod
    def _unlink(path: Path) -> int:
        try:
            size = os.lstat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    @staticmethod
    def _sync(folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def hold(self, image_id: str) -> Copy | None:
        """The complete file, kept from eviction until closed; None when it is gone or going. Raises CacheError."""
        with self.errors(image_id):
            fd = self._open(self.path(image_id))
            if fd is None:
                return None
            if try_lock(fd, fcntl.LOCK_SH) and os.fstat(fd).st_nlink:
                return self._copy(fd, image_id)
            os.close(fd)
            return None

    @crash_points
    def take(self, image_id: str) -> Copy | None:
        """The complete file while nobody reads it, or None; nobody evicts it at the same time. Raises CacheError.

        Also None when it cannot be opened: nobody knows whether it is read.
        """
        with self.errors(image_id):
            try:
                fd = self._open(self.path(image_id))
            except PermissionError:
                return None
            if fd is None:
                return None
            if try_lock(fd, fcntl.LOCK_EX):
                return self._copy(fd, image_id)
            os.close(fd)  # no crash test: somebody reads it
            return None

    def _copy(self, fd: int, image_id: str) -> Copy:
        try:
            facts = os.fstat(fd)
            return Copy(fd, self._entry(fd, image_id, facts), facts)
        except BaseException:
            os.close(fd)
            raise

    def _entry(self, file: int | Path, image_id: str, facts: os.stat_result) -> Entry:
        known = parse(self._notes.get(file, image_id, READ))
        pinned = self._notes.get(file, image_id, PINNED) is not None
        return entry(image_id, facts, known, pinned, self._notes.get(file, image_id, FAULT))

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


def _without_atime(path: Path, flags: int) -> int:
    """Opened so that reading is no use: `Cache.used` says what is. Somebody else's file does not let us."""
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)
