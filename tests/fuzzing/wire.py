"""What comes over the wire: ranges, signatures, paths, documents, Metalink, listings, answers of servers."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import webob

from glance_replicas import location, signing
from glance_replicas.client import document, metalink
from glance_replicas.errors import ConfigError, SourceError
from glance_replicas.middleware.sending import serve
from glance_replicas.model import Digest, Image, is_image_id
from glance_replicas.stores.hosts import remote
from glance_replicas.stores.swift import segments

from .draw import IMAGE, OTHER, Draw

_HEARTBEAT = "heartbeat_age_seconds"
DATA = bytes(range(37))
KEYS = signing.parse_keys(["k1:" + "s" * 32, "k2:" + "t" * 32])
_SERVED = Image(IMAGE, "active", len(DATA), Digest("sha512", hashlib.sha512(DATA).hexdigest()))


def ranges(draw: Draw) -> None:
    """Whatever the Range and the conditions: 200, 206, 304 or 416, and a body that is what its headers say."""
    request = webob.Request.blank(f"/v2/images/{IMAGE}/file")
    request.method = draw.pick(("GET", "HEAD"))
    names = ("Range", "If-Range", "If-None-Match", "If-Match", "If-Modified-Since", "If-Unmodified-Since")
    for name in names:
        if draw.number(3) == 0 or name == "Range":
            request.environ[f"HTTP_{name.upper().replace('-', '_')}"] = _condition(draw, name)
    answer = serve.response(request, _SERVED, _read, _closed, "x")
    answer = request.get_response(answer)
    assert answer.status_int in (200, 206, 304, 412, 416), answer.status
    if request.method == "GET" and answer.status_int in (200, 206):
        first, last = 0, len(DATA) - 1
        if answer.status_int == 206:
            first, last = answer.content_range.start, answer.content_range.stop - 1
            assert answer.content_range.length == len(DATA)
        assert answer.body == DATA[first : last + 1]
        assert answer.content_length == last + 1 - first


def _condition(draw: Draw, name: str) -> str:
    if name == "Range" and draw.flag():
        first, last = draw.pick(("", str(draw.whole()))), draw.pick(("", str(draw.whole())))
        return f"{draw.pick(('bytes=', 'bytes', 'Bytes = ', 'items='))}{first}{draw.pick(('-', '--', ','))}{last}"
    text = draw.text(4).encode("latin-1", "replace").decode("latin-1")
    return text.replace("\n", " ").replace("\r", " ")


def _read(start: int, stop: int) -> Iterator[bytes]:
    yield DATA[start:stop]


def _closed(sent: int, expected: int) -> None:
    assert sent <= expected


def signatures(draw: Draw) -> None:
    """A signature opens its own URL for its own time and methods; anything changed in it opens nothing."""
    now = 1_800_000_000.0
    plain = f"http://h:1/replicas/{IMAGE}"
    signed = parse_qs(urlsplit(signing.sign(plain, KEYS, 1 + draw.number(10_000), now=now)).query)
    url, query, moment = plain, dict(signed), now + draw.number(20_000) - 5_000
    changed = draw.number(6)
    if changed == 1:
        other = f"http://h:1/replicas/{OTHER}", f"http://h:2/replicas/{IMAGE}", f"http://h:1/replicas/{IMAGE.upper()}"
        url = draw.pick((*other, draw.text()))
    elif changed == 2:
        name = draw.pick(("kid", "expires", "sig"))
        query[name] = [draw.text() for _ in range(draw.number(4))]
    elif changed == 3:
        query["expires"] = [str(int(query["expires"][0]) + 1 + draw.number(100))]
    elif changed == 4:
        query = {draw.text(2): [draw.text()] for _ in range(draw.number(5))}
    method = draw.pick(("GET", "HEAD", "PUT", "DELETE", draw.text(2)))
    is_right = url == plain and {name: query.get(name) for name in signed} == signed
    is_in_time = moment < int(signed["expires"][0])
    may = is_right and is_in_time and method in ("GET", "HEAD")
    assert signing.verify(method, url, query, KEYS, moment) == may


def paths(draw: Draw) -> None:
    """A path names an image id or nothing, and the id is the one it spells."""
    path = f"/replicas/{draw.pick((IMAGE, IMAGE.upper(), ''))}{draw.text(3)}" if draw.flag() else draw.text()
    found = location.replica_path(path)
    assert found is None or (is_image_id(found) and path == f"/replicas/{found}")


def documents(draw: Draw) -> None:
    """A document is read or refused in words of ours; what was read is written and read again as the same."""
    if draw.flag():
        source: Any = draw.rest()
    else:
        source = json.dumps(_document(draw)) if draw.flag() else _document(draw)
    with contextlib.suppress(ConfigError):
        found = document.parse(source, draw.pick((None, IMAGE)))
        assert document.parse(document.dump(found)) == found
        metalinks(found)


def _document(draw: Draw) -> Any:
    made: dict[str, Any] = {"image_id": IMAGE} if draw.number(8) else {}
    names = ("name", "status", "size", "checksum", "os_hash_algo", "os_hash_value", "total", "id")
    made |= {name: draw.value(1) for name in names if draw.number(3) == 0}
    kind = draw.pick(("replicas", "locations"))
    entries = [_entry(draw) for _ in range(draw.number(4))]
    made[kind] = entries if draw.number(8) else draw.value()
    return made if draw.number(8) else draw.value()


def _entry(draw: Draw) -> Any:
    names = ("kind", "host", "zone", "store", "size", "priority", "durable", "state", "metadata", _HEARTBEAT)
    made = {"url": draw.text() if draw.flag() else f"http://h/{draw.text(3)}"}
    made |= {name: draw.value(2) for name in names if draw.number(4) == 0}
    if draw.flag():
        made["state"] = {
            name: draw.value(1) if draw.flag() else draw.pick(("intact", "full", "2026-01-01T00:00:00+00:00"))
            for name in ("verdict", "evidence", "checked_at", "age_seconds")
        }
    return made if draw.number(8) else draw.value()


def metalinks(made: document.Document) -> None:
    """XML that a parser reads, with the readable copies in their order; headers of one line each."""
    namespace = "{urn:ietf:params:xml:ns:metalink}"
    file = ElementTree.fromstring(metalink.dump(made)).find(f"{namespace}file")
    assert file is not None
    assert file.get("name") == made.image_id
    urls = [one.text or "" for one in file.iter(f"{namespace}url")]
    assert len(urls) == len(made.readable)
    for line in metalink.links(made):
        assert line.isascii()
        assert line.isprintable()
        assert line.startswith("<")


def listings(draw: Draw) -> None:
    """A host's list is whole or refused: as many files as it states, each with an id and a size."""
    body = draw.rest() if draw.flag() else _list_of(draw)
    cut = draw.number(64) + 1
    chunks = [body[at : at + cut] for at in range(0, len(body), cut)]
    with contextlib.suppress(SourceError):
        found = list(remote.files(chunks, "http://h/replicas/"))
        assert f"end {len(found)}\n".encode() in body
        for one in found:
            assert is_image_id(one.name)
            assert one.size is not None
            assert one.size >= 0


def _list_of(draw: Draw) -> bytes:
    lines = [f"{draw.pick((IMAGE, OTHER, draw.text(2)))} {draw.whole()} {draw.pick((time.time(), 1e20))}"]
    lines = [draw.pick((line, draw.text())) for line in lines * draw.number(4)]
    lines.append(f"end {draw.pick((len(lines), draw.whole()))}")
    return "".join(f"{one}\n" for one in lines).encode("utf-8", "replace")


def manifests(draw: Draw) -> None:
    """A list of segments is a list of objects, or refused in words of ours."""
    text = draw.rest() if draw.flag() else json.dumps(draw.value()).encode()
    with contextlib.suppress(SourceError):
        assert all(isinstance(one, dict) for one in segments.entries(text, "swift://c/o"))
