"""The connection a request came by, where the server shows it: whether its client has left, and who sends on it."""

import contextlib
import importlib
import os
import select
import socket

import webob

_STALL_SECONDS = 60.0  # without a byte taken


class Connection:
    """A socket that the server opened and closes, or, once `keep` was called, one of our own."""

    def __init__(self, fd: int) -> None:
        self._fd, self._is_ours = fd, False

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def has_ended(self) -> bool:
        """Whether the client sends nothing more: it left, or half-closed and goes on reading (RFC 9112 section 9.6).

        Only what is written to it tells which: one that left answers with a reset, and then it `has_left`.
        """
        return bool(self._events() & (select.POLLRDHUP | select.POLLHUP | select.POLLERR))

    def has_left(self) -> bool:
        """Whether the client reads nothing more, for certain."""
        return bool(self._events() & (select.POLLHUP | select.POLLERR))

    def _events(self) -> int:
        poll = select.poll()
        poll.register(self._fd, select.POLLRDHUP)
        return next((event for _fd, event in poll.poll(0)), 0)

    def keep(self) -> None:
        """It stays open when the server lets go of it, until `close`. Raises OSError."""
        self._fd, self._is_ours = os.dup(self._fd), True

    def send(self, data: bytes) -> None:
        """All of it. Raises OSError when the client has gone, its child TimeoutError when it takes nothing."""
        view, room = memoryview(data), select.poll()
        room.register(self._fd, select.POLLOUT)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                if not room.poll(_STALL_SECONDS * 1000):
                    raise TimeoutError(f"the client took nothing for {_STALL_SECONDS:.0f} s") from None

    def close(self) -> None:
        """One that was kept ends here: behind the last byte, or cut where a body broke off. The client may be gone."""
        if self._is_ours:
            self._is_ours = False
            with socket.socket(fileno=self._fd) as ours, contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)


def of(request: webob.Request) -> Connection | None:
    """The connection of this request, which is in progress in this thread; None: the server does not show it."""
    if "uwsgi.version" in request.environ:
        fd = int(importlib.import_module("uwsgi").connection_fd())
    else:
        found = request.environ.get("gunicorn.socket")
        fd = -1 if found is None else int(found.fileno())
    return None if fd < 0 else Connection(fd)
