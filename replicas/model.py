"""The facts we pass around: images, locations, hosts, and what was seen."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote, urlparse

from .verdict import Evidence, Verdict

IMAGE_ACTIVE = "active"
IMAGE_DEACTIVATED = "deactivated"
IMAGE_IS_GONE = ("deleted", "pending_delete", "killed")  # final: an id without a row may be one not seen yet

STORE_KEY = "store"
HOST_KEY = "replica_host"
ZONE_KEY = "replica_zone"

_PLAIN = re.compile(r"https?://[a-z0-9.:_-]+(?:/[^?#]*)?")
_PASSED_OVER = str.maketrans("", "", "\t\r\n")
_IMAGE_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # glance/api/v2/images.py, the schema


def is_image_id(name: str) -> bool:
    """Whether `name` has the form of an image id: a UUID with hyphens.

    Glance makes them in lower case, takes any case from a user, and keeps the spelling: so do we. Two ids that differ
    in case are two images, or one and none. A caseless database takes one for the other: `Catalogue` does not.
    """
    return _IMAGE_ID.fullmatch(name) is not None


def is_on_host(url: str, image_id: str) -> bool:
    """Whether a URL is that of a copy on a host, any host: `http(s)://.../replicas/ID`, however spelled.

    This alone tells cached copies from durable ones, whatever users write into metadata. Another image's copy is one.
    """
    end = f"/replicas/{image_id}"
    if url.endswith(end) and _PLAIN.fullmatch(url, 0, len(url) - len(end)):
        return True  # nearly all, like the next ones without taking them apart
    if url[:4].lower() != "http" or not ("replicas" in url or "%" in url or not url.isprintable()):
        return False
    try:
        parts = urlparse(url)  # as Glance's http driver reads it: line ends, tabs and ";parameters" are passed over
    except ValueError:
        return False
    path = posixpath.normpath(unquote(parts.path).translate(_PASSED_OVER))  # which the ledger keeps in percent
    _, mark, name = path.rpartition("/replicas/")
    return parts.scheme in ("http", "https") and bool(mark) and (name == image_id or is_image_id(name))


@dataclass(frozen=True)
class Digest:
    """What the bytes of an image must hash to: a hashlib name and lower-case hex."""

    algorithm: str
    value: str


@dataclass(frozen=True)
class Location:
    """One URL of an image in Glance's catalogue; `row` is its `image_locations.id`."""

    image_id: str
    url: str = field(repr=False)
    metadata: Mapping[str, object] = field(default_factory=dict)
    row: int | None = None

    @property
    def host(self) -> str | None:
        """The host that caches this copy, as far as the row says it; None for a durable location, whatever it says."""
        value = self.metadata.get(HOST_KEY)
        return value if isinstance(value, str) and value and self.is_cached else None

    @property
    def zone(self) -> str | None:
        """The zone of that host."""
        value = self.metadata.get(ZONE_KEY)
        return value if isinstance(value, str) and value else None

    @property
    def store(self) -> str | None:
        """Glance's store id; None in a single-store cloud."""
        value = self.metadata.get(STORE_KEY)
        return value if isinstance(value, str) and value else None

    @property
    def is_cached(self) -> bool:
        """A copy on a host: volatile, never counted as durable. Whose it is, the row need not say."""
        kept = self.__dict__  # nothing changes it, and a command asks dozens of times
        if "_is_cached" not in kept:
            kept["_is_cached"] = is_on_host(self.url, self.image_id)
        return bool(kept["_is_cached"])


