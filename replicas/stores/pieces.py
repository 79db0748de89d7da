"""A large object in pieces: which there are to be, and one stream cut into them. No I/O."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .swift.segments import MOST, Segment


@dataclass(frozen=True)
class Piece:
    """One segment as it ought to be."""

    path: str  # container/name
    offset: int  # bytes, in the image
    size: int  # bytes


def wanted(listed: Sequence[Segment], size: int, prefix: str | None) -> list[Piece] | None:
    """The segments of an image of `size` bytes; None: they cannot be told from those that are listed.

    With a `prefix` (a DLO) the list is of what is there: when one is lost or cut short, the others say how Glance
    numbered and cut them.
    """
    if sum(one.size for one in listed) == size:
        return _placed([(one.path, one.size) for one in listed])
    step = max((one.size for one in listed), default=0)
    count = -(-size // step) if step else 0
    if prefix is None or not 0 < count <= MOST:
        return None
    first = 0 if f"{prefix}{0:05d}" in {one.path for one in listed} else 1
    paths = [f"{prefix}{number:05d}" for number in range(first, first + count)]
    if not {one.path for one in listed} <= set(paths):
        return None
    return _placed([(path, min(step, size - number * step)) for number, path in enumerate(paths)])


def anew(prefix: str, size: int, step: int) -> list[Piece]:
    """Segments of `step` bytes under new names, numbered from 1 as Glance does."""
    count = -(-size // step)
    return _placed([(f"{prefix}{n + 1:05d}", min(step, size - n * step)) for n in range(count)])


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


def _placed(sizes: Iterable[tuple[str, int]]) -> list[Piece]:
    found, offset = [], 0
    for path, size in sizes:
        found.append(Piece(path, offset, size))
        offset += size
    return found
