"""What may go wrong with a path of the faulty server, the bytes it serves, and the record of a request."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Faults:
    """What goes wrong with one path; the default is nothing."""

    rate: int | None = None  # bytes per second, for each connection
    drip: float | None = None  # seconds for each byte
    truncate_at: int | None = None  # close early, though Content-Length says more
    reset_at: int | None = None  # RST instead of the byte at this offset
    stall_at: int | None = None  # say nothing more from this offset on; changing it back lets the body go on
    stall_before_headers: bool = False
    no_length: bool = False  # the body ends with the connection
    chunked: bool = False  # truncated, it lacks the last chunk
    wrong_length: int | None = None  # this Content-Length, with the body as it is
    longer: int = 0  # so many zero bytes more, and a Content-Length that agrees
    flip_at: int | None = None  # this byte has all bits inverted
    zeros: bool | tuple[int, int] = False  # everything, or the bytes from start up to end, are zero
    status: int | None = None  # this status with a short text
    retry_after: int | str | None = None  # with `status`
    redirect_to: str | None = None  # 302, or `status`
    html: bool = False  # 200 and a login page
    gzip: bool = False  # Content-Encoding: gzip, whatever the client accepts
    ignore_range: bool = False  # 200 and everything
    wrong_content_range: bool | str = False  # starts one byte later than asked; or this text; "": no such header
    short_range: int | None = None  # a 206 has so many bytes at most, and says so
    etag: str | None = None  # instead of the md5 in quotes; "": no such header
    head_status: int | None = None  # HEAD only
    head_length: int | None = None  # HEAD only
    fail_times: int | None = None  # the faults above (none: status 500) hold for so many GETs, then all is well


@dataclass(frozen=True)
class Request:
    """One request as it was answered."""

    method: str
    range: str | None
    sent: int  # bytes of body, so far
    headers: Mapping[str, str]
    target: str  # path with query
    status: int | None  # None: no answer yet


@dataclass
class Blob:
    """The bytes under a path, their faults, and the GETs so far."""

    data: bytes | Path
    faults: Faults
    reads: int = 0
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.data, bytes):
            digest = hashlib.md5(self.data)
        else:
            with self.data.open("rb") as file:
                digest = hashlib.file_digest(file, "md5")
        self.etag = f'"{digest.hexdigest()}"'

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    def read(self, start: int, end: int, faults: Faults) -> bytes:
        """The bytes from `start` up to `end` as these faults have them; past the blob they are zero."""
        if isinstance(self.data, bytes):
            piece = self.data[start:end]
        else:
            with self.data.open("rb") as file:
                file.seek(start)
                piece = file.read(end - start)
        return _damage(piece.ljust(end - start, b"\0"), start, faults)


def _damage(piece: bytes, start: int, faults: Faults) -> bytes:
    changed = bytearray(piece)
    if faults.flip_at is not None and 0 <= faults.flip_at - start < len(changed):
        changed[faults.flip_at - start] ^= 0xFF
    if faults.zeros is True:
        return bytes(len(piece))
    if faults.zeros:
        first, last = (min(max(edge - start, 0), len(changed)) for edge in faults.zeros)
        changed[first:last] = bytes(max(last - first, 0))
    return bytes(changed)
