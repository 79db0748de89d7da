"""The machine loses power in the middle of a fill with an eviction (docs/failures.md, D 43).

What the real code does to the disk is recorded once. From the record come the directories that a crash after each call
may leave: data are certain up to the last fsync of the file, names up to that of the folder, a note never; what is not
certain is there, or not, or in part. Glance's database is another machine's and keeps what was committed.
"""

import contextlib
import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from services.machine.disk import Call, Disk
from support.worlds.cached import note, picture
from test_chaos import IDLE, NEW, SIZE, Stage, World, aftermath, fill_new, truth

from glance_replicas import settings
from glance_replicas.cache import Cache
from glance_replicas.location import replica_url

pytestmark = pytest.mark.slow

PAGE = 4096
PARTIAL = ".glance-replicas/partial"
STAGE = "fill with eviction"


@dataclass(frozen=True)
class State:
    """What the next start finds."""

    names: tuple[str, ...]  # of the new file: in "", in "partial", in both, in none
    data: bytes
    known: bool  # the note of what was read is on the file
    evicted: bool  # the file that made room is gone
    rows: int  # commits in the catalogue: first the row of the one evicted goes, then that of the new one comes


def recorded(stage: Stage, template: Path, disk: Disk) -> list[Call]:
    """What a fill does to the new file, to the one it evicts, to the folder, and the commits in the catalogue."""
    world = stage.reset(template)
    command = [sys.executable, "-W", "ignore", __file__, str(stage.site.hosts[0].config_file), str(world.folder)]
    subprocess.run(command, env=disk.environment(), check=True, timeout=60)
    cache = str(world.cache.folder)
    files = {f"{cache}/{PARTIAL}/{NEW}", f"{cache}/{NEW}", f"{cache}/{IDLE}", str(world.database)}
    return [one for one in disk.calls() if one.path in files or is_sync_of(one, "/cache")]


def is_sync_of(call: Call, name: str) -> bool:
    """An fsync of the file or folder of this name."""
    return call.name == "sync" and call.path.endswith(name)


def is_commit(call: Call) -> bool:
    """SQLite takes a transaction from its log into the file when a connection is closed, ours at the end of each."""
    return is_sync_of(call, "glance.sqlite")


def is_eviction(call: Call) -> bool:
    """The file that makes room goes."""
    return call.name == "unlink" and call.path.endswith(IDLE)


def is_note(call: Call) -> bool:
    """It is noted on the new file what was read."""
    return call.name == "attribute" and call.path.endswith(NEW) and call.first == 1


def contents(done: list[Call]) -> Iterator[bytes]:
    """What may be in the new file: all that was written, what was synced, and that with pages of zeros."""
    whole, synced = 0, 0
    for one in done:
        if one.path.endswith(NEW) and one.name == "write":
            whole = max(whole, one.first + one.length)
        elif one.path.endswith(NEW) and one.name == "sync":
            synced = whole
    data = (truth(NEW) or b"")[:whole]
    yield data
    yield data[:synced]
    yield data[:synced] + bytes(whole - synced)
    pages = range(synced, whole, PAGE)
    yield data[:synced] + b"".join(
        data[at : at + PAGE] if at // PAGE % 2 else bytes(min(PAGE, whole - at)) for at in pages
    )


def states(done: list[Call]) -> Iterator[State]:
    """What a crash after these calls may leave."""
    last = {one.name: at for at, one in enumerate(done)}
    folder = max((at for at, one in enumerate(done) if is_sync_of(one, "/cache")), default=-1)
    names: list[tuple[str, ...]] = [(PARTIAL,), ()]
    if "rename" in last:
        names = [("",), ("", PARTIAL)]  # the other folder is never synced
        names += [(PARTIAL,)] if folder < last["rename"] else []
    evictions = [at for at, one in enumerate(done) if is_eviction(one)]
    gone = [True] if evictions and evictions[0] < folder else [True, False] if evictions else [False]
    notes = [False, True] if any(map(is_note, done)) else [False]
    for place, data, known, evicted in itertools.product(names, contents(done), notes, gone):
        yield State(place, data if place else b"", known, evicted, sum(map(is_commit, done)))


