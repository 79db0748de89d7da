"""Writes bytes that come in order, and may leave out those that are zero: they read back as zeros from a hole."""

import os
from collections.abc import Iterator

BLOCK = 64 << 10  # bytes; of a block of zeros nothing is written
_ZEROS = bytes(BLOCK)


class HoleWriter:
    """Writes to an empty file, with holes if `is_thin`. `end` must be called, or zeros at the end are missing."""

    def __init__(self, fd: int, is_thin: bool) -> None:
        self._fd, self._is_thin, self._at = fd, is_thin, 0

    def write(self, data: bytes) -> int:
        """The bytes are in the file, or behind its end if they are zero. Returns how many were written."""
        view, written = memoryview(data), 0
        for start, stop in self._runs(view) if self._is_thin else [(0, len(view))]:
            _write_at(self._fd, view[start:stop], self._at + start)
            written += stop - start
        self._at += len(view)
        return written

    def end(self) -> None:
        """The file has its whole length."""
        os.ftruncate(self._fd, self._at)

    def _runs(self, view: memoryview) -> Iterator[tuple[int, int]]:
        """The parts that are not zero, as offsets in `view`; they begin and end where blocks of the file do."""
        begun, start = None, 0
        while start < len(view):
            stop = min(len(view), start + BLOCK - (self._at + start) % BLOCK)
            is_zero = view[start:stop] == _ZEROS[: stop - start]
            if is_zero and begun is not None:
                yield begun, start
                begun = None
            elif not is_zero and begun is None:
                begun = start
            start = stop
        if begun is not None:
            yield begun, start


def _write_at(fd: int, data: memoryview, offset: int) -> None:
    while data:
        length = os.pwrite(fd, data, offset)
        data, offset = data[length:], offset + length
