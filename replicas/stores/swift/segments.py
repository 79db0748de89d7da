"""What Swift says of an object without sending it: its ETag, and those of the segments of a large object.

Swift computed the ETag of a plain object, its md5, when the bytes were written. That of a large object is made of the
ETags of its segments and is no digest of the content; its segments can be counted and compared with the list instead.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from ...errors import Absent, SourceError, Unreachable, WrongAnswer
from ...model import Digest, Stored
from ..http.answers import Target, length_of
from ..http.wire import Wire
from ..pieces import Piece, placed

MOST = 10_000  # segments that are asked for one by one
_DOCUMENT = 16 << 20  # bytes of a list, at most
_PAGE = 1000  # entries of a listing asked for at once
_MD5 = re.compile(r"[0-9a-f]{32}")

Beside = Callable[[str], Target]  # of a quoted "container/name" of the same account, with a query perhaps


@dataclass(frozen=True)
class Segment:
    """One part of a large object, as its list has it."""

    path: str  # container/name
    size: int  # bytes
    etag: str | None


def stored(wire: Wire, target: Target, beside: Beside) -> Stored:
    """What Swift says of the object. Raises Absent when it is not there; a lost segment is damage of what is."""
    headers = wire.head(target)
    size, etag = length_of(headers, target), headers.get("ETag", "").strip('"').lower()
    if headers.get("X-Static-Large-Object", "").lower() == "true":
        return _large(wire, beside, size, "SLO", static(wire, target))
    if manifest := headers.get("X-Object-Manifest"):
        return _large(wire, beside, size, "DLO", list(dynamic(wire, beside, unquote(manifest))))
    digests = (Digest("md5", etag),) if _MD5.fullmatch(etag) else ()
    return Stored(size, digests, "the ETag in Swift, nothing was read" if digests else "Swift states no md5 of it")


def _large(wire: Wire, beside: Beside, size: int | None, kind: str, segments: list[Segment] | None) -> Stored:
    if segments is None or len(segments) > MOST:
        return Stored(size, basis=f"an {kind} of another form than Glance writes, its segments were not checked")
    for number, segment in enumerate(segments, 1):
        damage = _damage(wire, beside, segment)
        if damage:
            return Stored(size, damage=f"segment {number} of {len(segments)} of the {kind}, {segment.path}: {damage}")
    total = sum(segment.size for segment in segments)
    if len(segments) == 1 and _MD5.fullmatch(segments[0].etag or ""):
        return Stored(total, (Digest("md5", segments[0].etag or ""),), f"the ETag of the one segment of the {kind}")
    return Stored(total, basis=f"the {len(segments)} segments of the {kind} are as listed, with no digest of the whole")


def _damage(wire: Wire, beside: Beside, segment: Segment) -> str | None:
    """What differs from the list, if anything does. Raises Unreachable where that cannot be told."""
    path = quote(segment.path)
    try:
        headers = wire.head(beside(path))
    except Absent:
        must_be_swift(wire, beside(path.partition("/")[0]))
        return "it is not there"
    size, etag = length_of(headers, beside(path)), headers.get("ETag", "").strip('"').lower()
    if size is not None and size != segment.size:
        return f"{size} bytes, listed with {segment.size}"
    if segment.etag and etag != segment.etag:
        return f"ETag {etag[:40]}, listed with {segment.etag[:40]}"
    return None


def must_be_swift(wire: Wire, container: Target) -> None:
    """Raises Unreachable unless Swift itself says that the container is there: only then is its 404 to be believed."""
    try:
        headers = wire.head(container)
    except SourceError as error:
        raise Unreachable(f"{container.shown}: its container does not answer either") from error
    if "X-Container-Object-Count" not in headers:
        raise Unreachable(f"{container.shown}: not found, but by something that is not Swift")


def static(wire: Wire, target: Target) -> list[Segment] | None:
    """The manifest's segments; None for one with ranges, inline data or manifests inside, which Glance never writes."""
    found = document(wire, _with(target, "multipart-manifest=get"))
    if any(part.get("range") or part.get("sub_slo") or "data" in part for part in found):
        return None
    return [_segment(part, str(part.get("name", "")).lstrip("/"), target) for part in found]


def dynamic(wire: Wire, beside: Beside, manifest: str) -> Iterator[Segment]:
    """The objects whose names begin as the manifest says, in the order of their names."""
    container, _, prefix = manifest.strip("/").partition("/")
    marker, count = "", 0
    while count <= MOST:
        query = f"format=json&limit={_PAGE}&prefix={quote(prefix, safe='')}&marker={quote(marker, safe='')}"
        listing = beside(f"{quote(container)}?{query}")
        page = document(wire, listing)
        for part in page:
            yield _segment(part, f"{container}/{part.get('name', '')}", listing)
        if len(page) < _PAGE or str(page[-1].get("name")) <= marker:
            return
        marker, count = str(page[-1].get("name")), count + len(page)


def wanted(listed: Sequence[Segment], size: int, prefix: str | None) -> list[Piece] | None:
    """The segments of an image of `size` bytes; None: they cannot be told from those that are listed.

    With a `prefix` (a DLO) the list is of what is there: when one is lost or cut short, the others say how Glance
    numbered and cut them.
    """
    if sum(segment.size for segment in listed) == size:
        return placed([(segment.path, segment.size) for segment in listed])
    step = max((segment.size for segment in listed), default=0)
    count = -(-size // step) if step else 0
    if prefix is None or not 0 < count <= MOST:
        return None
    first = 0 if f"{prefix}{0:05d}" in {segment.path for segment in listed} else 1
    paths = [f"{prefix}{number:05d}" for number in range(first, first + count)]
    if not {segment.path for segment in listed} <= set(paths):
        return None
    return placed([(path, min(step, size - number * step)) for number, path in enumerate(paths)])


def _segment(entry: Mapping[str, Any], path: str, target: Target) -> Segment:
    size, etag = entry.get("bytes"), entry.get("hash")
    if not path.partition("/")[2] or not isinstance(size, int):
        raise WrongAnswer(f"{target.shown}: invalid segment list")
    return Segment(path, size, etag.lower() if isinstance(etag, str) else None)


def document(wire: Wire, target: Target) -> list[Mapping[str, Any]]:
    """A list of JSON objects. Raises WrongAnswer for anything else, or too much of it."""
    text = bytearray()
    with wire.open(target) as body:
        for chunk in body:
            text += chunk
            if len(text) > _DOCUMENT:
                raise WrongAnswer(f"{target.shown}: a list of segments longer than {_DOCUMENT} bytes")
    return entries(text, target.shown)


def entries(text: bytes | bytearray, shown: str) -> list[Mapping[str, Any]]:
    """The objects of a JSON list. Raises WrongAnswer for anything else."""
    try:
        found = json.loads(text or b"[]")
    except (ValueError, RecursionError) as error:
        raise WrongAnswer(f"{shown}: the segment list is not JSON") from error
    if not isinstance(found, list) or not all(isinstance(segment, dict) for segment in found):
        raise WrongAnswer(f"{shown}: invalid segment list")
    return found


def _with(target: Target, query: str) -> Target:
    return Target(f"{target.url}?{query}", target.shown, target.headers)
