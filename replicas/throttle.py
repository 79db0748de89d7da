"""A rate that many threads share."""

import threading
import time
from collections.abc import Callable

_LOOK_SECONDS = 0.05


class Throttle:
    """Called with a number of bytes, returns when all callers together are within the rate."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate, self._free_at, self._lock = bytes_per_second, 0.0, threading.Lock()

    def __call__(self, length: int, until: Callable[[], bool] = lambda: False) -> None:
        """Sleep as long as these bytes are worth, after those before them, or until this holds."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + length / self._rate
            end = self._free_at
        while (left := end - time.monotonic()) > 0 and not until():
            time.sleep(min(left, _LOOK_SECONDS))
