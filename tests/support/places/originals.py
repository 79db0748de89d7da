"""What a damaged copy is written anew from."""

from collections.abc import Iterator

from glance_replicas import checksum
from glance_replicas.transfer.failover_stream import guarded


class Original:
    """An original of these bytes; `given` is what really comes."""

    def __init__(self, data: bytes, given: bytes | None = None) -> None:
        self.size, self.digest, self.md5 = len(data), checksum.of([data], "sha512")[0], None
        self._given = data if given is None else given

    def whole(self) -> Iterator[bytes]:
        """All of it, with the guard that lets no wrong body end well."""
        pieces = (self._given[at : at + checksum.PIECE] for at in range(0, len(self._given), checksum.PIECE))
        return guarded(pieces, self.digest, self.size)

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        """Bytes of it, unguarded."""
        yield self._given[offset : offset + length]
