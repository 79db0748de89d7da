"""Values from bytes: the same bytes give the same values, whoever chose them."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

IMAGE = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"

# What parsers of ours look for; bytes alone would seldom come by it.
TOKENS = (
    *("", "/", "//", "..", "%2f", "%2e", "%00", "%0a", "\0", "\n", "\r\n", "\t", " ", "\x1b[2J", "\u2028", "\u202e"),
    *("é", "\ud800", ":", "@", "?", "#", "&", "=", "-", ",", ";", "[", "]", "{", "}", "<", ">", '"', "'", "\\", "*"),
    *("0", "-1", "1e309", "18446744073709551616", "http", "https", "file", "swift+https", "swift+config", "s3+https"),
    *("s3", "rbd", "cinder", "://", "bytes=", "bytes ", "127.0.0.2", "[::1]", "host:9292", "user:pass@", "a%3Ab:c/d@"),
    *("AKIA:", "/replicas/", "/v2/images/", "/file", IMAGE, IMAGE.upper(), OTHER, "kid", "expires", "sig", "url"),
    *("metadata", "replica_host", "replica_zone", "store", "replicas", "locations", "image_id", "verdict", "evidence"),
    *("priority", "intact", "full", "end 1\n"),
)


class Draw:
    """Consumes bytes from the front; when none are left everything is zero, empty, the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def raw(self, most: int) -> bytes:
        """At most so many bytes as they come."""
        taken = self._data[self._at : self._at + most]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.raw(len(self._data))

    def number(self, below: int) -> int:
        """From 0 to before `below`, which is at most 2**32."""
        return int.from_bytes(self.raw(1 if below <= 256 else 4), "big") % below

    def flag(self) -> bool:
        """Heads or tails."""
        return self.number(2) == 1

    def pick(self, values: Sequence[T]) -> T:
        """One of them."""
        return values[self.number(len(values))]

    def whole(self) -> int:
        """Any whole number, with those at which things turn over."""
        edges = (0, 1, 2, 15, 16, 17, 2**31, 2**63 - 1, 2**63, 2**64, 10**30)
        value = self.pick(edges) + self.number(5) - 2 if self.flag() else self.number(1000)
        return -value if self.number(8) == 7 else value

    def text(self, most: int = 12) -> str:
        """A few tokens and pieces of any characters."""
        parts = []
        for _ in range(self.number(most + 1)):
            parts.append(self.pick(TOKENS) if self.flag() else self.raw(self.number(8)).decode("latin-1"))
        return "".join(parts)

    def value(self, depth: int = 3) -> Any:
        """Anything JSON can say."""
        makers: list[Callable[[], Any]] = [
            lambda: None,
            self.flag,
            self.whole,
            self.text,
            lambda: self.pick((0.5, -1e300, 1e300, float("inf"), float("nan"))),
        ]
        if depth:
            makers += [
                lambda: [self.value(depth - 1) for _ in range(self.number(4))],
                lambda: {self.text(2): self.value(depth - 1) for _ in range(self.number(5))},
            ]
        return self.pick(makers)()
