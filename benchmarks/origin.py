"""The back end of the benchmarks: one file under every path, one rate for all connections together, reads counted.

    origin.py ADDRESS PORT FILE BYTES_PER_SECOND     a process of its own; a rate of 0 is none

nginx's `limit_rate` is one limit for each connection, and so cannot show what sixteen reads of one back end cost.
`GET /-/counts` answers {path: [reads, bytes sent]}.
"""

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE, UNLIMITED_PIECE = 64 * 1024, 1024 * 1024  # bytes, with a rate and without
CONGESTION = b"cubic"  # what Linux sends by unless told: BBR, which some machines have, paces even a loopback
CREDIT = 0.02  # seconds of the rate that may be caught up after a late wake-up


class Rate:
    """Hands out moments at which a piece may be sent, first come first served."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._next = 0.0
        self._lock = threading.Lock()

    @property
    def is_limited(self) -> bool:
        """There is one."""
        return self._rate > 0

    def wait(self, size: int) -> None:
        """Return when `size` bytes more may go."""
        if not self.is_limited:
            return
        with self._lock:
            self._next = max(self._next, time.monotonic() - CREDIT) + size / self._rate
            pause = self._next - time.monotonic()
        if pause > 0:
            time.sleep(pause)


class Server(ThreadingHTTPServer):
    """The file, the rate and the counts."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], path: Path, bytes_per_second: float) -> None:
        super().__init__(address, Handler)
        self.fd = os.open(path, os.O_RDONLY)
        self.size = path.stat().st_size
        self.rate = Rate(bytes_per_second)
        self.counts: dict[str, list[int]] = {}
        self.lock = threading.Lock()

    def count(self, path: str, reads: int, sent: int) -> None:
        """Add to the counts of a path."""
        with self.lock:
            found = self.counts.setdefault(path, [0, 0])
            found[0] += reads
            found[1] += sent


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD, whole or `bytes=N-` and `bytes=N-M`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """The file, or the counts."""
        if self.path == "/-/counts":
            self.text(json.dumps(self.server.counts).encode())
            return
        start, stop = 0, self.server.size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start = int(asked[1])
            stop = min(int(asked[2]) + 1, stop) if asked[2] else stop
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{self.server.size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"the-file"')
        self.send_header("Cache-Control", "max-age=86400")
        self.end_headers()
        if self.command == "GET":
            with self.counted():
                self.body(start, stop)

    do_HEAD = do_GET

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One read more; a client that leaves is no error."""
        self.server.count(self.path, 1, 0)
        try:
            yield
        except OSError:
            self.close_connection = True

    def body(self, start: int, stop: int) -> None:
        """Pieces, each when the rate lets it."""
        piece = PIECE if self.server.rate.is_limited else UNLIMITED_PIECE
        while start < stop:
            size = min(piece, stop - start)
            self.server.rate.wait(size)
            end = start + size
            while start < end:
                sent = os.sendfile(self.connection.fileno(), self.server.fd, start, end - start)
                self.server.count(self.path, 0, sent)
                start += sent

    def text(self, body: bytes) -> None:
        """A short answer."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: writing a log takes time."""


def main() -> None:
    """Serve until killed."""
    address, port, path, rate = sys.argv[1:]
    server = Server((address, int(port)), Path(path), float(rate))
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    server.serve_forever()


if __name__ == "__main__":
    main()