def arrange(world: World, state: State) -> None:
    """The world is in this state; its files are older than the boot of the machine."""
    before_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 10
    if state.evicted:
        world.cache.path(IDLE).unlink()
    if state.rows > 0:
        world.local.registration.withdraw(IDLE)
    if state.rows > 1:
        world.local.catalogue.add(
            NEW, replica_url(world.settings.host_url or "", NEW), world.local.registration.metadata()
        )
    first: Path | None = None
    for place in state.names:
        path = world.cache.folder / place / NEW
        if first is None:
            path.write_bytes(state.data)
            os.utime(path, (before_boot,) * 2)
            if state.known:
                note(path, truth(NEW) or b"", age=10)
        else:
            os.link(first, path)
        first = first or path


def at_once(world: World) -> list[str]:
    """A client that comes before the first pass must not get wrong bytes for a hit."""
    entries = [one for one in world.cache.complete.entries() if one.verified]
    return [
        f"image {one.image_id}: verified, and wrong"
        for one in entries
        if world.cache.path(one.image_id).read_bytes() != truth(one.image_id)
    ]


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder where fsync costs nothing."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="glance-replicas-", dir=place) as folder:
        yield Path(folder)


def test_power_loss(memory: Path) -> None:
    """After a crash at any call no verified file is wrong, and one pass puts everything right (promises 1, 7 and 8)."""
    disk = Disk(memory / "disk")
    disk.build()
    stage = Stage(memory / "stage")
    template = stage.template(STAGE)
    calls = recorded(stage, template, disk)
    steps = [
        calls.index(next(filter(is_commit, calls))),
        calls.index(next(filter(is_eviction, calls))),
        max(at for at, one in enumerate(calls) if one.name == "write" and one.path.endswith(NEW)),
        calls.index(next(one for one in calls if is_sync_of(one, NEW))),
        calls.index(next(filter(is_note, calls))),
        calls.index(next(one for one in calls if one.name == "rename")),
        max(at for at, one in enumerate(calls) if is_sync_of(one, "/cache")),
        max(at for at, one in enumerate(calls) if is_commit(one)),
    ]
    assert steps == sorted(steps), "row, then file; data, then note, then name, then folder, then row"
    assert sum(one.length for one in calls if one.name == "write" and one.path.endswith(NEW)) == SIZE
    assert sum(map(is_note, calls)) == 1
    assert sum(map(is_commit, calls)) == 2
    found: dict[State, list[str]] = {}
    for state in dict.fromkeys(one for at in range(len(calls) + 1) for one in states(calls[:at])):
        world = stage.reset(template)
        arrange(world, state)
        found[state] = [*at_once(world), *aftermath(world)]
    assert len(found) > 30
    bad = [(dataclasses.replace(one, data=one.data[:9]), len(one.data), said) for one, said in found.items() if said]
    assert not bad, f"{len(bad)} of {len(found)}:\n" + "\n".join(map(str, bad[:20]))


def test_a_stock_file_is_on_disk_before_it_is_known(memory: Path) -> None:
    """A file taken over from the stock cache: data, then the note of what was read of it."""
    disk, cache = Disk(memory / "disk"), Cache(memory / "cache")
    disk.build()
    cache.prepare()
    cache.path(NEW).write_bytes(b"12345")
    subprocess.run([sys.executable, "-W", "ignore", __file__, memory / "cache"], env=disk.environment(), check=True)
    assert [one.name for one in disk.calls() if one.path.endswith(NEW) and (one.name == "sync" or is_note(one))] == [
        "sync",
        "attribute",
    ]


def adopt(folder: Path) -> None:
    """What a first reader of a stock file does behind its last byte."""
    cache = Cache(folder)
    copy = cache.complete.open(NEW)
    assert copy is not None
    with contextlib.closing(copy):
        assert cache.complete.mark_verified(picture(NEW, copy.entry.size), copy)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        adopt(Path(sys.argv[1]))
        sys.exit()
    loaded = settings.load([sys.argv[1]])
    fill_new(World(Path(sys.argv[2]), loaded))
