"""Answers that carry an image's bytes: headers, ranges, conditions, and a body that is as long as it says."""

import base64
import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import webob

from glance_replicas.checksum import PIECE
from glance_replicas.errors import ClientLeft
from glance_replicas.model import Image

from .connection import Connection
from .direct import Send
from .parking import Spot

Read = Callable[[int, int], Iterator[bytes]]  # bytes [start, stop)


class Body:
    """A WSGI iterable over a range of an image. WebOb asks it for sub-ranges (`app_iter_range`).

    A plain iterator, never `wsgi.file_wrapper`: uWSGI 2.0.31 ignores its offset and overruns Content-Length.
    With `way.send` all but the first piece goes past the iterator, with a spot all but the headers past the server.
    `closed(sent, expected)` is called once, when the server, or the thread at that spot, lets go.
    """

    def __init__(
        self, read: Read, start: int, stop: int, closed: Callable[[int, int], None], way: "Way | None" = None
    ) -> None:
        self._read = read
        self._span = (start, stop)
        self._closed: Callable[[int, int], None] | None = closed
        self._way = way or Way()
        self._sent = 0

    def app_iter_range(self, start: int, stop: int) -> "Body":
        """The same bytes from `start` to before `stop`; takes the place of this body."""
        closed, self._closed = self._closed, None
        return Body(self._read, start, stop, closed or _nothing, self._way)

    def __iter__(self) -> Iterator[bytes]:
        with contextlib.suppress(ClientLeft):  # nobody is left to be told
            yield from self._bytes()

    def _bytes(self) -> Iterator[bytes]:
        (start, stop), way = self._span, self._way
        if way.at_once:
            yield b""
        if way.spot is not None and way.connection is not None:
            yield from self._handed_over(way.spot, way.connection)
            return
        if way.send is not None and stop - start > PIECE:
            yield from self._pieces(start, start + PIECE)
            for sent in way.send(start + self._sent, stop):
                self._sent += sent
        yield from self._pieces(start + self._sent, stop)

    def _handed_over(self, spot: Spot, connection: Connection) -> Iterator[bytes]:
        """Nothing, with which uWSGI sends the headers. Its part is over then, and a thread of ours goes on."""
        yield b""
        closed, self._closed = self._closed or _nothing, None
        expected = self._span[1] - self._span[0]
        spot.send(connection, self._parts(connection), lambda: closed(self._sent, expected), self._way.what)

    def _parts(self, connection: Connection) -> Iterator[None]:
        """Sends the body, a part at each step."""
        (start, stop), send = self._span, self._way.send
        if send is not None:
            for sent in send(start, stop):
                self._sent += sent
                yield
        for piece in self._read(start + self._sent, stop):
            connection.send(piece)
            self._sent += len(piece)
            yield

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        for chunk in self._read(start, stop):
            self._sent += len(chunk)
            yield chunk

    def close(self) -> None:
        """Called by the server, whether or not the body was read to its end."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self._sent, self._span[1] - self._span[0])


@dataclass(frozen=True)
class Way:
    """How a body goes out: past Python, from a thread of ours, or, where nothing is said, through WSGI.

    `at_once`: its headers do not wait for its first byte (uWSGI and gunicorn send them with an empty piece).
    """

    send: Send | None = None
    connection: Connection | None = None
    spot: Spot | None = None
    what: str = ""  # whose body, for the log
    at_once: bool = False


class Closed(Protocol):
    """What happens when a response is over; both in bytes."""

    def __call__(self, sent: int, expected: int) -> None:
        """Called once."""


def response(  # noqa: PLR0917
    request: webob.Request, image: Image, read: Read, closed: Closed, cache_status: str, way: Way | None = None
) -> webob.Response:
    """200, 206, 304 or 416 with the image's bytes, for GET and HEAD (RFC 9110 sections 13 and 14)."""
    size = image.size or 0
    _normalize(request, size, _etag(image))
    answer = webob.Response(
        request=request,
        app_iter=Body(read, 0, size, closed, way),
        content_type="application/octet-stream",
        charset=None,
        conditional_response=True,
    )
    answer.content_length = size
    answer.accept_ranges = "bytes"
    describe(answer, image, cache_status)
    return answer


