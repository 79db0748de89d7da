"""One download shared by many readers, over real files, threads and processes."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import TESTS
from support.worlds.cached import leave
from support.worlds.fills import DATA, MIB, SIZE, Source, World
from support.worlds.scenes import begun_since

from glance_replicas import checksum
from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.errors import CacheError, Corrupt, SourceError, Unreachable
from glance_replicas.transfer.fill import start
from glance_replicas.transfer.follow import Follower, start_or_join

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_sixteen_readers_one_source_read(world: World) -> None:
    """However many ask at once, the source is opened once and everybody gets every byte (promise 4)."""
    world.source.pause = 0.01
    with ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda _: world.read(), range(16)))
    assert all(body == DATA for body in bodies)
    assert world.source.opened == [0]
    world.settle(lambda: world.committed)
    assert world.cache.complete.exists(world.image.id)


@pytest.mark.parametrize("leave_after", [0, 1, SIZE // 2])
def test_first_reader_leaves(world: World, leave_after: int) -> None:
    """The first client leaves: the others finish and the image is cached (upstream spec duplicate-downloads)."""
    world.source.pause = 0.01
    first = world.join()
    second = world.join()
    if leave_after:
        next(first.read(0, leave_after))
    first.close()
    assert b"".join(second.read(0, SIZE)) == DATA
    second.close()
    assert world.source.opened == [0]
    world.settle(lambda: world.cache.complete.exists(world.image.id))


def test_all_readers_leave(world: World) -> None:
    """Nobody is left to read, and still the image is cached."""
    world.source.pause = 0.01
    for follower in [world.join() for _ in range(5)]:
        follower.close()
    world.settle(lambda: world.cache.complete.exists(world.image.id))
    assert world.cache.path(world.image.id).read_bytes() == DATA


def test_abandoned(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's fill that nobody follows any more ends, asked of the background; the next client goes on there."""
    monkeypatch.setattr("glance_replicas.transfer.fill._ALONE", 0.3)
    world.source.pause = 0.1
    ended: list[str] = []
    with closing(start_or_join(world.cache, world.plan(ended=lambda: ended.append("ended")))) as follower:
        assert follower.wait(3 * MIB), "for longer than a fill may be alone"
        assert not ended
    world.settle(lambda: ended)
    have = world.cache.partial_path(world.image.id).stat().st_size
    assert 3 * MIB < have < SIZE
    assert [name for name, _ in world.cache.listed("queue")] == [world.image.id]
    world.source.pause = 0.0
    assert world.read() == DATA
    assert world.source.opened == [0, have]


def opened(path: Path) -> int:
    """Descriptors of this process on a file."""
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(link) and os.path.samefile(link, path) for link in links)


def test_a_download_that_fails_leaves_no_descriptor(world: World) -> None:
    """The partial file is there and the complete one cannot be opened: each try is an error, and nothing stays open."""
    partial_file = world.cache.partials.begin(world.image)
    assert partial_file is not None
    os.mknod(world.cache.path(world.image.id), stat.S_IFSOCK | 0o600)  # ENXIO, for root as well
    for _ in range(20):
        with pytest.raises(CacheError):
            world.join()
    assert opened(partial_file.path) == 1, "the writer's own"
    partial_file.discard()


def test_what_was_left_outlives_a_start_that_fails(world: World) -> None:
    """A download that may not fill (no room, too many fills) removes nothing of what another has written."""
    leave(world.cache.partial_path(world.image.id), DATA[: 2 * MIB], DATA)

    def refuse(partial_file: PartialFile, size: int) -> None:
        raise CacheError("too many")

    with pytest.raises(CacheError, match="too many"):
        start(world.cache, world.plan(reserve=refuse))
    assert world.read() == DATA
    assert world.source.opened == [2 * MIB]


@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1])
def test_wrong_bytes_never_end_well(world: World, at: int) -> None:
    """One flipped byte: no reader gets the last byte, nothing is cached, the source is named (promise 2)."""
    bad = bytearray(DATA)
    bad[at] ^= 1
    world.source.data = bytes(bad)
    world.source.pause = 0.005

    def attempt(_: int) -> int:
        follower = world.join()
        got = 0
        with pytest.raises(Corrupt):
            for chunk in follower.read(0, SIZE):
                got += len(chunk)
        follower.close()
        return got

    with ThreadPoolExecutor(4) as pool:
        assert all(got <= SIZE - MIB for got in pool.map(attempt, range(4)))
    world.settle(lambda: world.condemned)
    assert world.condemned[0] == list(world.image.locations)
    assert not world.cache.complete.exists(world.image.id)
    assert [name for name, _ in world.cache.listed("invalid")] == [world.image.id]


