"""Pins, in the ledger on three databases and on the files of a host."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.cached import keep
from support.worlds.cloud import SIZE, Cloud

from glance_replicas import settings
from glance_replicas.cache.eviction import Eviction
from glance_replicas.database.chunks import CHUNK
from glance_replicas.errors import CatalogueError, LedgerError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.pins import Pins
from glance_replicas.model import Pass
from glance_replicas.transfer.fill import start

A, B, C = (f"0000000{n}-0000-4000-8000-000000000000" for n in range(3))


@pytest.fixture
def pins(database_url: str) -> Iterator[Pins]:
    """None yet."""
    ledger = Ledger(database_url)
    ledger.upgrade()
    yield Pins(ledger.database)
    ledger.close()


def keys(pins: Pins, **which: str) -> list[tuple[str, str]]:
    return [(one.image_id, one.host) for one in pins.all(host=which.get("host"))]


def test_pins_by_image_and_host(pins: Pins) -> None:
    """Every image is pinned on every host named; each question gets its own part."""
    pins.add([B, A], ["two", "one", "two"], "ann")
    assert keys(pins) == [(A, "one"), (A, "two"), (B, "one"), (B, "two")]
    assert keys(pins, host="one") == [(A, "one"), (B, "one")]
    assert [one.image_id for one in pins.all([A, C])] == [A, A]
    assert pins.all([]) == []
    assert (pins.of_host("one"), pins.of_host("three")) == ({A, B}, set())
    pins.add([], ["one"], "ann")
    pins.add([A], [], "ann")
    assert len(pins.all()) == 4


def test_the_first_pin_stands(pins: Pins) -> None:
    """Whoever pins again changes neither who did it nor when; what is new is added."""
    pins.add([A], ["one"], "ann")
    first = pins.all()
    pins.add([A, B], ["one"], "bob")
    assert pins.all([A]) == first
    assert [one.who for one in pins.all([B])] == ["bob"]
    assert first[0].pinned_at.tzinfo is not None


def test_pins_are_removed(pins: Pins) -> None:
    """On one host or on all, and the count says how many there were."""
    pins.add([A, B], ["one", "two"], "ann")
    assert pins.remove([A, C], "one") == 1
    assert keys(pins) == [(A, "two"), (B, "one"), (B, "two")]
    assert pins.remove([A, B], None) == 3
    assert pins.remove([A, B], None) == 0
    assert pins.remove([], None) == 0


def test_many_at_once(pins: Pins) -> None:
    """More pins than one statement takes, from several threads: all kept, once each, no deadlock."""
    ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(CHUNK // 2)]

    def pin(number: int) -> None:
        pins.add(ids if number % 2 else ids[::-1], ["a", "b", "c"], f"who-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pin, range(4)))
    assert len(keys(pins)) == 3 * len(ids)
    assert len(pins.all(ids, host="b")) == len(ids)


def test_without_tables(database_url: str) -> None:
    """What is missing is said, with the command that makes it."""
    ledger = Ledger(database_url)
    with pytest.raises(LedgerError, match="replica db upgrade"):
        Pins(ledger.database).of_host("one")
    ledger.close()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> settings.Settings:
    """The settings of a host that was never started."""
    host = GlanceSite(tmp_path_factory.mktemp("configured")).add_host("127.0.0.2", start=False)
    return settings.load([str(host.config_file)])


class Host:
    """One host's files, and one pass over its pins."""

    def __init__(self, cloud: Cloud, **options: Any) -> None:
        self.local = cloud.host("here", pin_property="keep_me", **options)
        self.cache, self.pins = self.local.cache, self.local.pins

    def keep(self, image_id: str, idle: float = 0.0) -> None:
        """A complete file last used so many seconds ago."""
        path = self.cache.path(image_id)
        keep(path, b"x" * 1000)
        os.utime(path, ns=(time.time_ns() - int(idle * 1e9), path.stat().st_mtime_ns))

    def apply_pins(self) -> set[str]:
        """The files with a pin after a pass."""
        self.done = Pass()
        self.local.pin_sync.apply_pins(self.done)
        return self.pinned()

    def pinned(self) -> set[str]:
        """The files with a pin."""
        return {one.image_id for one in self.cache.complete.entries() if one.pinned}


def add_property(cloud: Cloud, image_id: str, value: str, name: str = "keep_me", deleted: bool = False) -> None:
    """An image gets a property in Glance's tables."""
    cloud.site.rows(
        "INSERT INTO image_properties (image_id, name, value, created_at, deleted) "
        "VALUES (:id, :name, :value, CURRENT_TIMESTAMP, :deleted)",
        id=image_id,
        name=name,
        value=value,
        deleted=deleted,
    )


@pytest.fixture
def cloud(tmp_path: Path, loaded: settings.Settings, faulty: FaultyServer) -> Iterator[Cloud]:
    """A cloud without hosts."""
    with closing(Cloud(tmp_path, loaded, faulty)) as made:
        yield made


def test_files_get_the_pins_of_the_ledger(cloud: Cloud) -> None:
    """A pass pins what the ledger asks for on this host, and unpins what it no longer does."""
    host = Host(cloud)
    for image_id in (A, B, C):
        host.keep(image_id)
    host.pins.add([A, B], ["here"], "ann")
    host.pins.add([C], ["elsewhere"], "ann")
    assert host.apply_pins() == {A, B}
    host.pins.remove([A], None)
    assert host.apply_pins() == {B}
    assert host.done == Pass()


