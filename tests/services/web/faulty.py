"""A web server of named blobs that goes wrong on demand, and counts who read what.

Faults are options of a path (faults.py has them all) and may be changed while a body is being sent. Offsets count
from the start of the blob.
"""

import contextlib
import gzip
import re
import select
import socket
import socketserver
import struct
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from .faults import Blob, Faults, Request

PIECE = 256 * 1024  # bytes
LOGIN_PAGE = b"<html><body><form>Please log in.</form></body></html>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        """Answer as the faults of the path have it."""
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        self.path_only = urlsplit(self.path).path
        found = self.server.begin(self)
        self.answer(found) if found else self.text(404, b"no such blob")

    do_HEAD = do_GET

    def answer(self, blob: Blob) -> None:
        """One of the short answers, or the blob."""
        while self.faults(blob).stall_before_headers:
            if not self.pause():
                return
        faults = self.faults(blob)
        if self.command == "HEAD" and faults.head_status:
            self.text(faults.head_status, b"")
        elif faults.redirect_to:
            self.text(faults.status or 302, b"", {"Location": faults.redirect_to})
        elif faults.status:
            after = {} if faults.retry_after is None else {"Retry-After": str(faults.retry_after)}
            self.text(faults.status, b"faulty on purpose", after)
        elif faults.html:
            self.text(200, LOGIN_PAGE, {"Content-Type": "text/html"})
        elif faults.gzip:
            body = gzip.compress(blob.read(0, blob.size, faults))
            self.text(200, body, {"Content-Encoding": "gzip", "ETag": blob.etag})
        else:
            self.blob(blob, faults)

    def faults(self, blob: Blob) -> Faults:
        """The faults of this moment for this request."""
        now = blob.faults
        healthy = now.fail_times is not None and self.number > now.fail_times
        return Faults() if healthy else now

    def text(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A short answer."""
        self.start(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)
            self.server.note(self, sent=len(body))

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers."""
        self.server.note(self, status=status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def blob(self, blob: Blob, faults: Faults) -> None:
        """Headers and body of a blob, or of a range of it."""
        size = blob.size + faults.longer
        etag = blob.etag if faults.etag is None else faults.etag
        asked = None if faults.ignore_range else self.asked(size, etag)
        if asked == "unsatisfiable":
            self.text(416, b"", {"Content-Range": f"bytes */{size}"})
            return
        first, end = asked if asked else (0, size)
        if asked and faults.short_range is not None:
            end = min(end, first + faults.short_range)
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        headers |= {"ETag": etag} if etag else {}
        headers |= self.framing(end - first, faults)
        if asked:
            headers |= _content_range(first, end, size, faults)
        self.start(206 if asked else 200, headers)
        if self.command != "HEAD":
            self.body(blob, first, end, faults.chunked)

    def asked(self, size: int, etag: str) -> Any:
        """The range as (start, end), "unsatisfiable", or None for all: no range, or one we need not honour."""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "").strip())
        if not found or not any(found.groups()) or self.headers.get("If-Range", etag) != etag:
            return None
        first, last = found.groups()
        if not first:
            return (max(size - int(last), 0), size) if int(last) and size else "unsatisfiable"
        if last and int(last) < int(first):
            return None
        if int(first) >= size:
            return "unsatisfiable"
        return int(first), min(int(last) + 1 if last else size, size)

    def framing(self, length: int, faults: Faults) -> dict[str, str]:
        """How the client learns where the body ends."""
        if faults.chunked:
            return {"Transfer-Encoding": "chunked"}
        if faults.no_length:
            self.close_connection = True
            return {}
        if faults.wrong_length is not None:
            length, self.close_connection = faults.wrong_length, True
        if self.command == "HEAD" and faults.head_length is not None:
            length = faults.head_length
        return {"Content-Length": str(length)}

    def body(self, blob: Blob, first: int, end: int, chunked: bool) -> None:
        """Send until the end or until a fault ends it."""
        began, offset = time.monotonic(), first
        while offset < end:
            faults = self.faults(blob)
            if _reached(faults.stall_at, offset):
                if not self.pause():
                    return
                continue
            if _reached(faults.reset_at, offset) or _reached(faults.truncate_at, offset):
                self.close_connection = True
                if _reached(faults.reset_at, offset):
                    self.server.reset.add(self.connection)
                return
            stop = _next_stop(offset, end, faults)
            if not self.pace(began, stop - first, faults):
                return
            piece = blob.read(offset, stop, faults)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            offset = stop
            self.server.note(self, sent=offset - first)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def pace(self, began: float, sent: int, faults: Faults) -> bool:
        """Wait until so many bytes may be out; False when the server closes meanwhile."""
        if not faults.rate and not faults.drip:
            return True
        seconds = sent * faults.drip if faults.drip else sent / (faults.rate or 1)
        return not self.server.closing.wait(max(began + seconds - time.monotonic(), 0))

    def pause(self) -> bool:
        """Wait a moment; False when the server closes or the client has gone."""
        if not self.server.closing.wait(0.02):
            readable, _, _ = select.select([self.connection], [], [], 0)
            if not readable or self.connection.recv(1, socket.MSG_PEEK):
                return True
        self.close_connection = True
        return False

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing; `FaultyServer.requests` is the log."""


