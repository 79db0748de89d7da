"""A disk that fails in the middle of things (docs/failures.md, C 28 and 29): the real engine on a faulty disk.

Each test runs a part of this file as a process of its own, with a library between it and the disk.
"""

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from services.glance.site import GlanceSite
from services.machine.disk import Disk
from services.web.faulty import FaultyServer
from support.worlds.cached import leave
from support.worlds.cloud import Cloud, fill
from support.worlds.fills import DATA, MIB, SIZE, World

from glance_replicas import settings
from glance_replicas.errors import CacheError, Unreachable
from glance_replicas.janitor import assembly
from glance_replicas.middleware.sending import direct
from glance_replicas.middleware.sending.serve import Body, Way
from glance_replicas.model import Pass
from glance_replicas.transfer.fill import start
from glance_replicas.transfer.follow import Follower, start_or_join
from glance_replicas.verdict import Verdict


def nothing_is_left(world: World) -> bool:
    """Whether the image is neither complete nor growing, nor kept as wrong."""
    return not world.cache.complete.exists(world.image.id) and not world.cache.listed("partial")


def later_fills_work(disk: Disk, world: World) -> None:
    """Once the disk is well again an image is filled as ever, and read from the file."""
    disk.heal()
    before = len(world.committed)
    assert world.read() == DATA
    world.settle(lambda: len(world.committed) == before + 1)
    reads = len(world.source.opened)
    assert world.read() == DATA
    assert len(world.source.opened) == reads


def sync_fails(disk: Disk, world: World, number: int) -> None:
    """Readers had every byte, verified; nothing is complete or registered, and nothing is left."""
    disk.fail("sync", "partial/", number)
    world.source.pause = 0.01
    with ThreadPoolExecutor(4) as pool:
        bodies = list(pool.map(lambda _: world.read(), range(4)))
    assert bodies == [DATA] * 4
    world.settle(lambda: nothing_is_left(world))
    assert world.committed == []
    later_fills_work(disk, world)


def note_fails(disk: Disk, world: World, number: int) -> None:
    """A disk that takes no note of what is to come: nothing is kept, and no lock nor descriptor outlives the try."""
    disk.fail("attribute", "partial/", number)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with contextlib.suppress(CacheError):
            start(world.cache, world.plan())
            raise AssertionError("it began")
    assert len(os.listdir("/proc/self/fd")) == before
    assert nothing_is_left(world)
    later_fills_work(disk, world)


class Unhurried:
    """A fill that nobody waits for; what it has is kept for the next one."""

    def written(self, _length: int, _is_wanted: bool) -> None:
        """No bound."""

    def finishing(self, _is_wanted: object) -> None:
        """It is asked for to its end."""

    def ended(self, _failure: Exception | None) -> None:
        """Nobody is told."""


def sync_fails_in_the_background(disk: Disk, world: World, number: int) -> None:
    """Nor is the file kept for the next fill: a second sync would say that all is well (C 40)."""
    disk.fail("sync", "partial/", number)
    ended = threading.Event()
    filler = start(world.cache, world.plan(ended=ended.set), Unhurried())
    assert filler is not None
    filler.join(20)
    assert ended.is_set()
    assert nothing_is_left(world)
    assert world.committed == []
    later_fills_work(disk, world)


def sync_of_the_folder_fails(disk: Disk, world: World, number: int) -> None:
    """The file is whole and verified, and not registered by this fill: the janitor's next pass does it."""
    disk.fail("sync", "/cache", number, skip=1, times=1)
    assert world.read() == DATA
    world.settle(lambda: world.cache.complete.exists(world.image.id))
    world.settle(lambda: not any(one.name == "replica-fill" for one in threading.enumerate()))
    assert world.committed == []
    assert next(world.cache.complete.entries()).verified
    disk.heal()
    assert world.read() == DATA


def read_fails_in_a_hit(disk: Disk, world: World, number: int) -> None:
    """A client that reads a complete file goes on from the source; a peer's transfer breaks."""
    assert world.read() == DATA
    world.settle(lambda: world.committed)
    disk.fail("read", f"cache/{world.image.id}", number, skip=2)
    assert world.read() == DATA
    assert len(world.source.opened) == 2
    disk.fail("read", f"cache/{world.image.id}", number, skip=1)
    copy = world.cache.complete.open(world.image.id)
    assert copy is not None
    with closing(Follower(world.cache, world.plan(), copy.detach(), takes_over=False)) as follower:
        broken_off(follower)
    disk.heal()
    assert world.read() == DATA
    assert len(world.source.opened) == 2


def broken_off(follower: Follower) -> None:
    """The bytes that came are right, and the end did not come."""
    got = b""
    try:
        for chunk in follower.read(0, SIZE):
            got += chunk
    except Unreachable:
        assert DATA.startswith(got)
        assert len(got) < SIZE
        return
    raise AssertionError("it ended well")