@dataclass(frozen=True)
class Image:
    """One image row and its active locations, in Glance's order of insertion."""

    id: str
    status: str
    size: int | None  # bytes
    digest: Digest | None
    locations: tuple[Location, ...] = ()
    name: str | None = None
    owner: str | None = None
    visibility: str | None = None
    checksum: str | None = None  # md5, hex
    created_at: datetime | None = None  # UTC, aware

    @property
    def has_no_copy(self) -> bool:
        """Nobody can download it. An empty image may do without: Glance has no byte of it to send (LP #1025353)."""
        return not self.locations and self.size != 0

    @property
    def durable(self) -> tuple[Location, ...]:
        """Locations in stores."""
        return tuple(location for location in self.locations if not location.is_cached)

    @property
    def cached(self) -> tuple[Location, ...]:
        """Locations on hosts."""
        return tuple(location for location in self.locations if location.is_cached)


@dataclass(frozen=True)
class Host:
    """One glance-api machine with our filter, as its janitor last reported it to the ledger."""

    name: str
    zone: str | None
    url: str
    heartbeat: datetime | None = None  # UTC, aware, by the database's clock
    files: int = 0
    bytes_used: int = 0  # bytes
    bytes_free: int = 0  # bytes
    age_seconds: float = 0.0  # of the heartbeat, by the database's clock


@dataclass(frozen=True)
class Stored:
    """What a place itself says of an object; nothing of it was read."""

    size: int | None  # bytes
    digests: tuple[Digest, ...] = ()  # of every byte, computed by the place when they were written
    basis: str = "the place states no digest of its own"  # what was asked and compared, one line
    damage: str | None = None  # a part that is gone or is another one


@dataclass(frozen=True)
class Seen:
    """What one verification of a location brought home; `verify.judge` makes a verdict of it."""

    evidence: Evidence
    size: int | None = None  # bytes the place says or that were read
    digest: Digest | None = None  # of every byte: as hashed (`full`), or as the place says (`stored`)
    error: str | None = None  # one line, redacted
    failure: Verdict | None = None  # set when the verification itself failed; `judge` passes it on
    sampled: int = 0  # bytes that were compared with those of an intact copy, and are the same
    basis: str | None = None  # one line: what a verification that was not `full` rests on


@dataclass(frozen=True)
class Result:
    """A verdict on one location, and what it rests on."""

    location: Location
    verdict: Verdict
    evidence: Evidence
    detail: str = ""
    checked_at: datetime | None = None  # UTC, aware
    seconds: float = 0.0
    size: int | None = None
    digest: Digest | None = None  # of every byte, where all were read; the ledger does not keep it


class Last(NamedTuple):
    """What the ledger keeps of one place: the last verification of it, and the last one that read every byte."""

    verdict: Verdict
    evidence: Evidence
    checked_at: datetime  # UTC, aware
    full_verdict: Verdict | None = None
    full_checked_at: datetime | None = None

    @property
    def standing(self) -> Verdict:
        """The verdict that holds: what a full verification found corrupt stays so until the next full verification."""
        hidden = self.verdict is Verdict.INTACT and self.evidence is not Evidence.FULL
        return Verdict.CORRUPT if hidden and self.full_verdict is Verdict.CORRUPT else self.verdict

    @property
    def shown(self) -> tuple[Verdict, Evidence, datetime]:
        """What to show: that verdict, what it rests on, and since when."""
        if self.standing is self.verdict or self.full_checked_at is None:
            return self.verdict, self.evidence, self.checked_at
        return self.standing, Evidence.FULL, self.full_checked_at


class Use(NamedTuple):
    """How much was served: of one image, or by one host."""

    downloads: int  # responses that gave at least one byte
    bytes: int  # sent
    hit_bytes: int  # of these, from a complete cached file

    def plus(self, other: "Use") -> "Use":
        """Both together."""
        return Use(*map(sum, zip(self, other, strict=True)))


@dataclass
class Pass:
    """What one pass of a host's janitor did."""

    registered: int = 0
    withdrawn: int = 0
    adopted: int = 0
    removed: int = 0
    evicted_bytes: int = 0
    filled: int = 0
    scrubbed: int = 0
    damaged: int = 0
    problems: list[str] = field(default_factory=list)