def _reached(edge: int | None, offset: int) -> bool:
    return edge is not None and offset >= edge


def _next_stop(offset: int, end: int, faults: Faults) -> int:
    step = 1 if faults.drip else max(1, min(PIECE, faults.rate // 20)) if faults.rate else PIECE
    edges = [edge for edge in (faults.stall_at, faults.reset_at, faults.truncate_at) if edge and edge > offset]
    return min(end, offset + step, *edges)


def _content_range(first: int, end: int, size: int, faults: Faults) -> dict[str, str]:
    if isinstance(faults.wrong_content_range, str):
        return {"Content-Range": faults.wrong_content_range} if faults.wrong_content_range else {}
    first += int(faults.wrong_content_range)
    return {"Content-Range": f"bytes {first}-{end - 1}/{size}"}


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, address: str) -> None:
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.blobs: dict[str, Blob] = {}
        self.seen: dict[str, list[Request]] = {}
        self.connections: set[socket.socket] = set()
        self.reset: set[socket.socket] = set()
        self.errors: list[BaseException] = []
        self.threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        super().__init__((address, 0), _Handler)

    def begin(self, handler: _Handler) -> Blob | None:
        """Note a request that has arrived; the blob it is for."""
        headers = dict(handler.headers.items())
        request = Request(handler.command, handler.headers.get("Range"), 0, headers, handler.path, None)
        with self.lock:
            requests = self.seen.setdefault(handler.path_only, [])
            requests.append(request)
            handler.noted = (requests, len(requests) - 1)
            blob = self.blobs.get(handler.path_only)
            if blob:
                handler.number = blob.reads + 1
                blob.reads += handler.command == "GET"
            return blob

    def note(self, handler: _Handler, **changes: Any) -> None:
        """Bring the record of a request up to date."""
        requests, at = handler.noted
        with self.lock:
            if at < len(requests):
                requests[at] = replace(requests[at], **changes)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self.connections.add(request)
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self.threads.add(thread)
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self.connections.discard(request)
        if request in self.reset:
            self.reset.discard(request)
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):  # OSError: the client went away
            self.errors.append(error)


class FaultyServer:
    """A web server in threads of this process, with a port of its own."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._server = _Server(address)
        self.address, self.port = address, self._server.server_address[1]
        self.url = f"http://{address}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def put(self, path: str, data: bytes | Path, **faults: Any) -> str:
        """Serve these bytes, or this file, under `path` ("/name"); the URL. Earlier requests are forgotten."""
        blob = Blob(data, _checked(Faults(**faults)))
        with self._server.lock:
            self._server.blobs[path] = blob
            self._server.seen[path] = []
        return self.url + path

    def change(self, path: str, **faults: Any) -> None:
        """These faults from now on, in place of all earlier ones; none: all is well. Running bodies notice."""
        with self._server.lock:
            blob = self._server.blobs[path]
            blob.faults, blob.reads = _checked(Faults(**faults)), 0

    def remove(self, path: str) -> None:
        """404 from now on."""
        with self._server.lock:
            del self._server.blobs[path]

    def requests(self, path: str) -> list[Request]:
        """The requests for a path since `put`, in order of arrival, those in progress too."""
        with self._server.lock:
            return list(self._server.seen.get(path, []))

    def reads(self, path: str) -> int:
        """How many GETs the path has had since `put`."""
        return sum(request.method == "GET" for request in self.requests(path))

    def sent(self, path: str) -> int:
        """Bytes of body sent for the path since `put`, all requests together."""
        return sum(request.sent for request in self.requests(path))

    def connections(self) -> int:
        """How many clients are connected."""
        with self._server.lock:
            return len(self._server.connections)

    def close(self) -> None:
        """End every connection and every thread. Raises the first error of the server itself."""
        self._server.closing.set()
        self._server.shutdown()
        self._thread.join()
        with self._server.lock:
            for connection in self._server.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._server.threads):
            thread.join(10)
        self._server.server_close()
        if self._server.errors:
            raise self._server.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _checked(faults: Faults) -> Faults:
    """`fail_times` alone means status 500."""
    return replace(faults, status=500) if faults == Faults(fail_times=faults.fail_times or 0) else faults
