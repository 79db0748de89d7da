"""What breaks peers, registrations and ledgers (docs/failures.md, D to F): hosts' own code, a web server as peers.

One configuration for all, a directory of its own for each host, and no WSGI server: what is tried is what one host does
with what others say.
"""

import dataclasses
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import webob
import webob.exc
from services.databases.schema import add_image, query
from services.web.faulty import FaultyServer
from support.worlds.cloud import DATA, MIB, SIZE, Cloud, fill, read

from glance_replicas.errors import Corrupt
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly
from glance_replicas.janitor.passes import Janitor
from glance_replicas.middleware import server
from glance_replicas.model import Host, Image, Pass
from glance_replicas.transfer.fill import start

pytest_plugins = ["support.worlds.cloud"]


@pytest.fixture
def peer() -> Iterator[FaultyServer]:
    """What stands where another host should be."""
    with FaultyServer("127.0.0.3") as server:
        yield server


def register(cloud: Cloud, peer: FaultyServer, name: str, data: bytes = DATA, **faults: Any) -> None:
    """A host at this server has the image, it says."""
    cloud.host("peer", peer.url)
    url = peer.put(f"/replicas/{name}", data, **faults)
    cloud.site.add_location(name, url, {"replica_host": "peer", "store": "web"})


BROKEN = [
    {"status": 404},
    {"status": 503, "retry_after": 5},
    {"stall_before_headers": True},
    {"stall_at": MIB},
    {"truncate_at": MIB},
    {"reset_at": MIB},
    {"drip": 0.5},
    {"html": True},
    {"longer": 5},
]


@pytest.mark.parametrize("faults", BROKEN, ids=str)
def test_a_peer_that_breaks_is_left(cloud: Cloud, peer: FaultyServer, faults: dict[str, Any]) -> None:
    """A peer without the image, busy, silent, slow, or dead midway: the store goes on at that byte (F 59-63)."""
    name, local = cloud.image(), cloud.host("here")
    register(cloud, peer, name, **faults)
    began = time.monotonic()
    assert read(local, name) == DATA
    assert time.monotonic() - began < 10
    assert peer.reads(f"/replicas/{name}") >= 1, "the peer comes first"
    (request,) = cloud.durable.requests(f"/{name}")
    middle = "stall_at" in faults or "truncate_at" in faults
    assert (request.range is not None) >= middle


@pytest.mark.parametrize("faults", [{"stall_before_headers": True}, {"stall_at": MIB}, {"rate": 20_000}], ids=str)
def test_a_peer_is_left_sooner_than_a_store(cloud: Cloud, peer: FaultyServer, faults: dict[str, Any]) -> None:
    """Of hosts there are others: a silent or slow one has `peer_timeout_seconds`, whatever a store may take (F 59)."""
    name, local = cloud.image(), cloud.host("here", peer_timeout_seconds=0.5, stall_timeout_seconds=60.0)
    register(cloud, peer, name, **faults)
    began = time.monotonic()
    assert read(local, name) == DATA
    assert time.monotonic() - began < 10
    assert peer.reads(f"/replicas/{name}") == 1


@pytest.mark.parametrize("background", [True, False])
def test_a_peer_is_told_when_nobody_waits(cloud: Cloud, peer: FaultyServer, background: bool) -> None:
    """A fill in the background says so to the host it reads from (RFC 9218), and no other does."""
    name, local = cloud.image(), cloud.host("here")
    register(cloud, peer, name)
    image = local.catalogue.active(name)
    assert image is not None
    filler = start(local.cache, local.fill_setup.plan(image, background=background))
    assert filler is not None
    filler.join(30)
    (request,) = peer.requests(f"/replicas/{name}")
    assert request.headers.get("Priority") == ("u=7" if background else None)


def test_a_peer_that_refuses_is_left(cloud: Cloud, peer: FaultyServer) -> None:
    """Nobody listens where the peer was: the store serves (F 59)."""
    name, local = cloud.image(), cloud.host("here")
    cloud.host("gone", "http://127.0.0.9:1")
    cloud.site.add_location(name, f"http://127.0.0.9:1/replicas/{name}", {"replica_host": "gone", "store": "web"})
    assert read(local, name) == DATA


def test_the_next_peer_goes_on(cloud: Cloud, peer: FaultyServer) -> None:
    """One peer dies in the middle: another one, not the store, gives the rest (F 61)."""
    name, local = cloud.image(), cloud.host("here", host_zone="near")
    with FaultyServer("127.0.0.4") as second:
        for host, server, zone, faults in (("a", peer, "near", {"truncate_at": MIB}), ("b", second, "far", {})):
            cloud.host(host, server.url)
            url = server.put(f"/replicas/{name}", DATA, **faults)
            cloud.site.add_location(name, url, {"replica_host": host, "replica_zone": zone, "store": "web"})
        assert read(local, name) == DATA
        assert [one.range for one in second.requests(f"/replicas/{name}")] == [f"bytes={MIB}-"]
    assert cloud.reads(name) == 0


