"""Connections on which the headers of an answer must arrive in time, however they drip."""

import contextlib
import http.client
import socket
import threading

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Connection(HTTPConnection):
    """A read timeout of the library begins anew with every byte; this one does not, and is twice as long."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        """As the library's. TimeoutError when the headers are not complete in time."""
        late = threading.Event()

        def cut() -> None:
            late.set()
            with contextlib.suppress(OSError):  # ended meanwhile
                if self.sock is not None:
                    self.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(2 * (self.timeout or 60), cut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        except (http.client.HTTPException, OSError) as error:
            if late.is_set():
                raise TimeoutError("headers") from error
            raise
        finally:
            timer.cancel()
        if late.is_set():  # http.client takes headers that were cut off for complete
            response.close()
            raise TimeoutError("headers")
        return response


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def watch(manager: PoolManager) -> None:
    """From now on the connections of this manager are such ones."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
