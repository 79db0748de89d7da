"""What breaks fills and directories in systems like this one (docs/failures.md, A to D), over real files."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from services import absent
from services.web.faulty import FaultyServer
from support.worlds.cached import leave, picture
from support.worlds.fills import DATA, MIB, SIZE, Source, World

from glance_replicas import checksum
from glance_replicas.cache import Cache
from glance_replicas.cache.eviction import Eviction
from glance_replicas.cache.partial_file import PartialFile, read
from glance_replicas.errors import CacheError, Corrupt, SourceError
from glance_replicas.model import Location
from glance_replicas.stores.body import Limits
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.transfer.follow import Follower, start_or_join

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class WebWorld(World):
    """A world whose image comes from a web server with faults."""

    def __init__(self, folder: Path, faulty: FaultyServer, **faults: object) -> None:
        super().__init__(folder, WebSource())
        self.path = f"/{self.image.id}"
        url = faulty.put(self.path, DATA, **faults)
        self.image = replace(self.image, locations=(Location(self.image.id, url),))


class WebSource(Source):
    """Reads the location's URL with the reader that hosts use."""

    def open(self, location: Location, offset: int) -> http_reader.Body:
        self.opened.append(offset)
        return http_reader.Reader(Limits(1.0, 1.0)).open(location.url, offset)


ONCE = [
    {"truncate_at": MIB, "fail_times": 1},
    {"reset_at": MIB, "fail_times": 1},
    {"chunked": True, "truncate_at": MIB, "fail_times": 1},
    {"no_length": True, "truncate_at": MIB, "fail_times": 1},
    {"stall_at": MIB, "fail_times": 1},
]


@pytest.mark.parametrize("faults", ONCE, ids=str)
def test_a_break_costs_no_byte_twice(tmp_path: Path, faulty: FaultyServer, faults: dict[str, object]) -> None:
    """A body cut, reset, unterminated, closed early or silent once: the fill goes on at that byte (A 1-4, 8)."""
    world = WebWorld(tmp_path, faulty, **faults)
    assert world.read() == DATA
    first, second = world.source.opened
    assert first == 0 < second <= MIB, "an RST takes with it what was on its way"
    assert second == MIB or "reset_at" in faults
    world.settle(lambda: world.committed)


NEVER = [
    {"status": 500},
    {"status": 404},
    {"redirect_to": "http://127.0.0.1:1/login"},
    {"html": True},
    {"gzip": True},
    {"longer": 9},
    {"wrong_length": SIZE - 9},
    {"truncate_at": 0},
    {"reset_at": 0},
    {"stall_before_headers": True},
    {"drip": 1.0},
    {"zeros": True},
    {"flip_at": 0},
    {"flip_at": SIZE - 1},
]


@pytest.mark.parametrize("faults", NEVER, ids=str)
def test_no_copy_of_what_is_none(tmp_path: Path, faulty: FaultyServer, faults: dict[str, object]) -> None:
    """Errors, pages, other lengths, nothing, drops or wrong bytes: no whole body, no file, and soon (A 5-10)."""
    world = WebWorld(tmp_path, faulty, **faults)
    got, began = 0, time.monotonic()
    with closing(world.join()) as follower, pytest.raises((SourceError, CacheError, Corrupt)):
        for chunk in follower.read(0, SIZE):
            got += len(chunk)
    assert got < SIZE
    assert time.monotonic() - began < 30
    world.settle(lambda: world.cache.listed("partial") == [])
    assert not world.cache.complete.exists(world.image.id)
    assert world.committed == []
    faulty.change(world.path)
    assert world.read() == DATA, "and once it is well the next one gets it"


