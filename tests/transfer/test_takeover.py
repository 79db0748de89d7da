"""A partial file that a dead filler left is taken over: it grows at once, only its last block waits for the digest."""

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support.worlds.fills import MIB, Source, World

from glance_replicas import checksum
from glance_replicas.cache.cached_file import purpose
from glance_replicas.cache.notes import FOR, Notes
from glance_replicas.errors import Corrupt, Unreadable
from glance_replicas.model import Location
from glance_replicas.stores.body import Body
from glance_replicas.transfer.failover_stream import continued
from glance_replicas.transfer.follow import start_or_join
from glance_replicas.transfer.plan import Plan

pytestmark = pytest.mark.slow

DATA = os.urandom(6 * MIB)
KEPT = 2 * MIB
PIECE = MIB // 4


def pieces(start: int) -> Iterator[bytes]:
    return (DATA[at : at + PIECE] for at in range(start, len(DATA), PIECE))


def test_nothing_waits_for_the_hash_of_the_prefix() -> None:
    """All but the last block comes while nothing of the file has been read yet; the last one when all of it was."""
    may_read = threading.Event()

    def reread(start: int, stop: int) -> Iterator[bytes]:
        assert may_read.wait(20)
        yield DATA[start:stop]

    body = continued(pieces(KEPT), checksum.of([DATA], "sha512")[0], len(DATA), KEPT, reread)
    early = b"".join(itertools.islice(body, (len(DATA) - KEPT - checksum.BLOCK) // PIECE))
    assert early == DATA[KEPT : len(DATA) - checksum.BLOCK]
    may_read.set()
    assert early + b"".join(body) == DATA[KEPT:]


@pytest.mark.parametrize("at", [0, KEPT - 1, KEPT, len(DATA) - checksum.BLOCK - 1])
def test_what_is_on_disk_counts(at: int) -> None:
    """A wrong byte of the file is found wherever it is, also among those that were right when they were written."""

    def reread(start: int, stop: int) -> Iterator[bytes]:
        yield bytes(byte ^ (number == at) for number, byte in enumerate(DATA[start:stop], start))

    body = continued(pieces(KEPT), checksum.of([DATA], "sha512")[0], len(DATA), KEPT, reread)
    with pytest.raises(Corrupt):
        b"".join(body)


def test_a_prefix_that_cannot_be_read() -> None:
    """The fault of the disk is raised, before the last block at the latest."""

    def reread(_start: int, _stop: int) -> Iterator[bytes]:
        raise Unreadable("reading a cached file: Input/output error")
        yield b""

    with pytest.raises(Unreadable):
        b"".join(continued(pieces(KEPT), checksum.of([DATA], "sha512")[0], len(DATA), KEPT, reread))


class Large(Source):
    """384 MiB of zeros and a last byte."""

    size = 384 * MIB

    def open(self, _location: Location, offset: int, *_: object) -> Body:
        self.opened.append(offset)
        return Body(self.chunks(offset), self.size, lambda: None)

    def chunks(self, offset: int) -> Iterator[bytes]:
        piece = bytes(PIECE)
        yield from itertools.repeat(piece, (self.size - offset) // PIECE - 1)
        yield piece[:-1] + b"1"


def test_followers_do_not_take_it_for_a_stall(tmp_path: Path) -> None:
    """The hash of what was left takes longer than a follower waits: one read of the rest serves all (promise 4)."""
    source = Large()
    world = World(tmp_path, source)
    digest = checksum.of(source.chunks(0), "sha3_512")[0]
    world.image = replace(world.image, size=source.size, digest=digest)
    kept = source.size // 4 * 3
    path = world.cache.partial_path(world.image.id)
    with path.open("wb") as file:
        file.truncate(kept)
        Notes(world.cache.own("known")).set(file.fileno(), world.image.id, FOR, purpose(world.image))

    def read(_: int) -> int:
        plan: Plan = replace(world.plan(), digest=digest, stall_seconds=0.4)
        follower = start_or_join(world.cache, plan)
        try:
            return sum(map(len, follower.read(0, source.size)))
        finally:
            follower.close()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(read, range(3))) == [source.size] * 3
    assert source.opened == [kept]
    world.settle(lambda: world.cache.complete.exists(world.image.id))
