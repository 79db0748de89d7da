"""Connections on which the headers of an answer must arrive in time, however they drip."""

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from urllib3 import HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from .heads import Heads

_STEP_SECONDS = 0.2

R = TypeVar("R", HTTPResponse, http.client.HTTPResponse)


class _Watchdog:
    """Cuts what has no end in time; one thread for a process, since one for each request would cost as much as it."""

    def __init__(self) -> None:
        self._watched: dict[object, tuple[float, Callable[[], None]]] = {}
        self._begun = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, seconds: float, cut: Callable[[], None]) -> object:
        """Unless `leave` is called with what this returns, `cut` is called after so many seconds."""
        key = object()
        with self._begun:
            self._watched[key] = (time.monotonic() + seconds, cut)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="replica-deadlines", daemon=True)
                self._thread.start()
            self._begun.notify()
        return key

    def leave(self, key: object) -> None:
        """It has ended."""
        with self._begun:
            self._watched.pop(key, None)

    def _run(self) -> None:
        while True:
            with self._begun:
                self._begun.wait_for(lambda: self._watched)
                now = time.monotonic()
                late = [key for key, (end, _) in self._watched.items() if end <= now]
                cuts = [self._watched.pop(key)[1] for key in late]
            for cut in cuts:
                cut()
            time.sleep(_STEP_SECONDS)


_watchdog = _Watchdog()
os.register_at_fork(after_in_child=_watchdog.__init__)  # type: ignore[misc]  # threads are not inherited, locks are


class _Connection(HTTPConnection):
    """A read timeout of the library begins anew with every byte; this one does not, and is twice as long."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        """As the library's. TimeoutError when the headers are not complete in time."""
        return self._in_time(super().getresponse)

    def plain_response(self) -> http.client.HTTPResponse:
        """The same of the standard library."""
        return self._in_time(lambda: http.client.HTTPConnection.getresponse(self))

    def _in_time(self, receive: Callable[[], R]) -> R:
        late = threading.Event()

        def cut() -> None:
            late.set()
            with contextlib.suppress(OSError):  # ended meanwhile
                if self.sock is not None:
                    self.sock.shutdown(socket.SHUT_RDWR)

        key = _watchdog.watch(2 * (self.timeout or 60), cut)
        try:
            response = receive()
        except (http.client.HTTPException, OSError) as error:
            if late.is_set():
                raise TimeoutError("headers") from error
            raise
        finally:
            _watchdog.leave(key)
        if late.is_set():  # http.client takes headers that were cut off for complete
            response.close()
            raise TimeoutError("headers")
        return response


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(Heads):
    ConnectionCls = _Connection


class _SecurePool(Heads, HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def watch(manager: PoolManager) -> None:
    """From now on the connections of this manager are such ones."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
