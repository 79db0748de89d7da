"""One image, one source and one cache for fills over real files and threads."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glance_replicas import checksum
from glance_replicas.cache import Cache
from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.errors import Unreachable
from glance_replicas.model import Image, Location
from glance_replicas.stores.body import Body
from glance_replicas.transfer.follow import Follower, start_or_join
from glance_replicas.transfer.plan import Plan

MIB = 1 << 20


SIZE = 6 * MIB + 123


DATA = random.Random(7).randbytes(SIZE)


_ids = itertools.count(1)


class Source:
    """Serves DATA (or `data`) at a pace, counts its readers, breaks where told."""

    def __init__(self, data: bytes = DATA, pause: float = 0.0, breaks_at: int | None = None) -> None:
        self.data, self.pause, self.breaks_at = data, pause, breaks_at
        self.opened: list[int] = []
        self.gate: threading.Event | None = None  # nothing past the first MiB until it is set

    def open(self, _location: Location, offset: int) -> Body:
        self.opened.append(offset)

        def chunks() -> Iterator[bytes]:
            for begin in range(offset, len(self.data), 256 * 1024):
                if self.breaks_at is not None and begin >= self.breaks_at:
                    raise Unreachable("reset")
                if self.gate is not None and begin >= MIB:
                    assert self.gate.wait(20)
                time.sleep(self.pause)
                yield self.data[begin : begin + 256 * 1024]

        return Body(chunks(), len(self.data), lambda: None)


@dataclass(frozen=True)
class Sources:
    """One image in one source."""

    image: Image
    source: Source

    def to_fill(self) -> Sequence[Location]:
        return self.image.locations

    to_read = to_fill

    def open(self, one: Location, offset: int, stop: int | None = None) -> Body:
        assert stop is None, "it has no ranges"
        return self.source.open(one, offset)


@dataclass(frozen=True)
class Hooks:
    """Of a fill in a world, which is told; `room` and `over` are called as well."""

    world: "World"
    room: Callable[[PartialFile, int], None]
    over: Callable[[], object]

    def reserve(self, partial_file: PartialFile, size: int) -> None:
        self.room(partial_file, size)

    def renew(self, length: int) -> None:
        """Nobody else is there to be told."""

    def committed(self) -> None:
        self.world.committed.append(self.world.image.id)

    def condemned(self, used: Sequence[Location]) -> None:
        self.world.condemned.append(used)

    def ended(self) -> None:
        self.over()


def _grant(_partial_file: PartialFile, _size: int) -> None:
    """There is room."""


class World:
    """One host's cache, one source, and what was reported."""

    def __init__(self, folder: Path, source: Source | None = None) -> None:
        self.cache = Cache(folder / "cache")
        self.cache.prepare()
        self.source = source or Source()
        image_id = f"20000000-0000-4000-8000-{next(_ids):012d}"
        self.digest = checksum.of([DATA], "sha512")[0]
        self.image = Image(image_id, "active", SIZE, self.digest, (Location(image_id, "file:///x"),))
        self.committed: list[str] = []
        self.condemned: list[Sequence[Location]] = []

    def plan(
        self, *, reserve: Callable[[PartialFile, int], None] = _grant, ended: Callable[[], object] = lambda: None
    ) -> Plan:
        return Plan(
            image=self.image,
            size=self.image.size or 0,
            digest=self.digest,
            sources=Sources(self.image, self.source),
            hooks=Hooks(self, reserve, ended),
            stall_seconds=5.0,
        )

    def join(self) -> Follower:
        return start_or_join(self.cache, self.plan())

    def read(self) -> bytes:
        follower = self.join()
        try:
            return b"".join(follower.read(0, SIZE))
        finally:
            follower.close()

    def settle(self, what: Callable[[], object]) -> None:
        """Wait for something a thread does."""
        end = time.monotonic() + 10
        while not what():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.01)