def test_source_deleted_in_the_middle(tmp_path: Path, faulty: FaultyServer) -> None:
    """The object goes while it is read and the connection breaks: a failed transfer, and nothing is kept (A 11)."""
    world = WebWorld(tmp_path, faulty, rate=8 * MIB, truncate_at=2 * MIB)
    with closing(world.join()) as follower:
        body = follower.read(0, SIZE)
        next(body)
        faulty.remove(world.path)
        with pytest.raises((SourceError, CacheError)):
            list(body)
    world.settle(lambda: world.cache.listed("partial") == [])
    assert not world.cache.complete.exists(world.image.id)


def test_object_replaced_between_two_tries(tmp_path: Path, faulty: FaultyServer) -> None:
    """After a break the source holds other bytes of the same length: the digest catches the mixture (A 14)."""
    world = WebWorld(tmp_path, faulty, truncate_at=MIB, fail_times=1, rate=4 * MIB)
    with closing(world.join()) as follower:
        body = follower.read(0, SIZE)
        next(body)
        faulty.put(world.path, bytes(SIZE))
        with pytest.raises(Corrupt):
            list(body)
    assert not world.cache.complete.exists(world.image.id)


@pytest.mark.parametrize("is_evicted", [False, True])
def test_the_fill_ends_while_it_is_asked_for(world: World, monkeypatch: pytest.MonkeyPatch, is_evicted: bool) -> None:
    """A follower has seen the old length when the fill ends, and the file moves away: it reads on, nothing else (B 15).

    Its thread had to wait for its turn; with a thousand of them in one process that takes longer than a probe.
    """
    world.source.gate = threading.Event()
    follower, fate = world.join(), world.cache.partials.fate

    def ask(image_id: str, fd: int) -> str:
        assert world.source.gate
        world.source.gate.set()
        world.settle(lambda: world.committed)
        if is_evicted:
            world.cache.path(image_id).unlink(missing_ok=True)  # it is asked once more before the last block
        return fate(image_id, fd)

    monkeypatch.setattr(world.cache.partials, "fate", ask)
    with closing(follower):
        assert b"".join(follower.read(0, SIZE)) == DATA
    assert world.source.opened == [0]


@pytest.mark.parametrize("readers", [100, 1000])
def test_a_herd_in_one_process(tmp_path: Path, readers: int) -> None:
    """However many threads ask at once, the source is read once and all get every byte (B 15)."""
    data = DATA[: MIB + 1000]
    world = World(tmp_path, Source(data))
    world.source.gate = threading.Event()
    world.digest = checksum.of([data], "sha512")[0]
    world.image = replace(world.image, size=len(data), digest=world.digest)
    joined = threading.Barrier(readers, world.source.gate.set)

    def read(_: int) -> bool:
        with closing(world.join()) as follower:
            joined.wait(60)
            return b"".join(follower.read(0, len(data))) == data

    with ThreadPoolExecutor(readers) as pool:
        assert all(pool.map(read, range(readers)))
    assert world.source.opened == [0]


def test_joining_beside_one_that_comes_too_late(world: World) -> None:
    """Two ask just after the commit: neither takes the other's empty file for a fill, nor asks the source (B 24)."""
    assert world.read() == DATA
    world.settle(lambda: world.committed)
    other = PartialFile.lock(world.cache.partial_path(world.image.id), SIZE)  # as far as Cache.begin has got
    assert other is not None
    with closing(world.join()) as follower:
        other.discard()
        assert b"".join(follower.read(0, SIZE)) == DATA
    assert world.source.opened == [0]


