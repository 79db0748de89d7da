"""The JSON document of an image's replicas: what the api filter answers and the client reads.

`parse` takes it for hostile: it comes over the network, or from a file somebody was handed. It also reads what a
Glance without our filter shows: the image's own metadata (Image API v2, `GET /v2/images/{id}`, with `locations` where
the site shows them) and `GET /v2/images/{id}/locations`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from .. import checksum
from ..location import is_web, kind
from ..model import Digest, Image, Location, Result, is_image_id
from ..verdict import Evidence, Verdict
from .json_values import load, seconds_in, text_in, unusable, url_in, whole_in

MAX_REPLICAS = 1000
MOST_CACHED = 50  # copies on hosts that a document names
_TEXTS = ("name", "status", "checksum", "os_hash_algo", "os_hash_value", "alarm")


@dataclass(frozen=True)
class State:
    """The last verdict on a replica, as the document tells it."""

    verdict: Verdict
    evidence: Evidence
    checked_at: datetime | None = None  # UTC, aware
    age_seconds: float | None = None


@dataclass(frozen=True)
class Replica:
    """One copy in a document; `priority` 1 is the best for the caller the document was made for."""

    url: str = field(repr=False)
    kind: str
    durable: bool
    host: str | None = None
    zone: str | None = None
    store: str | None = None
    size: int | None = None  # bytes
    priority: int = 1
    state: State | None = None
    heartbeat_age_seconds: float | None = None

    @property
    def is_cached(self) -> bool:
        """On a host, not in a store."""
        return not self.durable

    @property
    def is_readable(self) -> bool:
        """A client can read it: plain HTTP, no credentials of a store needed."""
        return is_web(self.url)


@dataclass(frozen=True)
class Document:
    """An image and its replicas, best first."""

    image_id: str
    name: str | None = None
    status: str | None = None
    size: int | None = None  # bytes
    checksum: str | None = None  # md5, hex
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    replicas: tuple[Replica, ...] = ()
    alarm: str | None = None  # what is wrong with the image as a whole: it has cached copies only
    total: int | None = None  # copies the caller may know of; `replicas` are the best of them. None: not said
    is_ordered: bool = field(default=True, compare=False)  # by whoever made it; Glance's own answers are not

    @property
    def digest(self) -> Digest | None:
        """What the bytes must hash to; None when the image says nothing that can be checked here."""
        return checksum.expected(self.os_hash_algo, self.os_hash_value, self.checksum)

    @property
    def download(self) -> str:
        """The path of Glance's own download. Never taken from the document: a token is sent there."""
        return f"/v2/images/{self.image_id}/file"

    @property
    def readable(self) -> tuple[Replica, ...]:
        """The replicas a client can read, best first."""
        return tuple(copy for copy in self.replicas if copy.is_readable)


def replica(location: Location, url: str, result: Result | None, heartbeat_age: float | None, now: datetime) -> Replica:
    """One entry from what catalogue and ledger know; `url` is the location's own or the signed one."""
    state = None
    if result is not None:
        age = (now - result.checked_at).total_seconds() if result.checked_at else None
        state = State(result.verdict, result.evidence, result.checked_at, age)
    return Replica(
        url=url,
        kind=kind(location),
        durable=not location.is_cached,
        host=location.host,
        zone=location.zone,
        store=location.store,
        size=result.size if result else None,
        state=state,
        heartbeat_age_seconds=heartbeat_age,
    )


def build(image: Image, replicas: Sequence[Replica], alarm: str | None = None) -> Document:
    """The document of an image with its replicas in this order, which becomes their priority.

    Of copies on hosts only the first `MOST_CACHED`, which is more than a client tries.
    """
    digest = image.digest
    multihash = digest if digest and digest != checksum.expected(None, None, image.checksum) else None
    return Document(
        image_id=image.id,
        name=image.name,
        status=image.status,
        size=image.size,
        checksum=image.checksum,
        os_hash_algo=multihash.algorithm if multihash else None,
        os_hash_value=multihash.value if multihash else None,
        replicas=tuple(replace(copy, priority=place) for place, copy in enumerate(_best(replicas), 1)),
        alarm=alarm,
        total=len(replicas),
    )


def _best(replicas: Sequence[Replica]) -> Iterator[Replica]:
    left = MOST_CACHED
    for copy in replicas:
        left -= copy.is_cached
        if copy.durable or left >= 0:
            yield copy