def test_fill_after_a_bad_one(world: World) -> None:
    """Once the source is well again the next request fills and succeeds."""
    bad, world.source.data = world.source.data, bytes(SIZE)
    with pytest.raises(Corrupt):
        world.read()
    world.source.data = bad
    assert world.read() == DATA


def test_source_gone_before_the_first_byte(world: World) -> None:
    """A fill that gives nothing says so at once, so that Glance can answer."""
    world.source.breaks_at = 0
    follower = world.join()
    began = time.monotonic()
    assert not follower.wait()
    assert time.monotonic() - began < 2
    follower.close()


def test_disk_fails_in_the_middle(world: World) -> None:
    """The cache cannot write on: its reader goes on alone from the source and gets every byte (promise 3)."""
    world.source.gate = threading.Event()
    follower = world.join()
    assert follower.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))  # EFBIG from here on, as a full disk gives ENOSPC
        world.source.gate.set()
        assert b"".join(follower.read(0, SIZE)) == DATA
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    follower.close()
    assert len(world.source.opened) == 2
    assert world.source.opened[1] > 0, "what was there already must not be fetched again"
    assert not world.cache.complete.exists(world.image.id)
    assert world.cache.listed("partial") == []


def test_directory_removed_in_the_middle(world: World) -> None:
    """Somebody wipes the directory during a fill: the reader still gets every byte."""
    world.source.gate = threading.Event()
    follower = world.join()
    assert follower.wait()
    shutil.rmtree(world.cache.folder)
    world.source.gate.set()
    assert b"".join(follower.read(0, SIZE)) == DATA
    follower.close()


def test_cached_file_cut_under_a_reader(world: World) -> None:
    """A complete file that loses its tail while it is read: the reader goes on from the source (promise 3)."""
    assert world.read() == DATA
    world.settle(lambda: world.committed)
    copy = world.cache.complete.open(world.image.id)
    assert copy is not None
    hit = Follower(world.cache, world.plan(), copy.detach())
    body = hit.read(0, SIZE)
    got = next(body)
    os.truncate(world.cache.path(world.image.id), 2 * MIB)
    assert got + b"".join(body) == DATA
    hit.close()
    assert world.source.opened == [0, 2 * MIB]


def test_wrong_bytes_after_going_alone_are_caught_too(world: World) -> None:
    """A reader that goes on alone holds the whole body against the digest as well."""
    world.source.gate = threading.Event()
    follower = world.join()
    assert follower.wait()
    shutil.rmtree(world.cache.folder)
    world.source.data = DATA[: 4 * MIB] + bytes(SIZE - 4 * MIB)
    world.source.gate.set()
    got = 0
    with pytest.raises((Corrupt, SourceError)):
        for chunk in follower.read(0, SIZE):
            got += len(chunk)
    assert got < SIZE
    follower.close()


FILLER = """
import dataclasses, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from support.worlds import fills
from glance_replicas.transfer.fill import start
world = fills.World(Path({folder!r}), fills.Source(pause=0.05))
world.image = dataclasses.replace(world.image, id={image!r})
start(world.cache, world.plan())
print("filling", flush=True)
time.sleep(60)
"""


def test_takeover_after_kill(world: World) -> None:
    """The filler's process is killed: a follower takes over within a second, at the right byte (promise 7)."""
    script = FILLER.format(tests=str(TESTS), folder=str(world.cache.folder.parent), image=world.image.id)
    filler = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert filler.stdout
    assert filler.stdout.readline() == b"filling\n"
    follower = world.join()
    body = follower.read(0, SIZE)
    got = next(body)
    assert world.source.opened == []
    filler.send_signal(signal.SIGKILL)
    filler.wait()
    filler.stdout.close()
    killed = time.monotonic()
    have = (world.cache.partial_path(world.image.id)).stat().st_size
    while len(got) <= have:
        got += next(body)
    assert time.monotonic() - killed < 1.0
    assert got + b"".join(body) == DATA
    follower.close()
    assert world.source.opened == [have]
    world.settle(lambda: world.cache.complete.exists(world.image.id))


