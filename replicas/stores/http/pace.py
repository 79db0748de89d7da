"""When a source counts as stalled: the low-speed limit of every reader over a network."""

import time
from collections.abc import Callable

from ...errors import Stalled
from ..body import Limits


class Pace:
    """Waits on a source and measures it: in `limits.stall` seconds of waiting it must bring `limits.slowest`
    bytes a second.

    Only the time spent waiting counts, so a caller that writes slowly is not held against the source. A read of its
    own ends at `limits.stall` without a byte, so a source that drips is cut after twice that at the latest.
    """

    def __init__(self, limits: Limits, shown: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._shown, self._clock = limits, shown, clock
        self._waited, self._bytes = 0.0, 0

    def read(self, read: Callable[[], bytes]) -> bytes:
        """What `read` returns. Raises Stalled when the source has been too slow for too long."""
        began = self._clock()
        piece = read()
        self._waited += self._clock() - began
        self._bytes += len(piece)
        if self._waited >= self._limits.stall:
            if self._bytes < self._limits.slowest * self._waited:
                slowest = self._limits.slowest
                raise Stalled(
                    f"{self._shown}: {self._bytes} bytes in {self._waited:.1f} s, less than {slowest} a second"
                )
            self._waited, self._bytes = 0.0, 0
        return piece