@pytest.mark.parametrize("data", [bytes(SIZE), random.Random(6).randbytes(SIZE)], ids=["zeros", "another image"])
def test_wrong_bytes_of_a_peer_do_not_spread(cloud: Cloud, peer: FaultyServer, data: bytes) -> None:
    """A peer with the right size and wrong bytes: refused, no row, and the next try asks the store (F 59, 64, 65)."""
    name, local = cloud.image(), cloud.host("here")
    register(cloud, peer, name, data)
    with pytest.raises(Corrupt):
        read(local, name)
    assert cloud.rows(name) == ["peer"]
    assert read(local, name) == DATA
    assert peer.reads(f"/replicas/{name}") == 1, "it is not asked again"


def test_no_loops(cloud: Cloud) -> None:
    """Of hosts that fill at once each asks only those who began before it (F 60)."""
    name = cloud.image()
    hosts = [cloud.host(f"h{number}") for number in range(4)]
    asked = []
    for local in hosts:
        image = local.catalogue.active(name)
        assert image is not None
        asked.append({one.host for one in local.fill_setup.plan(image).sources.to_fill() if one.host})
        time.sleep(0.01)
    assert asked == [set(), {"h0"}, {"h0", "h1"}, {"h0", "h1", "h2"}]


def test_a_lone_reader_claims_nothing(cloud: Cloud) -> None:
    """Who goes on alone asks those who fill, and is not taken for one of them: nobody could follow it."""
    name = cloud.image()
    filler, lone = cloud.host("filler"), cloud.host("lone")
    image = filler.catalogue.active(name)
    assert image is not None
    filler.fill_setup.plan(image).sources.to_fill()
    assert {one.host for one in lone.fill_setup.plan(image).sources.to_read() if one.host} == {"filler"}
    assert [one.host for one in filler.ledger.fills(name, 30)] == ["filler"]


def test_what_has_come_at_once_is_not_claimed(cloud: Cloud) -> None:
    """A host that knows of no other tells the ledger of a fill that goes on, and not of one that is over by then."""
    here, told = cloud.host("here"), list[str]()
    short, long = f"{cloud.image()[:-3]}aaa", cloud.image()
    add_image(cloud.site.database_url, short, DATA[:5])
    cloud.site.add_location(short, cloud.durable.put(f"/{short}", DATA[:5]), {"store": "web"})

    def listen(*words: Any) -> None:
        told.extend(re.findall(r"(?:INTO|FROM) replica_fills", words[2]))

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        for name in (short, long):
            told.clear()
            fill(here, name)
            assert cloud.rows(name) == ["here"]
            assert bool(told) == (name == long)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listen)
    assert here.ledger.fills(long, 30) == []


def test_five_hundred_hosts(cloud: Cloud) -> None:
    """An image registered on five hundred hosts, most of them unknown, is filled as ever (E 58)."""
    name, local = cloud.image(), cloud.host("here")
    with ThreadPoolExecutor(1):
        for number in range(500):
            url = f"http://127.1.{number // 250}.{number % 250 + 1}:1/replicas/{name}"
            cloud.site.add_location(name, url, {"replica_host": f"n{number}", "store": "web"})
    began = time.monotonic()
    assert read(local, name) == DATA
    assert time.monotonic() - began < 5


def test_a_fill_asks_so_many_peers(cloud: Cloud) -> None:
    """Of a hundred living hosts that have the image a fill asks a few, not always the same, then the store (E 58)."""
    name, local = cloud.image(), cloud.host("here", host_zone="near")
    for number in range(100):
        url = f"http://127.1.0.{number + 1}:1"
        local.ledger.heartbeat(Host(f"n{number}", None, url))
        zone = {"replica_zone": "near"} if number < 3 else {}
        cloud.site.add_location(name, f"{url}/replicas/{name}", {"replica_host": f"n{number}", "store": "web", **zone})
    image = local.catalogue.active(name)
    assert image is not None
    first, second = ([one.host for one in local.fill_setup.plan(image).sources.to_fill()] for _ in range(2))
    assert (len(first), first[-1]) == (17, None)
    assert set(first[:3]) == {"n0", "n1", "n2"}, "those of its own zone are among them"
    assert first != second
    assert read(local, name) == DATA