class Background:
    """Notes what is written, and whether somebody waits; ends the fill at `ends_at` bytes unless somebody does."""

    def __init__(self, ends_at: int = SIZE) -> None:
        self.length, self.ends_at = 0, ends_at
        self.wanted: list[bool] = []

    def written(self, length: int, is_wanted: Callable[[], bool]) -> None:
        wanted = is_wanted()
        self.length += length
        self.wanted.append(wanted)
        if self.length >= self.ends_at and not wanted:
            raise CacheError("cancelled")

    def finishing(self, is_wanted: Callable[[], bool]) -> None:
        """The file is to be kept."""

    def ended(self, failure: Exception | None) -> None:
        self.failure = failure


def finish(filler: threading.Thread | None) -> None:
    """The filler began, and has ended."""
    assert filler is not None
    filler.join(20)
    assert not filler.is_alive()


@pytest.mark.parametrize("ended_by", ["its source", "whoever asked for it"])
def test_background_fill_goes_on_where_it_ended(world: World, ended_by: str) -> None:
    """A fill in the background that breaks, or is ended, leaves its file; the next one reads from that byte on."""
    world.source.breaks_at = 2 * MIB if ended_by == "its source" else None
    finish(start(world.cache, world.plan(), Background(2 * MIB)))
    have = (world.cache.partial_path(world.image.id)).stat().st_size
    assert MIB <= have < SIZE
    world.source.breaks_at = None
    again = Background()
    finish(start(world.cache, world.plan(), again))
    assert world.source.opened[-1] == have
    assert again.length == SIZE - have
    assert world.committed == [world.image.id]
    assert not any(again.wanted)


def test_background_fill_that_somebody_waits_for(world: World) -> None:
    """A fill in the background learns of a follower."""
    world.source.gate = threading.Event()
    background = Background()
    filler = start(world.cache, world.plan(), background)
    world.settle(lambda: background.wanted)
    assert not any(background.wanted)
    follower = world.join()
    world.source.gate.set()
    assert b"".join(follower.read(0, SIZE)) == DATA
    follower.close()
    finish(filler)
    assert background.wanted[-1]


def test_a_waiting_reader_of_another_process(world: World) -> None:
    """That somebody waits is seen from another process, and ends with that process."""
    partial_file = world.cache.partials.begin(world.image)
    assert partial_file is not None
    script = (
        "from glance_replicas.cache.partial_file import wait_for; wait_for(0); print(flush=True); "
        "__import__('time').sleep(60)"
    )
    with partial_file.path.open("rb") as file:
        reader = subprocess.Popen([sys.executable, "-c", script], stdin=file, stdout=subprocess.PIPE)
    assert not partial_file.is_wanted
    assert reader.stdout
    assert reader.stdout.readline() == b"\n"
    assert partial_file.is_wanted
    reader.kill()
    reader.communicate()
    assert not partial_file.is_wanted
    partial_file.discard()


def test_fill_has_a_limit(world: World) -> None:
    """A fill that goes on for longer than it may is given up; its reader goes on alone."""
    world.source.pause = 0.05
    plan = replace(world.plan(), max_seconds=0.3)
    follower = start_or_join(world.cache, plan)
    assert b"".join(follower.read(0, SIZE)) == DATA
    follower.close()
    assert len(world.source.opened) == 2
    assert not world.cache.complete.exists(world.image.id)


def test_damaged_prefix_is_caught(world: World) -> None:
    """What a dead filler left may be wrong: the takeover's digest covers it, and the next fill starts afresh."""
    leave(world.cache.partial_path(world.image.id), bytes(2 * MIB), DATA)
    with pytest.raises(Corrupt):
        world.read()
    world.settle(lambda: world.condemned)
    assert world.condemned == [()], "the source is not to blame"
    assert world.read() == DATA


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, SIZE - 1), length=st.integers(1, SIZE))
def test_ranges_during_a_fill(tmp_path_factory: pytest.TempPathFactory, start: int, length: int) -> None:
    """Any range of a partial file is exactly those bytes, also when it lies ahead of what is there."""
    world = World(tmp_path_factory.mktemp("ranges"), Source(pause=0.0005))
    stop = min(SIZE, start + length)
    follower = world.join()
    assert b"".join(follower.read(start, stop)) == DATA[start:stop]
    follower.close()
    world.settle(lambda: world.committed)


