"""How far long work is, on a terminal."""

import time
from typing import TextIO

from .text import size


class Progress:
    """One line on a terminal that is rewritten as work goes on; nothing elsewhere."""

    def __init__(self, stream: TextIO, total: int, quiet: bool = False) -> None:
        self._stream, self.total = stream, total
        self._shown = stream.isatty() and not quiet
        self._start, self._last, self._done, self._bytes = time.monotonic(), 0.0, 0, 0

    def step(self, length: int | None, text: str = "") -> None:
        """One more is done; `length` in bytes."""
        self.show(self._done + 1, self._bytes + (length or 0), text)

    def show(self, done: int, length: int, text: str = "") -> None:
        """So many are done by now; `length` bytes in all."""
        self._done, self._bytes = done, length
        now = time.monotonic()
        if self._shown and (now - self._last > 0.2 or self._done == self.total):
            self._last = now
            rate = self._bytes / max(now - self._start, 0.001)
            line = f"{self._done} of {self.total}  {size(self._bytes)}  {size(rate)}/s  {text}"
            self._stream.write(f"\r\033[K{line[:100]}")
            self._stream.flush()

    def end(self) -> None:
        """The line is gone."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
