"""What one process does with images just now, and what it has served since that was last taken down.

On the path of every download: one lock, integers, nothing that waits.
"""

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from ..model import Use

_MOST_IMAGES = 10_000  # counted at once while the ledger is away; what is served of others then is not counted


@dataclass(frozen=True)
class Load:
    """What one process does with images."""

    filling: int = 0  # fills that run now
    readers: int = 0  # of fills, now
    served_bytes: int = 0  # since the last pass of its janitor


class Reading:
    """One reader of a fill, counted until it is closed or forgotten; `number` is its place among them."""

    def __init__(self, image_id: str, number: int, left: deque[str]) -> None:
        self.number = number
        self._image_id = image_id
        self._left: deque[str] | None = left

    def close(self) -> None:
        """It is none of them any more; may be called more than once."""
        left, self._left = self._left, None
        if left is not None:
            left.append(self._image_id)

    def __del__(self) -> None:  # a response that WebOb drops unread (416) closes nothing; no lock: see `_count_off`
        self.close()


class Statistics:
    """Thread-safe. Counts that nobody has taken are lost with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()
        self._left: deque[str] = deque()
        self._fills = 0
        self._uses: dict[str, Use] = {}

    def follow(self, image_id: str) -> Reading:
        """One more reader of the fill of this image."""
        with self._lock:
            self._count_off()
            self._readers[image_id] += 1
            return Reading(image_id, self._readers[image_id], self._left)

    def began(self) -> None:
        """This process fills one image more."""
        with self._lock:
            self._fills += 1

    def ended(self) -> None:
        """And one less."""
        with self._lock:
            self._fills -= 1

    def now(self) -> tuple[int, int]:
        """Fills that run in this process, and readers of fills."""
        with self._lock:
            self._count_off()
            return self._fills, self._readers.total()

    def served(self, image_id: str, sent: int, *, hit: bool) -> None:
        """A response is over that gave `sent` bytes of the image, from a complete file if `hit`."""
        if sent > 0:
            self._add({image_id: Use(1, sent, sent if hit else 0)})

    def take(self) -> dict[str, Use]:
        """What was served of each image since the last time; it is the caller's to keep."""
        with self._lock:
            taken, self._uses = self._uses, {}
            return taken

    def give_back(self, taken: Mapping[str, Use]) -> None:
        """What could not be kept waits for the next time."""
        self._add(taken)

    def _add(self, uses: Mapping[str, Use]) -> None:
        with self._lock:
            for image_id, use in uses.items():
                known = self._uses.get(image_id)
                if known is not None or len(self._uses) < _MOST_IMAGES:
                    self._uses[image_id] = use if known is None else known.plus(use)

    def _count_off(self) -> None:
        """Readers that left are counted off here: `Reading.__del__` may run anywhere, also under our lock."""
        while self._left:
            image_id = self._left.popleft()
            self._readers[image_id] -= 1
            if not self._readers[image_id]:
                del self._readers[image_id]