def read_fails_in_a_follower(disk: Disk, world: World, number: int) -> None:
    """Readers of a partial file go on alone, each at its own byte; the fill goes on and is committed."""
    world.source.pause = 0.02
    disk.fail("read", "partial/", number, skip=4)
    with ThreadPoolExecutor(3) as pool:
        bodies = list(pool.map(lambda _: world.read(), range(3)))
    assert bodies == [DATA] * 3
    assert len(world.source.opened) > 1
    world.settle(lambda: world.committed)
    disk.heal()
    assert world.cache.path(world.image.id).read_bytes() == DATA


def sent(body: Body, connection: socket.socket) -> None:
    """What a server does that gives its connection away (`sendfile = uwsgi`): it writes what it is given, in order."""
    with connection:
        for chunk in body:
            connection.setblocking(True)
            connection.sendall(chunk)
            connection.setblocking(False)


def sending_fails(disk: Disk, world: World, number: int) -> None:
    """Where the kernel cannot send a file, complete or growing, the rest of the body is read, in its place."""
    world.source.pause = 0.01
    for where in ("partial/", "cache/"):
        disk.fail("send", where, number, skip=1)
        assert passed_by(start_or_join(world.cache, world.plan())) == DATA
        world.settle(lambda: world.committed)
    assert len(world.source.opened) == 1, "it can still be read"


def passed_by(follower: Follower) -> bytes:
    """What comes through a connection when the kernel is to send."""
    here, there = socket.socketpair()
    with closing(follower), ThreadPoolExecutor(1) as pool, there:
        body = Body(follower.read, 0, SIZE, lambda *_: None, Way(direct.sending(here.fileno, follower)))
        done = pool.submit(sent, body, here)
        got = b"".join(iter(lambda: there.recv(MIB), b""))
        done.result()
    return got


def read_fails_in_a_takeover(disk: Disk, world: World, number: int) -> None:
    """What a dead filler left cannot be read: it goes, the reader has every byte from the source."""
    leave(world.cache.partial_path(world.image.id), DATA[: 3 * MIB], DATA)
    disk.fail("read", "partial/", number, skip=1)
    assert world.read() == DATA
    world.settle(lambda: nothing_is_left(world))
    assert world.committed == []
    later_fills_work(disk, world)


def read_fails_in_a_scrub(disk: Disk, world: World, number: int) -> None:
    """A file that cannot be read is no damaged one: it stays, without its row; the next one due has its turn."""
    with GlanceSite(world.cache.folder / "configured") as site, FaultyServer() as durable:
        loaded = settings.load([str(site.add_host("127.0.0.2", start=False).config_file)])
        with closing(Cloud(world.cache.folder / "cloud", loaded, durable)) as cloud:
            local = cloud.host("here")
            bad, good = cloud.image(), cloud.image()
            for name in (bad, good):
                fill(local, name)
            disk.fail("read", bad, number)
            scrubber = assembly.scrubber(local, lambda: None)
            assert [scrubber.verify(name) for name in (bad, good)] == [Verdict.UNREACHABLE, Verdict.INTACT]
            assert {entry.image_id: entry.readable for entry in local.cache.complete.entries()} == {
                bad: False,
                good: True,
            }
            assembly.reconciler(local).reconcile(Pass())
            assert (cloud.rows(bad), cloud.rows(good)) == ([], ["here"])
            disk.heal()
            assert scrubber.verify(bad) is Verdict.INTACT
            assert cloud.rows(bad) == ["here"]


Scenario = Callable[[Disk, World, int], None]
SCENARIOS: list[Scenario] = [note_fails, sync_fails, sync_fails_in_the_background, sync_of_the_folder_fails]
SCENARIOS += [read_fails_in_a_hit, read_fails_in_a_follower, read_fails_in_a_takeover, read_fails_in_a_scrub]
SCENARIOS += [sending_fails]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """The library, built once."""
    made = Disk(tmp_path_factory.mktemp("disk"))
    made.build()
    return made


def run(disk: Disk, scenario: Scenario, number: int, folder: Path) -> None:
    """A scenario as a process on this disk."""
    command = [sys.executable, "-W", "ignore", __file__, scenario.__name__, str(number), str(disk.folder), str(folder)]
    done = subprocess.run(command, env=disk.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("scenario", SCENARIOS[:4], ids=lambda one: one.__name__)
def test_sync_fails(disk: Disk, scenario: Scenario, number: int, tmp_path: Path) -> None:
    """What may not be on the disk is never complete, nor registered, nor kept; no reader is hurt (C 28, promise 1)."""
    run(disk, scenario, number, tmp_path)


@pytest.mark.parametrize("scenario", SCENARIOS[4:], ids=lambda one: one.__name__)
def test_read_fails_in_the_middle(disk: Disk, scenario: Scenario, tmp_path: Path) -> None:
    """No wrong byte ends well, and no client's download fails (C 29, promises 2 and 3)."""
    run(disk, scenario, errno.EIO, tmp_path)


if __name__ == "__main__":
    name, number, disk_folder, folder = sys.argv[1:]
    scenario = next(one for one in SCENARIOS if one.__name__ == name)
    scenario(Disk(Path(disk_folder)), World(Path(folder)), int(number))
