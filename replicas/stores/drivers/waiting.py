"""Calls into libraries that know no limits: we wait so long, and no longer."""

import atexit
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import Stalled

MOST = 64  # calls left behind, of all libraries; with so many nothing more is begun

T = TypeVar("T")
FAREWELL = 10.0  # seconds for which the end of the process waits for what is being closed

_left: set["Worker"] = set()  # set operations are atomic
_closing: set["Worker"] = set()


class Worker:
    """A thread that makes one call at a time for whoever waits.

    A call that does not return cannot be ended: it is left behind, and with it its thread, until the library gives up
    or the process ends. What was asked for after it is then done, and nothing more.
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._todo: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="driver", daemon=True)
        self._thread.start()

    def call(self, do: Callable[[], T], seconds: float) -> T:
        """What `do` returns or raises. Raises Stalled when it has done neither in time; not to be called again then."""
        if len(_left) >= MOST:
            raise Stalled(f"{self._shown}: not asked, {MOST} earlier calls into drivers have not returned yet")
        self._todo.put(do)
        try:
            value, error = self._done.get(timeout=seconds)
        except queue.Empty:
            _left.add(self)
            if not self._done.empty():  # it has come back meanwhile
                _left.discard(self)
            raise Stalled(f"{self._shown}: its driver did not answer for {seconds:g} s") from None
        if error is not None:
            raise error
        found: T = value
        return found

    def close(self, last: Callable[[], object] | None = None) -> None:
        """The thread ends, after `last`, as soon as it can; only the process waits. May be called more than once."""
        if last is not None:
            _closing.add(self)
            self._todo.put(last)
        self._todo.put(None)

    def join(self, seconds: float) -> None:
        """Return when the thread has ended, or after so long."""
        self._thread.join(seconds)

    def _work(self) -> None:
        while (do := self._todo.get()) is not None:
            try:
                done = do(), None
            except Exception as error:  # noqa: BLE001  # it is the caller's
                self._done.put((None, error))
            else:
                self._done.put(done)
            _left.discard(self)
            del do
        _closing.discard(self)


def farewell() -> None:
    """What a driver holds for us elsewhere, such as a volume attached to this machine, is given back if it can be."""
    end = time.monotonic() + FAREWELL
    for worker in _closing - _left:
        worker.join(max(0.0, end - time.monotonic()))


atexit.register(farewell)
