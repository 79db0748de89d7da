"""What needs a real connection or a real host: answers of any server, and requests of any client to `/replicas/`.

Both are made once, when first used, and end with the process.
"""

import atexit
import contextlib
import functools
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import webob
import webob.exc
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.cloud import DATA, Cloud

from glance_replicas import settings
from glance_replicas.errors import SourceError
from glance_replicas.location import replica_url
from glance_replicas.middleware import server
from glance_replicas.model import HOST_KEY, Location
from glance_replicas.stores.body import Limits
from glance_replicas.stores.http.answers import Target
from glance_replicas.stores.http.wire import Wire
from glance_replicas.transfer import fill

from .draw import OTHER, Draw


class _Peer:
    """A server that sends, to whatever is asked, the bytes it was given, and closes."""

    def __init__(self) -> None:
        self.answer = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/x"
        self.wire = Wire(Limits(connect=2.0, stall=2.0))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(self.answer)


@functools.cache
def _peer() -> _Peer:
    return _Peer()


def answers(draw: Draw) -> None:
    """Whatever a server answers: bytes from the offset that was asked for, or a fault in words of ours."""
    offset, body = draw.pick((0, 1, 7, 10)), draw.raw(40)
    peer = _peer()
    peer.answer = _head(draw, offset, body) + body if draw.number(8) else draw.rest()
    target = Target(peer.url, "http://peer/x")
    with contextlib.suppress(SourceError):
        with peer.wire.open(target, offset) as found:
            got = b"".join(found)
        assert got in peer.answer  # no byte of ours between, none twice
        if found.size is not None:
            assert offset + len(got) <= max(found.size, offset)
    with contextlib.suppress(SourceError):
        size = peer.wire.size(target)
        assert size is None or 0 <= size < 10**18


def _head(draw: Draw, offset: int, body: bytes) -> bytes:
    statuses = ("200 OK", "206 Partial", "416 No", "302 Found", "404 None", "503 Busy", "204 None")
    status = draw.pick((*statuses, draw.text(1)))
    last, total = offset + len(body) - 1, offset + len(body)
    lengths = f"Content-Length: {len(body)}", f"Content-Length: {draw.whole()}", "Transfer-Encoding: chunked"
    lines = [
        draw.pick((*lengths, "X: y")),
        draw.pick((f"Content-Range: bytes {offset}-{last}/{total}", f"Content-Range: bytes {draw.text(2)}", "X: y")),
        draw.pick(("Content-Encoding: gzip", "Location: http://127.0.0.1:9/", f"{draw.text(1)}: {draw.text(2)}")),
    ]
    kept = [one for one in lines if draw.number(4)]
    return "\r\n".join([f"HTTP/1.1 {status}", *kept, "", ""]).encode("utf-8", "replace")


class _Host:
    """A host with one complete copy, on SQLite."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        loaded = settings.load([str(GlanceSite(folder / "loaded").add_host("127.0.0.2", start=False).config_file)])
        self._durable = FaultyServer()
        cloud = Cloud(folder / "cloud", loaded, self._durable)
        self.image_id = cloud.image()
        self.local = cloud.host("a")
        self._fill()
        self.app = server.assembled(self.local, webob.exc.HTTPNotFound())
        url = replica_url(self.local.settings.host_url or "", self.image_id)
        self.signed = self.local.host_registry.sign(Location(self.image_id, url, {HOST_KEY: "a"}))
        assert "sig=" in self.signed

    def _fill(self) -> None:
        image = self.local.catalogue.active(self.image_id)
        assert image is not None
        thread = fill.start(self.local.cache, self.local.fill_setup.plan(image))
        assert thread is not None
        thread.join()
        assert self.local.cache.complete.exists(self.image_id)


@functools.cache
def _host() -> _Host:
    return _Host()


def requests(draw: Draw) -> None:
    """Only the request that was signed gets bytes, the right ones; the others get a refusal, and never a 500."""
    host = _host()
    parts = urlsplit(host.signed)
    path, pairs, method = parts.path, parse_qsl(parts.query), "GET"
    change = draw.number(7)
    if change == 1:
        path = draw.pick((f"/replicas/{OTHER}", "/replicas/", f"/replicas/{draw.text(2)}", f"{path}{draw.text(1)}"))
    elif change == 2:
        pairs = [(name, draw.text(2) if draw.flag() else value) for name, value in pairs if draw.number(8)]
    elif change == 3:
        pairs += [(draw.pick(("kid", "expires", "sig", draw.text(1))), draw.text(2))]
    elif change == 4:
        method = draw.pick(("HEAD", "POST", "PUT", "OPTIONS"))
    query = urlencode(pairs, errors="replace") if change != 5 else draw.text()
    peer = draw.pick(("127.0.0.1", "::1", "", draw.text(1)))
    request = webob.Request.blank("/", method=method, environ={"REMOTE_ADDR": peer})
    request.environ |= {"PATH_INFO": path.encode("utf-8", "replace").decode("latin-1"), "QUERY_STRING": query}
    for name in ("HTTP_RANGE", "HTTP_PRIORITY", "HTTP_X_FORWARDED_FOR", "HTTP_IF_NONE_MATCH"):
        if draw.number(4) == 0:
            request.environ[name] = draw.pick(("bytes=0-0", "bytes=5-", "127.0.0.1", "*", draw.text(2)))
    answer = request.get_response(host.app)
    assert answer.status_int < 500, answer.status
    if answer.status_int in (200, 206) and method == "GET":
        first = answer.content_range.start if answer.status_int == 206 else 0
        assert answer.body == DATA[first : first + (answer.content_length or 0)]
        assert _is_signed(host, request.environ["PATH_INFO"], query), (path, query)


def _is_signed(host: _Host, path: str, query: str) -> bool:
    """The signed path, and each of the three parameters once with its value."""
    given = parse_qsl(query, keep_blank_values=True)
    own = [(name, value) for name, value in given if name in ("kid", "expires", "sig")]
    return path == urlsplit(host.signed).path and sorted(own) == sorted(parse_qsl(urlsplit(host.signed).query))
