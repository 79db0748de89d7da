"""`sendfile = uwsgi`: bytes of files, complete or partial, go from the kernel's page cache to the client's connection.

Only where uWSGI itself holds a plain connection and writes what it is given before it asks for more: the first piece of
a body takes the usual way, headers before it, and the rest is sent past Python behind it.
"""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator

from glance_replicas.errors import CacheError
from glance_replicas.settings import Settings
from glance_replicas.transfer.follow import Follower

from .connection import Connection

# Bytes [start, stop): how many went, again and again; fewer in all: the file has no more, the rest is for `read`.
Send = Callable[[int, int], Iterator[int]]

_MOST = 2 << 20  # bytes of one call, so that a fast client does not keep a thread in the kernel
_STALL_SECONDS = 60.0  # without a byte taken
_DISK = (errno.EIO, errno.ENODATA, errno.ESTALE, errno.EUCLEAN)  # of a file that cannot be read, not of a connection


def sender(settings: Settings, follower: Follower, connection: Connection | None) -> Send | None:
    """What sends a file on the connection of a request; None: not so here."""
    if settings.sendfile != "uwsgi" or connection is None:
        return None
    return sending(connection.fileno, follower)


def sending(connection: Callable[[], int], follower: Follower) -> Send:
    """What sends a file as it grows, on this connection, which does not block. Raises Corrupt like the follower."""

    def send(start: int, stop: int) -> Iterator[int]:
        with contextlib.suppress(CacheError):
            for begin, end in follower.spans(start, stop):
                at = begin
                for sent in _send(connection(), follower.fileno(), begin, end):
                    at += sent
                    yield sent
                if at < end:
                    return

    return send


def _send(connection: int, fd: int, start: int, stop: int) -> Iterator[int]:
    """Fewer bytes where the file has no more or cannot be read.

    Raises OSError when the client has gone, TimeoutError when it takes nothing; the connection is of no use then.
    """
    room = select.poll()
    room.register(connection, select.POLLOUT)
    while start < stop:
        try:
            sent = os.sendfile(connection, fd, start, min(stop - start, _MOST))
        except BlockingIOError:
            if not room.poll(_STALL_SECONDS * 1000):
                _cut(connection)
                raise TimeoutError(f"the client took nothing for {_STALL_SECONDS:.0f} s") from None
            continue
        except OSError as error:
            if error.errno in _DISK:
                return
            raise
        if not sent:
            return
        start += sent
        yield sent


def _cut(connection: int) -> None:
    """Nobody takes what follows on this connection for the rest of the body."""
    with socket.socket(fileno=os.dup(connection)) as copy:
        copy.shutdown(socket.SHUT_RDWR)
