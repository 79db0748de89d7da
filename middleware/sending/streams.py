"""How many bodies one process sends at a time; whoever comes when it is enough asks elsewhere."""

from collections import deque


class StreamSlot:
    """One body's share; free again when told, or when nobody holds it any more (WebOb drops some bodies unread)."""

    def __init__(self, left: deque[None] | None) -> None:
        self._left = left

    def free(self) -> None:
        """May be called more than once."""
        left, self._left = self._left, None
        if left is not None:
            left.append(None)

    def __del__(self) -> None:  # at any moment, also within `take`: so there is no lock, a deque is atomic
        self.free()


class Streams:
    """At most `most` places are taken; 0: no limit. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._left: deque[None] | None = deque([None] * most) if most else None

    def take(self) -> StreamSlot | None:
        """A place, or None when all are taken; never waits."""
        if self._left is not None:
            try:
                self._left.pop()
            except IndexError:
                return None
        return StreamSlot(self._left)
