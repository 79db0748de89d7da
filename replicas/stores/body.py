"""What every reader returns, and the limits every reader keeps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Limits:
    """How long a source may take, in seconds, and how slow it may be."""

    connect: float = 3.0
    stall: float = 30.0  # without a single byte
    slowest: int = 1024  # bytes per second; the slowest line an image is ever sent over is far above this


class Body:
    """The bytes of one location from an offset on: iterate once, then close (or use as a context manager).

    Chunks are non-empty and at most `checksum.BLOCK` long, in order. `size` is the length of the whole object in bytes
    as the place states it, None when it does not. Iterating raises the children of SourceError; a body that ends
    before `size` raises Unreachable, never stops quietly. `skips` bytes are read and dropped before the first chunk,
    where the place cannot begin at the offset.
    """

    def __init__(self, chunks: Iterator[bytes], size: int | None, close: Callable[[], None], skips: int = 0) -> None:
        self.size, self.skips = size, skips
        self._chunks = chunks
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Let go of the connection or file; may be called more than once."""
        self._close()

    def __enter__(self) -> "Body":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
