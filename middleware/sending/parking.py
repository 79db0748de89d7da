"""Bodies that threads of ours go on sending when enough threads of the server do, so that some are free for the API.

Only on uWSGI's plain connections (`sendfile = uwsgi`): the server sends the headers, is done with the request then, and
the connection stays open for the body. A body need not have begun: where a source is silent a thread of ours waits
for it. A process that ends takes its bodies with it, cut where they are; uWSGI's `atexit` waits for them a while.
"""

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from glance_replicas.errors import ReplicaError

from .connection import Connection
from .streams import Streams, StreamSlot

log = logging.getLogger(__name__)

_FIRST_SECONDS = 1.0  # how long the first byte of such a body is waited for in the server's thread
_LAST_SECONDS = 30.0  # how long a process that ends waits for its bodies


class Parking:
    """`threads` of the server may send bodies, `most` threads of ours do so beyond that. Thread-safe.

    Of those beyond, `waiting` at a time may wait in the server's threads for a moment, to hear of a fault in time.
    """

    def __init__(self, threads: int, most: int, waiting: int = 0) -> None:
        self._threads = Streams(threads)
        self._most = Streams(most) if most else None
        self._waiting = Streams(waiting)
        self._parked: set[threading.Thread] = set()

    def place(self) -> "StreamSlot | Spot | None":
        """Where a body is sent from; None: there is no room, come again."""
        place = self._threads.take()
        if place is not None or self._most is None:
            return place
        spare = self._most.take()
        return None if spare is None else Spot(spare, self._parked, self._waiting)

    def drain(self) -> None:
        """All bodies have ended, or the time for that is over."""
        end = time.monotonic() + _LAST_SECONDS
        for thread in list(self._parked):
            thread.join(max(0.0, end - time.monotonic()))

    def drain_at_exit(self) -> None:
        """uWSGI calls it when a worker retires; whoever had asked for that is called, too."""
        uwsgi: Any = importlib.import_module("uwsgi")
        before: Callable[[], object] | None = getattr(uwsgi, "atexit", None)

        def leave() -> None:
            self.drain()
            if before is not None:
                before()

        uwsgi.atexit = leave


class Spot:
    """One body's place beside the server's threads."""

    def __init__(self, spare: StreamSlot, parked: set[threading.Thread], waiting: Streams) -> None:
        self._spare, self._parked, self._waiting = spare, parked, waiting

    @contextmanager
    def patience(self) -> Iterator[float]:
        """For how many seconds its first byte may be waited for in the server's thread."""
        place = self._waiting.take()
        try:
            yield _FIRST_SECONDS if place is not None else 0.0
        finally:
            if place is not None:
                place.free()

    def free(self) -> None:
        """May be called more than once."""
        self._spare.free()

    def send(self, connection: Connection, work: Iterator[object], ended: Callable[[], None], what: str) -> None:
        """`work` sends a body of `what` on this connection, from a thread of its own; then `ended` is called.

        Raises OSError when that cannot be.
        """
        connection.keep()
        sending = partial(self._run, connection, work, ended, what)
        thread = threading.Thread(target=sending, name="replica-send", daemon=True)
        self._parked.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            self._parked.discard(thread)
            connection.close()
            raise OSError(str(error)) from error

    def _run(self, connection: Connection, work: Iterator[object], ended: Callable[[], None], what: str) -> None:
        try:
            for _ in work:
                pass
        except (OSError, ReplicaError) as error:
            log.info("%s: a body was broken off: %s", what, error)
        except Exception:  # outermost edge of a thread
            log.exception("%s: a body was broken off", what)
        finally:
            connection.close()
            self.free()
            self._parked.discard(threading.current_thread())
            ended()