def without_body(request: webob.Request, image: Image, cache_status: str) -> webob.Response:
    """The same where no byte of the image is asked for: HEAD, or `span` is None."""
    return response(request, image, _no_bytes, _nothing, cache_status)


def span(request: webob.Request, image: Image) -> tuple[int, int] | None:
    """Bytes [start, stop) that the answer will carry, by the request's range and conditions; None: 304 or 416.

    Known before anything is opened, waited for or begun.
    """
    if not any(name in request.environ for name in _CONDITIONS):
        return _asked(request, image)
    status, headers, _body = request.call_application(without_body(request, image, ""))
    if status.startswith("200"):
        return 0, image.size or 0
    found = _CONTENT_RANGE.fullmatch(dict(headers).get("Content-Range", ""))
    return (int(found[1]), int(found[2]) + 1) if found and status.startswith("206") else None


def _asked(request: webob.Request, image: Image) -> tuple[int, int] | None:
    """The same where no condition says more: of a range what WebOb makes of it."""
    size = image.size or 0
    if "HTTP_RANGE" not in request.environ:
        return 0, size
    _normalize(request, size, _etag(image))
    if request.range is None:
        return 0, size
    found = request.range.range_for_length(size)
    return None if found is None else (int(found[0]), int(found[1]))


def _normalize(request: webob.Request, size: int, etag: str) -> None:
    """Where WebOb 1.8.11 reads conditions and ranges otherwise than RFC 9110, say what it reads right.

    What is no single range is ignored (14.2); a suffix longer than the whole is the whole (14.1.2); `If-None-Match: *`
    matches whatever there is (13.1.2).
    """
    if not is_single_range(request):
        request.range = None
    elif request.range is not None and request.range.start < -size:
        request.range = (0, None)
    if request.headers.get("If-None-Match", "").strip() == "*":
        request.headers["If-None-Match"] = f'"{etag}"'


def describe(answer: webob.Response, image: Image, cache_status: str) -> None:
    """The headers that say which bytes these are, and where they came from (RFC 9530, RFC 9211)."""
    if image.digest is not None:
        answer.etag = _etag(image)
        if image.digest.algorithm in _REPR_DIGESTS:
            value = base64.b64encode(bytes.fromhex(image.digest.value)).decode()
            answer.headers["Repr-Digest"] = f"{_REPR_DIGESTS[image.digest.algorithm]}=:{value}:"
    if image.checksum:
        answer.headers["Content-MD5"] = image.checksum  # hex, as Glance writes it
    answer.headers["Cache-Status"] = cache_status


def is_single_range(request: Any) -> bool:
    """Whether the Range header, if any, is one well-formed range.

    WebOb 1.8.11 gives only the first of several, the whole file for `bytes=-0`, and raises for `bytes=-`.
    """
    text = request.environ.get("HTTP_RANGE")
    return text is None or _SINGLE_RANGE.fullmatch(text.strip()) is not None


_SINGLE_RANGE = re.compile(r"bytes=(\d{1,18}-\d{0,18}|-0*[1-9]\d{0,17})", re.ASCII)
_CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/\d+", re.ASCII)
_REPR_DIGESTS = {"sha512": "sha-512", "sha256": "sha-256", "md5": "md5"}


@functools.lru_cache(256)
def quoted(text: str) -> str:
    """An sf-string (RFC 8941 section 3.3.3)."""
    plain = "".join(character for character in text if " " <= character <= "~").replace("\\", "").replace('"', "'")
    return f'"{plain[:200]}"'


def progress(reader: int, have: int, size: int) -> str:
    """The detail of `Cache-Status` for a reader of a fill: which one of this process, and how far the fill is."""
    return quoted(f"reader {reader}, {100 * have // size} percent")


def _etag(image: Image) -> str:
    """The same on all hosts, since it is the digest."""
    return f"{image.digest.algorithm}-{image.digest.value}" if image.digest else image.id


def _nothing(sent: int, expected: int) -> None:
    pass


def _no_more() -> None:
    pass


def _no_bytes(_start: int, _stop: int) -> Iterator[bytes]:
    yield from ()