def dump(document: Document) -> str:
    """The document as JSON text; `parse` gives the same document back."""
    fields = {name: getattr(document, name) for name in _TEXTS}
    fields |= {"size": document.size, "total": document.total, "replicas": [_entry(copy) for copy in document.replicas]}
    return json.dumps({"image_id": document.image_id, **fields, "download": document.download}, allow_nan=False)


def _entry(copy: Replica) -> dict[str, object]:
    state = None
    if copy.state:
        at = copy.state.checked_at
        state = {
            "verdict": str(copy.state.verdict),
            "evidence": str(copy.state.evidence),
            "checked_at": at.astimezone(UTC).isoformat() if at else None,
            "age_seconds": copy.state.age_seconds,
        }
    names = ("url", "kind", "durable", "host", "zone", "store", "size", "priority", "heartbeat_age_seconds")
    return {**{name: getattr(copy, name) for name in names}, "state": state}


def parse(source: str | bytes | Mapping[str, Any] | Sequence[Any], image_id: str | None = None) -> Document:
    """The document in JSON text or in the value it stands for, replicas by priority. Raises ConfigError.

    A list is the answer of `GET /v2/images/{id}/locations`, which does not name its image: `image_id` does.
    """
    value = load(source) if isinstance(source, str | bytes) else source
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        value = {"id": image_id, "locations": list(value)}
    if not isinstance(value, Mapping):
        raise unusable("it is no JSON object")
    found = value.get("image_id", value.get("id", image_id))
    if not isinstance(found, str) or not is_image_id(found):
        raise unusable("image_id is not an image id")
    if image_id is not None and found.lower() != image_id.lower():  # databases without case answer for both
        raise unusable(f"it is about image {found}, not {image_id}")
    texts = {name: text_in(value, name, "") for name in _TEXTS}
    return Document(
        found,
        **texts,
        size=whole_in(value, "size", "", "number of bytes"),
        replicas=_replicas(value, found),
        total=whole_in(value, "total", "", "number of copies"),
        is_ordered="replicas" in value,
    )


def _replicas(value: Mapping[str, Any], image_id: str) -> tuple[Replica, ...]:
    ours = "replicas" in value
    entries = value.get("replicas") if ours else (value.get("locations") or [])
    if not isinstance(entries, list):
        raise unusable(f"{'replicas' if ours else 'locations'} is no list")
    if len(entries) > MAX_REPLICAS:
        raise unusable(f"it names {len(entries)} replicas, more than {MAX_REPLICAS}")
    read = _replica if ours else partial(_glance_location, image_id)
    found = [read(entry, f"replicas[{place}]", place + 1) for place, entry in enumerate(entries)]
    return tuple(sorted(found, key=lambda copy: copy.priority))


def _replica(entry: Any, where: str, place: int) -> Replica:
    if not isinstance(entry, Mapping):
        raise unusable(f"{where} is no object")
    durable, priority = entry.get("durable", True), entry.get("priority", place)
    if not isinstance(durable, bool):
        raise unusable(f"{where}.durable is neither true nor false")
    if not isinstance(priority, int) or isinstance(priority, bool) or not 1 <= priority <= 999_999:
        raise unusable(f"{where}.priority is not a whole number from 1 to 999999")  # the range of RFC 5854
    return Replica(
        url=url_in(entry, where),
        kind=text_in(entry, "kind", where) or "unknown",
        durable=durable,
        **{name: text_in(entry, name, where) for name in ("host", "zone", "store")},
        size=whole_in(entry, "size", where, "number of bytes"),
        priority=priority,
        state=_state(entry.get("state"), f"{where}.state"),
        heartbeat_age_seconds=seconds_in(entry, "heartbeat_age_seconds", where),
    )


def _glance_location(image_id: str, entry: Any, where: str, place: int) -> Replica:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("metadata", {}), Mapping):
        raise unusable(f"{where} is no location with url and metadata")
    location = Location(image_id, url_in(entry, where), dict(entry.get("metadata", {})))
    return Replica(
        location.url, kind(location), not location.is_cached, location.host, location.zone, location.store, None, place
    )


def _state(value: Any, where: str) -> State | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise unusable(f"{where} is no object")
    try:
        at = text_in(value, "checked_at", where)
        moment = datetime.fromisoformat(at) if at else None
        if moment is not None:
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        word, depth = text_in(value, "verdict", where), text_in(value, "evidence", where)
        if word is None or depth is None:
            raise ValueError("a state without verdict or evidence")
        verdict, evidence = Verdict(word), Evidence(depth)
    except (ValueError, OverflowError) as error:
        raise unusable(f"{where}: {str(error)[:100]}") from error
    return State(verdict, evidence, moment, seconds_in(value, "age_seconds", where))
