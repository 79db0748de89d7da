"""What identifies the object behind a URL, by whatever name it goes and with whosever credentials it is read."""

from collections.abc import Hashable
from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ObjectIdentity:
    """Locations with one `key` may be names of one copy, and count as one; with a mark in common they surely are."""

    key: Hashable
    marks: frozenset[Hashable] = frozenset({"key"})

    def is_surely(self, other: "ObjectIdentity") -> bool:
        """Whether both are one copy beyond doubt."""
        return self.key == other.key and bool(self.marks & other.marks)


def server(address: str, scheme: str = "https") -> str:
    """HOST:PORT of an address, lower-case and with no port that its scheme has anyway."""
    parts = urlsplit(address if "://" in address else f"{scheme}://{address}")
    host = (parts.hostname or "").rstrip(".")
    return f"{host}:{parts.port}" if parts.port not in (None, *_PORTS.values()) else host
