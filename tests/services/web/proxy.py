"""A proxy that goes wrong on demand, in front of a real server: what may happen to an answer on its way."""

import contextlib
import gzip
import http.client
import socket
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from .faulty import LOGIN_PAGE

DRIP = 0.05  # seconds for each byte
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
FAULTS = ("reset", "hang", "stall", "drip", "redirect", "login", "gzip", "head lies")  # or a status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        """Pass the request on, or do to it what was ordered for its path."""
        fault, path = self.server.order
        if fault is None or path not in self.path:
            self.relay(None)
        elif isinstance(fault, int):
            self.text(fault, b"faulty on purpose")
        elif fault == "redirect":
            self.text(302, b"", Location="/login")
        elif fault == "login":
            self.text(200, LOGIN_PAGE)
        elif fault == "hang":
            self.close_connection = True
            self.server.hanging += 1
            self.server.closing.wait()
        elif fault == "reset" and self.command == "HEAD":
            self.reset()
        elif fault == "head lies" and self.command != "HEAD":
            self.text(500, b"faulty on purpose")
        else:
            self.relay(fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def relay(self, fault: str | None) -> None:
        """The upstream's answer, with a fault in its body."""
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=30)
        try:
            upstream.request(self.command, self.path, sent or None, dict(self.headers.items()))
            answer = upstream.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            body = answer.read()
            if fault == "gzip":
                body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
            stated = answer.getheader("Content-Length")
            length = stated if self.command == "HEAD" and stated is not None and fault != "gzip" else str(len(body))
            self.start(answer.status, {**headers, "Content-Length": length})
        finally:
            upstream.close()
        if self.command != "HEAD":
            self.send(body, fault)

    def send(self, body: bytes, fault: str | None) -> None:
        """The body, or what the fault leaves of it."""
        if fault == "drip":
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.server.closing.wait(DRIP):
                    return
        elif fault in ("reset", "stall"):
            self.close_connection = True
            self.wfile.write(body[: len(body) // 2])
            self.reset() if fault == "reset" else self.server.closing.wait()
        else:
            self.wfile.write(body)

    def reset(self) -> None:
        """RST instead of what is left."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.reset.add(self.connection)

    def text(self, status: int, body: bytes, **headers: str) -> None:
        """An answer that the upstream did not give."""
        self.start(status, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, upstream: tuple[str, int]) -> None:
        self.upstream, self.closing = upstream, threading.Event()
        self.order: tuple[str | int | None, str] = (None, "")
        self.reset: set[Any] = set()
        self.hanging = 0
        self.connections: set[Any] = set()
        super().__init__((address, 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        if request in self.reset:
            self.reset.discard(request)
            request.close()  # no shutdown before it: that would send a FIN
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away, which is what clients of a faulty server do."""


class FaultyProxy:
    """A proxy in threads of this process, with a port of its own."""

    def __init__(self, host: str, port: int, address: str = "127.0.0.1") -> None:
        self._server = _Server(address, (host, port))
        self.address, self.port = address, int(self._server.server_address[1])
        self.url = f"http://{address}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def order(self, fault: str | int | None, path: str = "") -> None:
        """From now on this fault (one of FAULTS, a status, None: all is well) for requests whose target has `path`."""
        if not isinstance(fault, int | None) and fault not in FAULTS:
            raise ValueError(fault)
        self._server.order = (fault, path)

    @property
    def hanging(self) -> int:
        """How many requests were made to hang so far."""
        return self._server.hanging

    def close(self) -> None:
        """End every connection."""
        self._server.closing.set()
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
