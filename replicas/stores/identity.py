"""What identifies the object behind a URL, by whatever name it goes and with whosever credentials it is read."""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_AMAZON = re.compile(r"(?:.+\.)?s3[.-](?:.+\.)?amazonaws\.com(\.cn)?")


@dataclass(frozen=True)
class Place:
    """Locations with one `key` may be names of one copy, and count as one; with a mark in common they surely are."""

    key: Hashable
    marks: frozenset[Hashable] = frozenset({"key"})

    def is_surely(self, other: "Place") -> bool:
        """Whether both are one copy beyond doubt."""
        return self.key == other.key and bool(self.marks & other.marks)


def server(address: str, scheme: str = "https") -> str:
    """HOST:PORT of an address, lower-case and with no port that its scheme has anyway."""
    parts = urlsplit(address if "://" in address else f"{scheme}://{address}")
    host = (parts.hostname or "").rstrip(".")
    return f"{host}:{parts.port}" if parts.port not in (None, *_PORTS.values()) else host


def account(url: str, project: str | None) -> str:
    """The account in a storage URL such as https://swift/v1/AUTH_abc; where it names none (Ceph) the project's."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return project or name if re.fullmatch(r"(?:v\d+(?:\.\d+)?|swift|)", name) else name


def in_s3(address: str, access_key: str, bucket: str, name: str) -> Place:
    """An object of S3. All servers of Amazon know one set of buckets; elsewhere two users may have two of one name."""
    host = server(address)
    amazon = _AMAZON.fullmatch(host)
    key = "s3", f"amazon{amazon.group(1) or ''}" if amazon else host, bucket, name
    return Place(key, frozenset({"amazon" if amazon else access_key}))
