"""Many downloads at once from one thread: when the first and the last byte of each came, and how many there were.

Bodies are thrown away in the kernel (MSG_TRUNC), so that two cores are the servers', not the clients'. Whether the
bytes are right is checked by `digest`, in a download of its own.
"""

import hashlib
import http.client
import select
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PIECE = 4 << 20  # bytes read at once, at most
_TIMEOUT = 600.0  # seconds without anything from anybody


@dataclass(frozen=True)
class Ask:
    """One request."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0  # seconds after the others


@dataclass
class Got:
    """One download; times in seconds since it began."""

    status: int = 0
    size: int = 0
    first: float = 0.0
    last: float = 0.0


def fetch(asks: Sequence[Ask]) -> list[Got]:
    """All downloads, started together or `after` that, in the order of `asks`. RuntimeError when one is not whole."""
    began = time.perf_counter()
    all_ = [_Download(ask) for ask in asks]
    waiting = sorted(all_, key=lambda one: -one.ask.after)
    open_: dict[int, _Download] = {}
    with select.epoll() as poll:
        while open_ or waiting:
            now = time.perf_counter() - began
            while waiting and waiting[-1].ask.after <= now:
                one = waiting.pop()
                open_[one.start()] = one
                poll.register(one.fileno(), select.EPOLLIN)
            ready = poll.poll(waiting[-1].ask.after - now if waiting else _TIMEOUT)
            if not ready and not waiting:
                raise RuntimeError(f"{len(open_)} downloads stand still")
            for number, _ in ready:
                if open_[number].advance():
                    poll.unregister(number)
                    open_.pop(number).close()
    return [one.got for one in all_]


class _Download:
    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.got = Got()
        self._url, self._began = ask.url, 0.0
        self._head = b""
        self._length: int | None = None
        self._socket = socket.socket()

    def start(self) -> int:
        """Connect and ask; the descriptor to watch."""
        self._began = time.perf_counter()
        parts = urlsplit(self.ask.url)
        self._socket.connect((parts.hostname or "", parts.port or 80))
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.ask.headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._socket.setblocking(False)
        return self._socket.fileno()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def advance(self) -> bool:
        """Take what is there; True: that was all."""
        if not self.got.status:
            return self._headers()
        try:
            size = self._socket.recv_into(_buffer, _PIECE, socket.MSG_TRUNC)
        except BlockingIOError:
            return False
        return self._took(size)

    def _headers(self) -> bool:
        piece = self._socket.recv(16384)
        self._head += piece
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not piece:
            raise RuntimeError(f"{self._url}: closed without an answer")
        if not end:
            return False
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.got.status = int(lines[0].split()[1])
        if self.got.status not in (200, 206) or "transfer-encoding" in fields:
            raise RuntimeError(f"{self._url}: {self._head[:1000]!r}")
        self._length = int(fields["content-length"]) if "content-length" in fields else None
        return self._took(len(body)) if body else False

    def _took(self, size: int) -> bool:
        now = time.perf_counter() - self._began
        if size:
            self.got.first = self.got.first or now
            self.got.last = now
            self.got.size += size
        if not size and self._length not in (None, self.got.size):
            raise RuntimeError(f"{self._url}: {self.got.size} bytes of {self._length}")
        return not size or self.got.size == self._length


_buffer = bytearray(_PIECE)


def digest(ask: Ask) -> str:
    """The sha512 of a body as it arrives."""
    parts = urlsplit(ask.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)
    connection.request("GET", parts.path, headers=dict(ask.headers))
    response = connection.getresponse()
    running = hashlib.sha512()
    while piece := response.read(1 << 20):
        running.update(piece)
    connection.close()
    return running.hexdigest()
