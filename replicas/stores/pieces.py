"""A large object in pieces, and one stream cut into them. No I/O."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One segment as it ought to be."""

    path: str  # container/name
    offset: int  # bytes, in the image
    size: int  # bytes


def anew(prefix: str, size: int, step: int) -> list[Piece]:
    """Segments of `step` bytes under new names, numbered from 1 as Glance does."""
    count = -(-size // step)
    return placed([(f"{prefix}{n + 1:05d}", min(step, size - n * step)) for n in range(count)])


def placed(sizes: Iterable[tuple[str, int]]) -> list[Piece]:
    """One after the other: paths and sizes."""
    found, offset = [], 0
    for path, size in sizes:
        found.append(Piece(path, offset, size))
        offset += size
    return found


class Cutter:
    """One stream of chunks, taken piece by piece."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._rest = iter(chunks), memoryview(b"")

    def take(self, length: int) -> Iterator[bytes]:
        """The next so many bytes, fewer at the end of the stream."""
        while length:
            if not self._rest:
                self._rest = memoryview(next(self._chunks, b""))
                if not self._rest:
                    return
            part = self._rest[:length]
            self._rest = self._rest[len(part) :]
            length -= len(part)
            yield bytes(part)


def gate(chunks: Iterator[bytes], ready: Callable[[], None]) -> Iterator[bytes]:
    """The chunks; `ready` is asked before the last one, without which nobody takes the others."""
    held = b""
    for chunk in chunks:
        if held:
            yield held
        held = chunk
    ready()
    yield held
