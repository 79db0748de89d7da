"""The file of a download in progress: hidden beside its target, and under the target's name only when it is good."""

import contextlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from .. import checksum
from ..disk.folder_sync import sync_folder
from ..errors import ConfigError, ReplicaError, WrongAnswer
from ..model import Digest


class TargetError(ReplicaError):
    """The file could not be written (full, read-only, I/O error); nothing is left of it."""


class Part:
    """`.NAME.XXXXXXXX.part`, a name no other process uses; removed on leaving the context unless committed.

    `size` is what the image must have, None when that is not known; `offset` what is there, in bytes.
    """

    def __init__(self, target: Path, algorithm: str | None, size: int | None) -> None:
        self.target, self.size, self.offset = target, size, 0
        self._algorithm = algorithm
        self._hash = checksum.start(algorithm) if algorithm else None
        if not target.name or target.is_dir():
            raise ConfigError(f"{target} is a folder; name the file to write")
        if target.exists() and not target.is_file():
            raise ConfigError(f"{target} is not a regular file; name another one")
        self.path = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
        self._file = self._create()
        try:
            self._has_room()
        except BaseException:
            self.discard()
            raise

    def add(self, chunk: bytes) -> None:
        """Append; more than the image has is refused and not written (WrongAnswer)."""
        if self.size is not None and self.offset + len(chunk) > self.size:
            raise WrongAnswer(f"it sends more than the image's {self.size} bytes")
        try:
            self._file.write(chunk)
        except OSError as error:
            raise self._failed(error) from error
        if self._hash:
            self._hash.update(chunk)
        self.offset += len(chunk)

    def agrees(self, digest: Digest) -> bool:
        """Whether everything added hashes to this."""
        return self._hash is not None and checksum.agrees(digest, self._hash.hexdigest())

    def restart(self) -> None:
        """Nothing has been added."""
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise self._failed(error) from error
        self.offset = 0
        self._hash = checksum.start(self._algorithm) if self._algorithm else None

    def fingerprint(self, start: int, end: int) -> str:
        """A digest of the bytes from `start` up to `end`, to compare with those of another try."""
        running = checksum.start("sha256")
        try:
            self._file.seek(start)
            while start < end and (block := self._file.read(min(checksum.BLOCK, end - start))):
                running.update(block)
                start += len(block)
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._failed(error) from error
        return running.hexdigest()

    def commit(self) -> None:
        """The bytes are on disk under the target's name, in place of what was there."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self.path.replace(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise self._failed(error) from error

    def discard(self) -> None:
        """Nothing of it is left; after `commit` this does nothing."""
        with contextlib.suppress(OSError):  # close writes what is buffered, and a full disk says so again
            self._file.close()
        self.path.unlink(missing_ok=True)

    def _create(self) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.fdopen(os.open(self.path, flags, 0o666), "w+b")  # the umask decides, as for any new file
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(f"{self.target.parent} is no folder; make it first") from error
        except OSError as error:
            raise self._failed(error) from error

    def _has_room(self) -> None:
        """A file that cannot fit is not begun."""
        place = os.statvfs(self.target.parent)
        free = place.f_bavail * place.f_frsize
        if self.size is not None and self.size > free:
            text = f"{self.target}: the image has {self.size} bytes and {self.target.parent} has {free} free"
            raise TargetError(f"{text}; make room or name another folder")

    def _failed(self, error: OSError) -> TargetError:
        return TargetError(f"{self.target} could not be written: {error.strerror or error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