def test_files_get_the_pins_of_the_property(cloud: Cloud) -> None:
    """Images whose property is true are pinned; other values, other names and deleted rows are none."""
    host = Host(cloud)
    cases = [("true", {}), ("True", {}), ("1", {}), ("yes", {}), ("false", {}), ("", {})]
    cases += [("true", {"deleted": True}), ("true", {"name": "Keep_Me"})]
    ids = [cloud.image() for _ in cases]
    for image_id, (value, more) in zip(ids, cases, strict=True):
        host.keep(image_id)
        add_property(cloud, image_id, value, **more)
    assert host.apply_pins() == set(ids[:4])
    cloud.site.rows("UPDATE image_properties SET deleted = true WHERE image_id = :id", id=ids[0])
    assert host.apply_pins() == set(ids[1:4])


@pytest.mark.parametrize("away", ["ledger", "catalogue"])
def test_unknown_is_not_absent(cloud: Cloud, away: str) -> None:
    """While the ledger or the catalogue cannot be asked every pin stays, and none is added."""
    host = Host(cloud)
    host.keep(A)
    host.keep(B)
    host.pins.add([A], ["here"], "ann")
    assert host.apply_pins() == {A}
    host.pins.remove([A], None)
    host.pins.add([B], ["here"], "ann")
    database = cloud.site.folder / ("glance-replicas.sqlite" if away == "ledger" else "glance.sqlite")
    database.rename(database.with_suffix(".away"))
    with pytest.raises((LedgerError, CatalogueError)):
        host.apply_pins()
    assert host.pinned() == {A}


def test_pins_are_bounded(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond max_pinned_percent the copies used longest ago lose their pin, and the option is named."""
    host = Host(cloud, max_bytes=5000, max_pinned_percent=50)
    for number, image_id in enumerate((A, B, C)):
        host.keep(image_id, idle=1000.0 * number)
    host.pins.add([B, C], ["here"], "ann")
    assert host.apply_pins() == {B, C}
    host.pins.add([A], ["here"], "ann")
    assert host.apply_pins() == {A, B}
    assert f"image {C}: its pin is lifted, pinned copies take at most max_pinned_percent = 50" in caplog.text
    assert host.done.problems == [
        "pins: pinned copies may be evicted, because pinned copies take at most max_pinned_percent = 50 of "
        f"max_bytes: images {C}"
    ]
    assert host.apply_pins() == {A, B}


def test_without_a_quota_pins_are_not_bounded(cloud: Cloud) -> None:
    """A part of no limit is no limit."""
    host = Host(cloud, max_bytes=0, max_pinned_percent=10)
    for image_id in (A, B, C):
        host.keep(image_id)
    host.pins.add([A, B, C], ["here"], "ann")
    assert host.apply_pins() == {A, B, C}
    assert host.done.problems == []


@pytest.mark.parametrize("case", ["ledger", "property", "neither", "no room", "ledger away"])
def test_a_fill_is_pinned_at_once(cloud: Cloud, case: str) -> None:
    """A copy that is to stay has its pin as soon as it is there, within the bound; a ledger away costs nothing."""
    host = Host(cloud, max_bytes=(SIZE if case == "no room" else 3 * SIZE), max_pinned_percent=50)
    name = cloud.image()
    if case == "property":
        add_property(cloud, name, "true")
    elif case != "neither":
        host.pins.add([name], ["here"], "ann")
    if case == "ledger away":
        (cloud.site.folder / "glance-replicas.sqlite").unlink()
    image = host.local.catalogue.active(name)
    assert image is not None
    filler = start(host.cache, host.local.fill_setup.plan(image))
    assert filler is not None
    filler.join(30)
    assert cloud.rows(name) == ["here"]
    assert host.pinned() == ({name} if case in ("ledger", "property") else set())


def limits(host: LocalHost, gone: list[str]) -> Eviction:
    """The host's own, except that a row that goes is told to `gone` and stays."""
    return Eviction(
        host.cache,
        host.settings.max_bytes,
        host.settings.min_free_bytes,
        withdraw=gone.append,
        high_percent=95,
        low_percent=85,
        elsewhere=host.source_selection.held_elsewhere,
        kept=host.keeping.kept,
    )


def test_copies_of_living_hosts_go_first(cloud: Cloud) -> None:
    """What a living host has goes before what only a dead one, one under another URL, or nobody else has."""
    host = cloud.host("here", max_bytes=4000)
    living, dead = cloud.host("living", "http://127.0.0.3:1"), cloud.host("dead", "http://127.0.0.4:1")
    query = "UPDATE replica_hosts SET heartbeat = '2001-01-01 00:00:00' WHERE name = 'dead'"
    cloud.site.ledger_rows(query)
    ids = [cloud.image() for _ in range(4)]
    urls = [None, dead.settings.host_url, "http://127.0.0.5:1", living.settings.host_url]
    for number, (name, url) in enumerate(zip(ids, urls, strict=True)):
        path = host.cache.path(name)
        keep(path, b"x" * 1000)
        os.utime(path, ns=(time.time_ns() - int((90_000 - number) * 1e9), path.stat().st_mtime_ns))
        if url is not None:
            owner = "dead" if url == dead.settings.host_url else "living"
            cloud.site.add_location(name, f"{url}/replicas/{name}", {"replica_host": owner, "store": "web"})
    gone: list[str] = []
    limits(host, gone).trim()
    assert gone == [ids[3]]
    host = cloud.host("here", host.settings.host_url or "", max_bytes=1000)
    (cloud.site.folder / "glance.sqlite").unlink()
    limits(host, gone).trim()
    assert gone == [ids[3], *ids[:3]], "without the catalogue the order is that of the last use"