def test_joining_just_as_it_ends(world: World) -> None:
    """Readers that come at the moment of the commit or of a failure get the bytes or a clean error."""
    for round_number in range(30):
        world.image = replace(world.image, id=f"30000000-0000-4000-8000-{round_number:012d}")
        world.source.data = DATA if round_number % 3 else bytes(SIZE)
        with ThreadPoolExecutor(4) as pool:
            for outcome in [pool.submit(self_paced, world, delay) for delay in (0, 0.004, 0.01, 0.02)]:
                assert outcome.result(30) in (DATA, None)


def self_paced(world: World, delay: float) -> bytes | None:
    time.sleep(delay)
    try:
        return world.read()
    except Corrupt:
        return None


def test_no_descriptor_or_thread_leaks(world: World) -> None:
    """Two hundred readers that leave at once leave nothing behind."""
    world.read()
    world.settle(lambda: world.committed)
    before = len(os.listdir("/proc/self/fd")), threading.enumerate()
    for number in range(200):
        world.image = replace(world.image, id=f"40000000-0000-4000-8000-{number % 5:012d}")
        follower = world.join()
        next(follower.read(0, SIZE))
        follower.close()
    world.settle(lambda: not begun_since(before[1]))
    assert len(os.listdir("/proc/self/fd")) <= before[0]


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    """A slow reader holds no bytes in memory: what it has not read yet is on disk."""
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        "import resource, dataclasses, pathlib\n"
        "from support.worlds import fills\nfrom glance_replicas import checksum\n"
        "from glance_replicas.stores.body import Body\n"
        f"world = fills.World(pathlib.Path({str(tmp_path)!r}))\n"
        "block = fills.DATA[:1 << 20]; size = 192 << 20\n"
        "def chunks():\n    for _ in range(192): yield block\n"
        "digest = checksum.of(chunks(), 'sha512')[0]\n"
        "world.image = dataclasses.replace(world.image, size=size, digest=digest); world.digest = digest\n"
        "world.source.open = lambda location, offset: Body(chunks(), size, lambda: None)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "follower = world.join(); body = follower.read(0, size); next(body)\n"
        "world.settle(lambda: world.committed)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(out) < 32 * 1024, "KiB"


def test_a_fill_that_gets_no_thread_holds_nothing(world: World) -> None:
    """No thread to be had: the fill has ended for who counts fills, its lock is free, and downloads pass by."""
    ended: list[str] = []
    plan = world.plan(ended=lambda: ended.append("ended"))
    usual = threading.stack_size(1 << 46)  # more than there are addresses
    try:
        with pytest.raises(CacheError, match="not filled"):
            start(world.cache, plan)
    finally:
        threading.stack_size(usual)
    assert ended == ["ended"]
    assert world.cache.listed("partial") == []
    assert world.read() == DATA


@pytest.mark.parametrize("size", [SIZE, MIB // 2])
def test_found_damaged_while_it_is_sent(world: World, size: int) -> None:
    """Who reads a complete file that is set aside meanwhile does not get its last block; one evicted is sent whole."""
    data = DATA[:size]
    world.source.data, world.digest = data, checksum.of([data], "sha512")[0]
    world.image = replace(world.image, size=size, digest=world.digest)
    for is_damaged in (False, True):
        with closing(world.join()) as first:
            assert b"".join(first.read(0, size)) == data
        world.settle(lambda: world.cache.complete.exists(world.image.id))
        copy = world.cache.complete.open(world.image.id)
        assert copy is not None
        with closing(world.join()) as late, closing(copy):
            read = late.read(0, size)
            got = [next(read)] if size == SIZE else []
            if is_damaged:
                world.cache.complete.set_aside(world.image.id, copy)
                with pytest.raises(Corrupt):
                    got.extend(read)
                assert len(b"".join(got)) <= size - min(size, checksum.BLOCK)
            else:
                world.cache.complete.remove_copy(world.image.id, copy)
                assert b"".join([*got, *read]) == data


def test_a_fill_that_cannot_start_frees_its_lock(world: World) -> None:
    """When room is refused the partial file is gone and the next request is free to try."""

    def refuse(_partial_file: PartialFile, _size: int) -> None:
        raise Unreachable("no room")

    with pytest.raises(Unreachable):
        start(world.cache, world.plan(reserve=refuse))
    assert world.cache.listed("partial") == []
    assert world.read() == DATA