@pytest.mark.parametrize("leave_after", [SIZE * 99 // 100, SIZE])
def test_first_reader_leaves_late(world: World, leave_after: int) -> None:
    """The first client leaves just before its last byte, or just after: nobody else notices (B 18)."""
    world.source.pause = 0.01
    first, second = world.join(), world.join()
    assert b"".join(first.read(0, leave_after)) == DATA[:leave_after]
    first.close()
    assert b"".join(second.read(0, SIZE)) == DATA
    second.close()
    assert world.source.opened == [0]


def test_a_slow_first_reader_holds_up_nobody(world: World) -> None:
    """The client that started the fill takes one byte and waits: the next one is served at full speed (B 20, 21)."""
    slow = world.join()
    body = slow.read(0, SIZE)
    next(body)
    began = time.monotonic()
    assert world.read() == DATA
    assert time.monotonic() - began < 3
    world.settle(lambda: world.committed)
    assert len(b"".join(body)) > 0
    slow.close()


def test_name_in_the_way_of_the_commit(world: World) -> None:
    """The last rename fails: all readers have every byte, nothing is left over, and it is no hit (C 28)."""
    world.source.gate = threading.Event()
    with closing(world.join()) as follower:
        assert follower.wait()
        world.cache.path(world.image.id).mkdir()
        world.source.gate.set()
        assert b"".join(follower.read(0, SIZE)) == DATA
    world.settle(lambda: world.cache.listed("partial") == [])
    assert world.committed == []
    world.cache.path(world.image.id).rmdir()
    assert world.read() == DATA


@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "fifo"])
def test_no_regular_file_in_the_place(world: World, kind: str) -> None:
    """What is no regular file, in the place of the complete one: said at once, nobody waits, and nothing is begun."""
    path = world.cache.path(world.image.id)
    makes = {"folder": path.mkdir, "fifo": partial(os.mkfifo, path), "dangling": partial(path.symlink_to, "/nowhere")}
    makes.get(kind, partial(path.symlink_to, __file__))()
    with pytest.raises(CacheError, match="is not a regular file"):
        world.join()
    assert world.cache.listed("partial") == []


def test_no_descriptors_left(tmp_path: Path) -> None:
    """A process out of descriptors gives a CacheError, so that Glance answers, and works again later (C 29)."""
    world = World(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(used - len(os.listdir("/proc/self/fd")))]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(CacheError, match="Too many open files"):
            start_or_join(world.cache, world.plan())
        with pytest.raises(CacheError, match="Too many open files"):
            world.cache.complete.open(world.image.id)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
    assert world.read() == DATA


def test_read_only_file_system(tmp_path: Path) -> None:
    """A directory that became read-only serves its hits; a miss is a CacheError, so that Glance answers (C 29, 38)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=False).returncode:
        absent("mounting a tmpfs is not permitted here")
    try:
        world = World(disk)
        assert world.read() == DATA
        world.settle(lambda: world.committed)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        copy = world.cache.complete.open(world.image.id)
        assert copy is not None
        with closing(copy):
            assert b"".join(read(copy.fd, 0, SIZE)) == DATA
        with pytest.raises(CacheError, match="Read-only"):
            world.cache.partials.begin(picture("11111111-1111-4111-8111-111111111111", 10))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_file_removed_under_a_reader(world: World) -> None:
    """A complete file goes while it is read: that reader gets the rest of it all the same (C 33)."""
    assert world.read() == DATA
    world.settle(lambda: world.committed)
    with closing(world.join()) as follower:
        body = follower.read(0, SIZE)
        got = next(body)
        world.cache.complete.remove(world.image.id)
        assert got + b"".join(body) == DATA
    assert world.source.opened == [0]


def test_eviction_against_fills(world: World) -> None:
    """One image is evicted and filled again all the time: every reader gets every byte (C 34)."""
    stop, space = threading.Event(), Eviction(world.cache, 1, 0, withdraw=lambda _: None)

    def evict() -> int:
        freed = 0
        while not stop.is_set():
            freed += space.trim().bytes
        return freed

    def read_on() -> Iterator[bool]:
        end = time.monotonic() + 30
        while len(world.source.opened) < 4 and time.monotonic() < end:
            yield world.read() == DATA
            time.sleep(0.02)  # what is read is never evicted: a moment without readers

    with ThreadPoolExecutor(5) as pool:
        evictor = pool.submit(evict)
        bodies = [pool.submit(lambda: list(read_on())) for _ in range(3)]
        assert all(all(one.result()) for one in bodies)
        stop.set()
        assert evictor.result() > 0
    assert len(world.source.opened) > 1


@pytest.mark.parametrize("ahead", [0.0, 10 * 86400.0])
def test_a_lowered_quota(world: World, ahead: float) -> None:
    """A quota lowered at a restart is met, also by files whose times lie in the future (C 36, 39)."""
    assert world.read() == DATA
    world.settle(lambda: world.committed)
    os.utime(world.cache.path(world.image.id), (time.time() + ahead,) * 2)
    gone: list[str] = []
    assert Eviction(world.cache, SIZE - 1, 0, withdraw=gone.append).trim().bytes == SIZE
    assert gone == [world.image.id]
    assert not world.cache.complete.exists(world.image.id)


def test_empty_file_of_that_name(world: World) -> None:
    """A file of no bytes under an image's id is no verified copy (C 37)."""
    world.cache.path(world.image.id).touch()
    copy = world.cache.complete.open(world.image.id)
    assert copy is not None
    with closing(copy):
        assert (copy.entry.size, copy.entry.verified) == (0, False)


