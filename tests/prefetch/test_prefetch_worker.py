"""What a host was asked to fetch, over real directories, a real ledger and a web server with faults."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

import pytest
from services.databases.schema import query
from services.web.faulty import FaultyServer
from support.worlds.cached import leave
from support.worlds.cloud import DATA, MIB, SIZE, Cloud

from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly
from glance_replicas.ledger.prefetch_requests import HIGH, LOW, PrefetchRequest, PrefetchRequests, State
from glance_replicas.prefetch.queue import _TRIES, Want
from glance_replicas.prefetch.worker import within
from glance_replicas.transfer.follow import start_or_join

pytest_plugins = ["support.worlds.cloud"]


class Here:
    """The host `here` of a cloud, and what is asked of it."""

    def __init__(self, cloud: Cloud, **changes: Any) -> None:
        self.cloud = cloud
        self.local = cloud.host("here", **changes)
        self.copies = PrefetchRequests(self.local.ledger.database)
        self.copier = assembly.prefetch_worker(self.local)

    def ask(self, *names: str, **more: Any) -> None:
        """Somebody wants these images here."""
        self.copies.request(names, ["here"], who="tester", **more)

    def row(self, name: str) -> PrefetchRequest:
        """What the ledger says."""
        (found,) = self.copies.list([name])
        return found

    def until(self, what: Callable[[], object]) -> None:
        """Step after step until this holds."""
        end = time.monotonic() + 30
        while not what():
            assert time.monotonic() < end, [(one.state, one.detail) for one in self.copies.list()]
            self.copier.step()
            time.sleep(0.02)

    def ends(self, name: str) -> PrefetchRequest:
        """The row once it has ended."""
        self.until(lambda: not self.row(name).state.is_open)
        return self.row(name)

    def due_now(self, name: str) -> None:
        """The time to wait is over."""
        query(
            self.local.settings.ledger,
            "UPDATE replica_copies SET not_before = '2001-01-01 00:00:00' WHERE image_id = :id",
            id=name,
        )

    def partial_file(self, name: str) -> Path:
        """Its partial file."""
        return self.local.cache.partial_path(name)

    def length(self, name: str) -> int:
        """Bytes of its partial file, none when there is none."""
        return self.partial_file(name).stat().st_size if self.partial_file(name).exists() else 0

    def is_whole(self, name: str) -> bool:
        """The complete file is there and right."""
        path = self.local.cache.path(name)
        return path.exists() and path.read_bytes() == DATA

    def leave(self, name: str, length: int, idle: float) -> None:
        """A filler left so much of it, so many seconds ago."""
        leave(self.partial_file(name), DATA[:length], DATA)
        os.utime(self.partial_file(name), (time.time() - idle,) * 2)


def offset(cloud: Cloud, name: str) -> int:
    """Where the last read of the durable copy began."""
    asked = cloud.durable.requests(f"/{name}")[-1].range
    return int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0


def test_asked_and_there(cloud: Cloud) -> None:
    """What is asked for is filled from one read, verified, registered and done; asked again it is done at once."""
    here, name = Here(cloud), cloud.image()
    here.ask(name)
    assert here.copier.step() == 1
    done = here.ends(name)
    assert (done.state, done.bytes, done.size, done.detail) == (State.DONE, SIZE, SIZE, "")
    assert here.is_whole(name)
    assert cloud.rows(name) == ["here"]
    here.ask(name)
    assert here.copier.step() == 0
    assert here.row(name).state is State.DONE
    assert cloud.reads(name) == 1


def test_pinned_when_there(cloud: Cloud) -> None:
    """A copy asked for with a pin has it as soon as it is there; so has one that was there before."""
    here, name, old = Here(cloud), cloud.image(), cloud.image()
    here.ask(old)
    here.ends(old)
    here.local.pins.add([name, old], ["here"], "tester")
    here.ask(name, old, pin=True)
    here.ends(name)
    here.ends(old)
    assert {entry.image_id: entry.pinned for entry in here.local.cache.complete.entries()} == {name: True, old: True}


def test_not_active(cloud: Cloud) -> None:
    """An image that is no longer active is failed with that reason, and what was there of it goes."""
    here, name = Here(cloud), cloud.image()
    here.leave(name, MIB, 5)
    cloud.site.rows("UPDATE images SET status = 'deactivated' WHERE id = :id", id=name)
    here.ask(name)
    assert (here.ends(name).state, here.row(name).detail) == (State.FAILED, "the image is not active")
    assert here.length(name) == 0


def test_broken_link(cloud: Cloud) -> None:
    """A link that breaks leaves what there is; after a while it goes on at the same byte."""
    here, name = Here(cloud), cloud.image(reset_at=2 * MIB)
    here.ask(name)
    here.until(lambda: here.row(name).attempts)
    row = here.row(name)
    assert (row.state, row.attempts) == (State.WAITING, 1)
    assert 20 < row.wait_seconds <= 30
    assert row.detail
    assert MIB // 4 < (kept := here.length(name)) <= 2 * MIB
    reads = cloud.reads(name)
    here.copier.step()
    assert cloud.reads(name) == reads, "not before its time"
    cloud.durable.change(f"/{name}")
    here.due_now(name)
    assert here.ends(name).state is State.DONE
    assert offset(cloud, name) == kept
    assert here.is_whole(name)


def test_killed(cloud: Cloud) -> None:
    """kill -9 of the process that fetches: the next one goes on at once, at the byte it had come to (promise 7)."""
    here, name = Here(cloud), cloud.image(stall_at=2 * MIB)
    here.ask(name)
    child = os.fork()
    if not child:
        try:
            assembly.prefetch_worker(here.local).step()
            time.sleep(60)
        finally:
            os._exit(1)
    try:
        here_end = time.monotonic() + 20
        while here.length(name) < 2 * MIB:
            assert time.monotonic() < here_end
            time.sleep(0.02)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert here.row(name).state is State.RUNNING
    cloud.durable.change(f"/{name}")
    assert here.ends(name).state is State.DONE
    assert offset(cloud, name) == 2 * MIB
    assert here.is_whole(name)


def test_rate(cloud: Cloud) -> None:
    """All copies of a host together keep the rate."""
    here, names = Here(cloud, copy_bytes_per_second=3 * MIB), [cloud.image(), cloud.image()]
    here.ask(*names)
    began = time.monotonic()
    for name in names:
        assert here.ends(name).state is State.DONE
    assert time.monotonic() - began > 2 * SIZE / (3 * MIB) - 0.5


def test_follower_lifts_the_rate(cloud: Cloud) -> None:
    """A client that asks for an image that is being copied is not held to the rate of copies."""
    here, name = Here(cloud, copy_bytes_per_second=1000), cloud.image()
    here.ask(name)
    here.until(lambda: here.length(name))
    image = here.local.catalogue.active(name)
    assert image is not None
    with closing(start_or_join(here.local.cache, here.local.fill_setup.plan(image))) as follower:
        assert b"".join(follower.read(0, SIZE)) == DATA
    assert here.ends(name).state is State.DONE
    assert cloud.reads(name) == 1


def test_at_once_and_priorities(cloud: Cloud) -> None:
    """No more than copies_at_once at a time, the highest priority first."""
    here = Here(cloud, copies_at_once=1)
    low, normal, high = (cloud.image(rate=4 * MIB) for _ in range(3))
    here.ask(low, priority=LOW)
    here.ask(normal)
    here.ask(high, priority=HIGH)
    order: list[str] = []
    names = {low: "low", normal: "normal", high: "high"}

    def over() -> bool:
        running = [names[one.image_id] for one in here.copies.list(states=[State.RUNNING])]
        assert len(running) <= 2, "one that has just ended, and the next"
        order.extend(one for one in running if one not in order)
        return not here.copies.list(states=[State.WAITING, State.RUNNING])

    here.until(over)
    assert order == ["high", "normal", "low"]


def test_hours(cloud: Cloud) -> None:
    """Outside copy_hours only high priority is fetched; what runs when they end goes on at that byte the next day."""
    now = datetime.now()
    ends = now + timedelta(seconds=4)
    here = Here(cloud, copy_hours=((now - timedelta(hours=1)).time(), ends.time()))
    name = cloud.image(rate=MIB // 4)
    here.ask(name)
    here.until(lambda: here.length(name))
    here.until(lambda: here.row(name).detail)
    row = here.row(name)
    assert (row.state, row.attempts, row.detail) == (State.WAITING, 0, "waits for copy_hours")
    assert 0 < here.length(name) < SIZE
    long_ago = time.time() - min(7200, time.clock_gettime(time.CLOCK_BOOTTIME) - 1)  # before the boot nothing is kept
    os.utime(here.partial_file(name), (long_ago, long_ago))
    cloud.durable.change(f"/{name}")
    other = cloud.image()
    here.ask(other, priority=HIGH)
    assert here.ends(other).state is State.DONE
    assert here.row(name).state is State.WAITING
    assert (kept := here.length(name)) > 0
    here.ask(name, priority=HIGH)
    assert here.ends(name).state is State.DONE
    assert offset(cloud, name) == kept


def paused(cloud: Cloud, **changes: Any) -> tuple[Here, str]:
    """A copy whose hours ended in the middle, an hour ago, and what of it is there."""
    now = datetime.now()
    hours = (now - timedelta(hours=1)).time(), (now + timedelta(seconds=3)).time()
    here, name = Here(cloud, copy_hours=hours, **changes), cloud.image(rate=MIB // 4)
    here.ask(name)
    here.until(lambda: here.length(name))
    here.until(lambda: here.row(name).detail)
    cloud.durable.change(f"/{name}")
    return here, name


def blocks(here: Here, name: str) -> int:
    """Bytes of the disk that its partial file has."""
    return here.partial_file(name).stat().st_blocks * 512


def test_a_pause_gives_room_back(cloud: Cloud) -> None:
    """Of a copy that waits longer than a minute only what is written takes room, and another image gets the rest."""
    here, name = paused(cloud, max_bytes=SIZE + 2 * MIB)
    kept = here.length(name)
    here.copier.step()
    assert blocks(here, name) >= SIZE, "not for a short while"
    idle = time.time() - 90
    os.utime(here.partial_file(name), (idle, idle))
    here.copier.step()
    assert (here.length(name), here.partial_file(name).stat().st_mtime) == (kept, pytest.approx(idle, abs=1e-3))
    assert blocks(here, name) < kept + 65536
    other = cloud.image()
    here.ask(other, priority=HIGH)
    assert here.ends(other).state is State.DONE
    assert here.length(name) == kept


def test_no_room_to_go_on(cloud: Cloud) -> None:
    """What was given back is taken by a pinned copy: the paused one waits and says why, then goes on at its byte."""
    here, name = paused(cloud, max_bytes=SIZE + 2 * MIB, max_pinned_percent=100)
    kept, other = here.length(name), cloud.image()
    os.utime(here.partial_file(name), (time.time() - 90,) * 2)
    here.copier.step()
    here.local.pins.add([other], ["here"], "tester")
    here.ask(other, priority=HIGH, pin=True)
    here.ends(other)
    here.copier.step()
    here.ask(name, priority=HIGH)
    here.until(lambda: here.row(name).attempts)
    assert here.row(name).state is State.WAITING
    assert "no room for" in here.row(name).detail
    assert here.length(name) == kept
    here.local.cache.complete.pin(other, False)
    here.due_now(name)
    assert here.ends(name).state is State.DONE
    assert offset(cloud, name) == kept
    assert here.is_whole(name)


def test_what_a_killed_filler_reserved(cloud: Cloud) -> None:
    """It is given back, too, by whoever comes by; what somebody fills is not, however long it has been quiet."""
    here, name, busy = Here(cloud), cloud.image(status=503), cloud.image()
    for one in (name, busy):
        here.leave(one, MIB, 0)
        filler = PartialFile.lock(here.partial_file(one), SIZE)
        assert filler is not None
        assert filler.reserve(SIZE)
        if one == name:
            filler.close()
        os.utime(here.partial_file(one), (time.time() - 90,) * 2)
    here.copier.step()
    here.until(lambda: not here.copier.fills(name))  # the try in vain has reserved it again
    os.utime(here.partial_file(name), (time.time() - 90,) * 2)
    here.copier.step()
    assert blocks(here, busy) >= SIZE
    assert blocks(here, name) < MIB + 65536
    filler.close()


@pytest.mark.parametrize(
    ("first", "last", "inside", "outside"),
    [
        ("08:00", "17:00", ["08:00", "12:30", "16:59:59"], ["07:59:59", "17:00", "23:00", "00:00"]),
        ("22:00", "06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        ("00:00", "00:00", ["00:00", "12:00", "23:59"], []),
    ],
)
def test_within(first: str, last: str, inside: list[str], outside: list[str]) -> None:
    """The first minute counts, the last does not; over midnight, too."""
    hours = time_of_day.fromisoformat(first), time_of_day.fromisoformat(last)
    assert [within(hours, time_of_day.fromisoformat(one)) for one in inside] == [True] * len(inside)
    assert [within(hours, time_of_day.fromisoformat(one)) for one in outside] == [False] * len(outside)
    assert within(None, time_of_day())


def test_given_up(cloud: Cloud) -> None:
    """A source that never answers is tried eight times, each time later; then the copy has failed, and says why."""
    here, name = Here(cloud), cloud.image(status=503)
    here.ask(name)
    waits = []
    for attempt in range(1, 8):
        here.until(lambda attempt=attempt: here.row(name).attempts == attempt)  # type: ignore[misc]
        waits.append(here.row(name).wait_seconds)
        here.due_now(name)
    assert [round(wait / 30) for wait in waits] == [1, 2, 4, 8, 16, 32, 64]
    row = here.ends(name)
    assert row.state is State.FAILED
    assert "tried 8 times" in row.detail
    assert "503" in row.detail


def test_no_room(cloud: Cloud) -> None:
    """An image that does not fit waits, with that reason."""
    here, name = Here(cloud, max_bytes=MIB), cloud.image()
    here.ask(name)
    here.until(lambda: here.row(name).attempts)
    assert "max_bytes" in here.row(name).detail
    assert cloud.reads(name) == 0


def test_wrong_bytes(cloud: Cloud) -> None:
    """Wrong bytes end it at once: they will be no better the next time."""
    here, name = Here(cloud), cloud.image(flip_at=MIB)
    here.ask(name)
    row = here.ends(name)
    assert row.state is State.FAILED
    assert row.detail.startswith("wrong bytes")
    assert cloud.rows(name) == []


def test_cancelled(cloud: Cloud) -> None:
    """A copy that is cancelled ends, and what it had written goes; nothing begins it again."""
    here, name = Here(cloud, copy_bytes_per_second=1000), cloud.image()
    here.ask(name)
    here.until(lambda: here.length(name))
    assert here.copies.cancel([name]) == 1
    here.until(lambda: not here.partial_file(name).exists())
    here.copier.step()
    assert here.row(name).state is State.CANCELLED
    assert not here.copier.fills(name)
    assert cloud.reads(name) == 1


def test_filled_by_another(cloud: Cloud) -> None:
    """While another process fills the image for its clients, the copy runs as far as that has come; then it is done."""
    here, name = Here(cloud), cloud.image()
    here.leave(name, MIB, 5)
    other = PartialFile.lock(here.partial_file(name), SIZE)
    assert other is not None
    here.ask(name)
    assert here.copier.step() == 0
    assert (here.row(name).state, here.row(name).bytes) == (State.RUNNING, MIB)
    other.append(DATA[MIB:], MIB)
    image = here.local.catalogue.active(name)
    assert image is not None
    here.local.cache.partials.commit(other, image)
    assert here.ends(name).state is State.DONE
    assert cloud.rows(name) == ["here"]
    assert cloud.reads(name) == 0


def test_queue_without_a_ledger(cloud: Cloud, tmp_path: Path) -> None:
    """A name in queue/ is filled while the ledger is away, at most as often as its failures let; then it goes."""
    (tmp_path / "garbage.sqlite").write_bytes(b"no database" * 1000)
    known = cloud.host("here")
    local = LocalHost.assemble(replace(known.settings, ledger=f"sqlite:///{tmp_path / 'garbage.sqlite'}"))
    copier, good, bad = assembly.prefetch_worker(local), cloud.image(), cloud.image(status=503)
    for name in (good, bad):
        (local.cache.folder / "queue" / name).touch()
    assert copier.step() == 2
    end = time.monotonic() + 20
    while (local.cache.folder / "queue" / good).exists():
        assert time.monotonic() < end
        copier.step()
        time.sleep(0.02)
    reads = cloud.reads(bad)
    for _ in range(3):
        copier.step()
    assert local.cache.path(good).read_bytes() == DATA
    assert [name for name, _ in local.cache.listed("queue")] == [bad]
    assert cloud.reads(bad) == reads
    for _ in range(_TRIES - 1):  # hours later each time
        assert [name for name, _ in local.cache.listed("queue")] == [bad]
        copier._queue.failed(Want(bad, queued=True), "503")
    assert local.cache.listed("queue") == [], "as a row is given up"
    local.catalogue.close()
    local.ledger.close()


def test_left_growing(cloud: Cloud) -> None:
    """A partial file that its filler left a minute ago is taken up at its byte, whoever it was filled for."""
    here, fresh, name = Here(cloud), cloud.image(), cloud.image()
    here.leave(fresh, MIB, 10)
    here.leave(name, 2 * MIB, 100)
    assert here.copier.step() == 1
    here.until(lambda: here.is_whole(name))
    assert offset(cloud, name) == 2 * MIB
    assert here.length(fresh) == MIB
    assert cloud.reads(fresh) == 0


def test_left_growing_in_vain(cloud: Cloud) -> None:
    """It goes when its image is not active, when its copy was cancelled, and when it has been left for an hour."""
    here, gone, ended, old = Here(cloud), cloud.image(), cloud.image(), cloud.image()
    cloud.site.rows("UPDATE images SET status = 'deleted', deleted = true WHERE id = :id", id=gone)
    here.ask(ended)
    here.copies.cancel([ended])
    for name, idle in ((gone, 100), (ended, 100), (old, 4000)):
        here.leave(name, MIB, idle)
    assert here.copier.step() == 0
    assert here.local.cache.listed("partial") == []


def test_left_growing_that_fails(cloud: Cloud, faulty: FaultyServer) -> None:
    """One that cannot be taken up is not tried at every step."""
    here, name = Here(cloud), cloud.image(status=503)
    here.leave(name, MIB, 100)
    here.copier.step()
    here.until(lambda: faulty.reads(f"/{name}") and not here.copier.fills(name))
    reads = faulty.reads(f"/{name}")
    for _ in range(3):
        assert here.copier.step() == 0
    assert faulty.reads(f"/{name}") == reads
    assert here.length(name) == MIB
