"""What an answer over HTTP says, checked: its status, its length, its range, and what a fault of urllib3 means."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationValueError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from ...errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported, WrongAnswer
from ..body import Limits
from .heads import Answer

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})")


@dataclass(frozen=True)
class Target:
    """Where a request really goes, and the name it has in errors and logs."""

    url: str = field(repr=False)
    shown: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    marks: tuple[str, ...] = ()  # headers one of which is in every answer of that kind of server


def check(response: BaseHTTPResponse | Answer, target: Target) -> None:
    """Raises unless this is 200 or 206 and the bytes as they are (RFC 9110, 8.4)."""
    status = response.status
    text = f"{target.shown}: status {status}"
    if status in (404, 410):
        raise Absent(text)
    if status in (401, 403):
        raise Denied(text)
    if status not in (200, 206):
        raise WrongAnswer(text) if status < 400 or status == 416 else Unreachable(text)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise WrongAnswer(f"{target.shown}: encoded as {encoding[:20]!r}, though the bytes as they are were asked for")
    if target.marks and not any(name in response.headers for name in target.marks):
        raise WrongAnswer(f"{target.shown}: status {status} of another server, it has no {' nor '.join(target.marks)}")


def length_of(headers: Mapping[str, str], target: Target) -> int | None:
    """The length of the body that these headers state, in bytes. Raises WrongAnswer for one that is none."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return None
    texts = {text.strip() for text in headers.get("Content-Length", "").split(",")}
    if texts == {""}:
        return None
    text = texts.pop()
    if texts or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise WrongAnswer(f"{target.shown}: an invalid Content-Length")
    return int(text)


def extent(
    response: BaseHTTPResponse, target: Target, offset: int, stop: int | None = None
) -> tuple[int | None, int | None, int]:
    """Of an answer to a request for what is from `offset` to before `stop`: whole size, bytes to come, to drop."""
    length = length_of(response.headers, target)
    if response.status == 200:
        if length is not None and length < offset:
            raise WrongAnswer(f"{target.shown}: {length} bytes, shorter than the offset {offset}")
        return length, length, offset
    text = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text)
    first, last, total = map(int, match.groups()) if match else (-1, -1, -1)
    end = total if stop is None else min(stop, total)
    if not (offset or stop) or first != offset or last != end - 1 or length not in (None, end - offset):
        raise WrongAnswer(f"{target.shown}: asked for bytes {offset}-, got {text[:60]!r} of length {length}")
    return total, end - offset, 0


def size_by_first_byte(response: BaseHTTPResponse, target: Target) -> int | None:
    """The size of the whole that the answer to a request for its first byte states."""
    if response.status == 416:
        return unsatisfied(response)
    check(response, target)
    if response.status == 200:
        return length_of(response.headers, target)
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match or match.group(1, 2) != ("0", "0"):
        raise WrongAnswer(f"{target.shown}: another range than the first byte")
    return int(match.group(3))


def unsatisfied(response: BaseHTTPResponse) -> int | None:
    """The size of the whole that a 416 states."""
    match = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def failure(shown: str, error: HTTPError, limits: Limits) -> SourceError:
    """What a fault of urllib3 means. Its own text may hold the signed URL and is never used."""
    if isinstance(error, ReadTimeoutError):
        return Stalled(f"{shown}: no data for {limits.stall:g} s")
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return Unreachable(f"{shown}: no connection within {limits.connect:g} s")
    if isinstance(error, LocationValueError):
        return Unsupported(f"{shown}: not a URL that can be asked for")
    if isinstance(error, InvalidHeader):
        return WrongAnswer(f"{shown}: contradictory headers")
    return Unreachable(f"{shown}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, socket.gaierror):
            return "the host name is not known"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror.lower()
        found = found.__cause__ or found.__context__
    return "the connection broke off" if isinstance(error, ProtocolError) else type(error).__name__