def test_clock_that_jumps(world: World) -> None:
    """A partial file whose time lies in the future or before the last boot is taken over, never believed (C 39)."""
    path = world.cache.partial_path(world.image.id)
    for when, kept in ((time.time() + 86400, MIB), (1.0, 0)):
        leave(path, DATA[:MIB], DATA)
        os.utime(path, (when, when))
        world.source.opened.clear()
        assert world.read() == DATA
        assert world.source.opened == [kept]
        world.settle(lambda: world.cache.complete.exists(world.image.id))
        world.cache.complete.remove(world.image.id)


def test_many_files_cost_a_hit_nothing(tmp_path: Path) -> None:
    """Twenty thousand files are in the directory: opening one is as quick as ever, and nothing is read first (C 41)."""
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    for number in range(20_000):
        (cache.folder / f"60000000-0000-4000-8000-{number:012d}").touch(0o444)
    began = time.monotonic()
    again = Cache(cache.folder)
    for number in range(0, 20_000, 200):
        copy = again.complete.open(f"60000000-0000-4000-8000-{number:012d}")
        assert copy is not None
        copy.close()
    assert time.monotonic() - began < 0.5


def test_a_whole_growing_file_is_taken_over(world: World) -> None:
    """Killed between the last write and the rename: the next one commits what is there, and reads nothing (D 42)."""
    leave(world.cache.partial_path(world.image.id), DATA, DATA)
    assert world.read() == DATA
    world.settle(lambda: world.cache.listed("partial") == [])
    assert world.source.opened == []
    assert world.cache.complete.exists(world.image.id)


def test_a_lock_of_a_dead_process_is_free(world: World) -> None:
    """A filler of another process that was killed holds nothing: the next begins where it was (D 45)."""
    script = (
        "import os, sys; from pathlib import Path; from glance_replicas.cache import Cache\n"
        "from glance_replicas.model import *\n"
        f"image = Image({world.image.id!r}, 'active', {SIZE}, {world.digest!r})\n"
        f"growing = Cache(Path({str(world.cache.folder)!r})).partials.begin(image)\n"
        f"growing.append(sys.stdin.buffer.read(), 0); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=DATA[:MIB], check=False)
    assert done.returncode == -9
    assert world.read() == DATA
    assert world.source.opened == [MIB]


def test_a_peer_is_told_that_the_filler_died(world: World) -> None:
    """Another host follows a fill whose process was killed: it is let go within a second, to ask elsewhere (F 61)."""
    leave(world.cache.partial_path(world.image.id), DATA[:MIB], DATA)
    fd = world.cache.partials.follow(world.image)
    assert fd is not None
    began = time.monotonic()
    plan = replace(world.plan(), stall_seconds=1.0)
    with closing(Follower(world.cache, plan, fd, takes_over=False)) as follower, pytest.raises(SourceError):
        list(follower.read(0, SIZE))
    assert time.monotonic() - began < 1.0