def test_garbage_for_a_ledger(cloud: Cloud, tmp_path: Path) -> None:
    """The ledger's file is no database: fills, rows and downloads go on (D 44)."""
    (tmp_path / "garbage.sqlite").write_bytes(random.Random(2).randbytes(20_000))
    local = cloud.host("here")
    broken = LocalHost.assemble(dataclasses.replace(local.settings, ledger=f"sqlite:///{tmp_path / 'garbage.sqlite'}"))
    name = cloud.image()
    assert read(broken, name) == DATA
    end = time.monotonic() + 10
    while cloud.rows(name) != ["here"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    broken.catalogue.close()
    broken.ledger.close()


def test_a_row_that_was_written_all_the_same(cloud: Cloud) -> None:
    """A registration whose answer was lost is made again: one row (E 49)."""
    name, local = cloud.image(), cloud.host("here")
    fill(local, name)
    image = local.catalogue.active(name)
    assert image is not None
    for _ in range(3):
        local.registration.register(image)
    assert cloud.rows(name) == ["here"]


def test_a_host_that_was_thought_dead_returns(cloud: Cloud) -> None:
    """Cut off for long its rows are withdrawn by another host, once; back again it has them again (E 52, 54, 55)."""
    name = cloud.image()
    away, near = cloud.host("away"), cloud.host("near")
    fill(away, name)
    assert cloud.rows(name) == ["away"]
    query(near.settings.ledger, "UPDATE replica_hosts SET heartbeat = '2001-01-01' WHERE name = 'away'")
    passes = [Pass(), Pass()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(assembly.reconciler(near).withdraw_dead_hosts, passes))
    assert sum(done.withdrawn for done in passes) == 1
    assert cloud.rows(name) == []
    Janitor(away).run_once()
    assert cloud.rows(name) == ["away"]
    Janitor(near).run_once()
    assert cloud.rows(name) == ["away"]


def test_a_host_rebuilt_with_an_empty_disk(cloud: Cloud) -> None:
    """The same name on a new disk: its rows go once the empty directory is old enough, not before (E 53)."""
    name, local = cloud.image(), cloud.host("here")
    fill(local, name)
    shutil.rmtree(local.cache.folder)
    assert Janitor(local).run_once().withdrawn == 0
    assert cloud.rows(name) == ["here"]
    os.utime(local.cache.own("since"), (time.time() - 7200,) * 2)
    assert Janitor(local).run_once().withdrawn == 1
    assert cloud.rows(name) == []


def test_deactivated_in_the_middle_of_a_fill(cloud: Cloud) -> None:
    """An image deactivated while it is filled keeps its file and loses nothing; active again it is a hit (A 12)."""
    name, local = cloud.image(rate=4 * MIB), cloud.host("here")
    image = local.catalogue.active(name)
    assert image is not None
    filler = start(local.cache, local.fill_setup.plan(image))
    cloud.site.rows("UPDATE images SET status = 'deactivated' WHERE id = :id", id=name)
    assert filler is not None
    filler.join(30)
    Janitor(local).run_once()
    assert local.cache.complete.exists(name)
    cloud.site.rows("UPDATE images SET status = 'active' WHERE id = :id", id=name)
    Janitor(local).run_once()
    assert cloud.rows(name) == ["here"]
    assert cloud.reads(name) == 1


@contextmanager
def beside(moment: str, do: Callable[[], object]) -> Iterator[None]:
    """At each such moment of this thread's connections to a database another thread does this, and is waited for."""
    this = threading.get_ident()

    def run(*_: object) -> None:
        if threading.get_ident() == this:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(do).result()

    sa.event.listen(sa.pool.Pool, moment, run)
    try:
        yield
    finally:
        sa.event.remove(sa.pool.Pool, moment, run)


@pytest.mark.parametrize("first", ["order", "registration"])
def test_ordered_away_while_it_is_registered(cloud: Cloud, first: str) -> None:
    """An order takes a copy away while its row is written, whichever began first and at each moment of it: no row
    names a file that is gone, then or later (promise 1)."""
    name, local = cloud.image(), cloud.host("here")
    fill(local, name)
    image = local.catalogue.active(name)
    assert image is not None

    def drop() -> None:
        if local.cache.complete.exists(name):
            local.own_copies.remove_as_asked(name, who="w", reason="r")

    if first == "order":
        with beside("checkin", lambda: local.registration.register(image)):
            drop()
    else:
        local.registration.withdraw(name)
        with beside("checkout", drop):
            local.registration.register(image)
    assert (cloud.rows(name), local.cache.complete.exists(name)) == ([], False)


def test_a_fill_that_ends_while_its_copy_is_looked_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fill ends after its host saw no complete file, and before it looked for a growing one: the copy is served."""
    local = cloud.host("here", trusted_networks=(ip_network("192.0.2.0/24"),))
    name, follow = cloud.image(), local.cache.partials.follow

    def late(image: Image) -> int | None:
        if not local.cache.complete.exists(name):
            fill(local, name)
        return follow(image)

    monkeypatch.setattr(local.cache.partials, "follow", late)
    request = webob.Request.blank(f"/replicas/{name}", environ={"REMOTE_ADDR": "192.0.2.7"})
    answer = request.get_response(server.assembled(local, webob.exc.HTTPNotFound()))
    assert (answer.status_int, answer.body == DATA) == (200, True)


def test_evicted_between_commit_and_row(cloud: Cloud) -> None:
    """A file evicted just before its registration is not registered (promise 1; C 34)."""
    name, local = cloud.image(), cloud.host("here")
    fill(local, name)
    image = local.catalogue.active(name)
    assert image is not None
    local.registration.withdraw(name)  # an eviction by another process, that ...
    local.cache.complete.remove(name)
    local.registration.register(image)  # ... was between the rename and this line of a fill, or of a pass
    assert cloud.rows(name) == []
