"""One HTTP request and its checked answer: what the readers over HTTP share.

No redirect is followed, no answer decoded, nothing retried but a kept connection that the server had closed meanwhile.
"""

import contextlib
import http.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import parse_url

from ...checksum import PIECE
from ...errors import Absent, SourceError, Unreachable, Unwritable, WrongAnswer
from ..body import Body, Limits
from . import deadline
from .answers import Target, check, extent, failure, length_of, size_by_first_byte, unsatisfied
from .heads import Answer, Heads
from .pace import Pace

A = TypeVar("A")
_KEPT = 64  # idle connections to one host; more at once are opened and closed


@dataclass(frozen=True)
class Tls:
    """Which certificates are believed: the system's authorities unless a file names others."""

    ca_file: str | None = None
    insecure: bool = False  # any certificate; never where a file is named


class Wire:
    """Requests within `limits`, over connections that are kept. For many threads at once."""

    def __init__(self, limits: Limits, *, ca_file: str | None = None, insecure: bool = False) -> None:
        self._limits = limits
        self._pool = urllib3.PoolManager(
            maxsize=_KEPT,
            timeout=urllib3.Timeout(connect=limits.connect, read=limits.stall),
            retries=False,
            cert_reqs="CERT_NONE" if insecure else "CERT_REQUIRED",
            ca_certs=ca_file,
        )
        deadline.watch(self._pool)

    def open(self, target: Target, offset: int = 0, stop: int | None = None) -> Body:
        """The bytes from `offset` on, to before `stop` where the place knows Range.

        Where Range is ignored what comes before is dropped.
        """
        last = "" if stop is None else stop - 1
        response = self._send("GET", target, {"Range": f"bytes={offset}-{last}"} if offset or stop else {})
        try:
            if response.status == 416 and offset and unsatisfied(response) == offset:
                response.close()
                return Body(iter(()), offset, lambda: None)
            check(response, target)
            size, left, skip = extent(response, target, offset, stop)
        except SourceError:
            response.close()
            raise
        pace = Pace(self._limits, target.shown)
        chunks = _Chunks(response, target, self._limits, pace, left, skip, offset - skip)
        return Body(iter(chunks), size, _closer(response), skip)

    def size(self, target: Target) -> int | None:
        """The length HEAD states; where HEAD is not allowed, what a GET of the first byte states."""
        answer = self._head(target)
        if answer.status in (405, 501):
            return self._size_by_get(target)
        check(answer, target)
        return length_of(answer.headers, target)

    def head(self, target: Target) -> Mapping[str, str]:
        """The headers of a successful HEAD; names in any case."""
        answer = self._head(target)
        if answer.status != 204:
            check(answer, target)
        return answer.headers

    def put(
        self, target: Target, body: Iterable[bytes] | bytes, size: int, headers: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The place holds this body of `size` bytes; the headers of its answer. When `body` raises, its end never came.

        Raises Unwritable when it is refused for what it is: another digest than the headers say, too large, no room.
        """
        sent = {"Content-Length": str(size), **headers}
        return self._written(self._send("PUT", target, sent, body), target)

    def delete(self, target: Target) -> None:
        """There is no such object."""
        with contextlib.suppress(Absent):
            self._written(self._send("DELETE", target, {}), target)

    def _written(self, response: urllib3.BaseHTTPResponse, target: Target) -> Mapping[str, str]:
        response.close()
        if response.status in (409, 411, 412, 413, 422, 507):
            raise Unwritable(f"{target.shown}: the store refused it with status {response.status}")
        if response.status not in (200, 201, 202, 204):
            check(response, target)
        return response.headers

    def _size_by_get(self, target: Target) -> int | None:
        response = self._send("GET", target, {"Range": "bytes=0-0"})
        response.close()
        return size_by_first_byte(response, target)

    def _send(
        self, method: str, target: Target, headers: Mapping[str, str], body: Iterable[bytes] | bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        sent = {"Accept-Encoding": "identity", **target.headers, **headers}
        return self._answer(target, lambda: self._request(method, target.url, sent, body), again=body is None)

    def _head(self, target: Target) -> Answer:
        def ask() -> Answer:
            url = parse_url(target.url)
            pool: Heads = self._pool.connection_from_host(url.host, url.port, url.scheme)  # type: ignore[assignment]
            return pool.head(url.request_uri, {"Accept-Encoding": "identity", **target.headers})

        return self._answer(target, ask)

    def _answer(self, target: Target, ask: Callable[[], A], *, again: bool = True) -> A:
        """What `ask` returns; it may be called `again` where a kept connection turns out to have been closed."""
        try:
            try:
                return ask()
            except ProtocolError as error:
                if not again or not isinstance(error.args[-1], http.client.RemoteDisconnected | ConnectionError):
                    raise
                return ask()
        except HTTPError as error:
            raise failure(target.shown, error, self._limits) from error

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: Iterable[bytes] | bytes | None
    ) -> urllib3.BaseHTTPResponse:
        return self._pool.request(
            method, url, body=body, headers=headers, preload_content=False, decode_content=False, redirect=False
        )


@dataclass
class _Chunks:
    """The rest of an answer's body, `left` bytes of it (None: until it ends), without the first `skip`.

    It begins `at` so many bytes of the whole. Pieces end at multiples of PIECE: a file written so costs less.
    """

    response: urllib3.BaseHTTPResponse
    target: Target
    limits: Limits
    pace: Pace
    left: int | None
    skip: int
    at: int

    def __iter__(self) -> Iterator[bytes]:
        while self.left != 0:
            piece = self.pace.read(self._read)
            if not piece:
                break
            self.at += len(piece)
            if self.left is not None:
                self.left -= len(piece)
            kept = piece[self.skip :]
            self.skip -= len(piece) - len(kept)
            if kept:
                yield kept
        if self.left:
            raise Unreachable(f"{self.target.shown}: broke off {self.left} bytes early")
        if self.skip:
            raise WrongAnswer(f"{self.target.shown}: ends before the offset asked for")

    def _read(self) -> bytes:
        # One read of the socket at most, so that `Pace` sees a drip; never past what Content-Range promised, which a
        # body in chunks could.
        most = PIECE - self.at % PIECE
        try:
            return self.response.read1(most if self.left is None else min(most, self.left)) or b""
        except HTTPError as error:
            raise failure(self.target.shown, error, self.limits) from error


def _closer(response: urllib3.BaseHTTPResponse) -> Callable[[], None]:
    def close() -> None:
        response.close()  # an answer read to its end has given its connection back already
        response.release_conn()

    return close
