"""The janitor against a real Glance: races replayed, hosts killed, directories gone, and what one pass makes of it."""

import fcntl
import itertools
import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.programs import replica
from support.worlds.cached import entry_of, keep, note, rot, used
from support.worlds.scenes import new_image, settle

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.pins import Pins
from glance_replicas.ledger.schema.connection import LedgerDatabase
from glance_replicas.location import replica_url
from glance_replicas.model import Host, Location
from glance_replicas.settings import default_ledger

MIB = 1 << 20
SIZE = 3 * MIB + 11
_numbers = itertools.count(1)
OPTIONS = {
    "DEFAULT": {"show_multiple_locations": "true"},
    "import_filtering_opts": {"allowed_hosts": "[127.0.0.1]", "allowed_ports": "[]"},
}
QUIET = {"replicas": {"janitor": "false", "dead_after_seconds": "3600", "max_withdrawals_per_pass": "3"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """Two hosts whose janitors run only when a test says so."""
    with GlanceSite(tmp_path_factory.mktemp("site"), options=OPTIONS) as made:
        Ledger(default_ledger(made.database_url)).upgrade()
        for number in (2, 3):
            made.add_host(f"127.0.0.{number}", threads=16, options=QUIET, start=False).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


@pytest.fixture
def host(site: GlanceSite) -> Iterator[GlanceHost]:
    """The first host, put right again after each test."""
    yield site.hosts[0]
    run(site.hosts[0])


def run(host: GlanceHost) -> dict[str, Any]:
    """One pass of a host's janitor, as cron runs it: the counts, and what it complained of."""
    done = replica().run("--config-file", host.config_file, "janitor", "--once")
    counts = dict(line.split(": ") for line in done.out.splitlines())
    assert counts, f"{done.status}: {done.err}"
    return {**{name: int(value) for name, value in counts.items()}, "problems": done.err}


def make(host: GlanceHost, **properties: Any) -> tuple[str, bytes]:
    """A new image with bytes of its own."""
    return new_image(host, SIZE, **properties)


def cached(host: GlanceHost) -> tuple[str, bytes]:
    """A new image that this host has cached and registered."""
    image_id, data = make(host)
    assert host.client().download(image_id).content == data
    settle(lambda: own_rows(host, image_id))
    return image_id, data


def own_rows(host: GlanceHost, image_id: str) -> list[dict[str, Any]]:
    """The active rows of this host for an image."""
    rows = host.site.locations(image_id)
    return [row for row in rows if row["url"] == replica_url(host.url, image_id)]


def withdraw(host: GlanceHost, image_id: str) -> None:
    """Row and file gone, as an eviction does it."""
    Catalogue(host.site.database_url).withdraw_url(image_id, replica_url(host.url, image_id))
    (host.cache_dir / image_id).unlink()


class Held:
    """A PATCH that has read the image and not saved it yet: Glance is asking a slow web server about a new location."""

    def __init__(self, host: GlanceHost, faulty: FaultyServer, image_id: str) -> None:
        self._faulty, self._path = faulty, f"/held-{next(_numbers)}"
        url = faulty.put(self._path, random.Random(1).randbytes(SIZE), stall_before_headers=True)
        change = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {"store": "web"}}}]
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(host.client().patch, image_id, change)
        settle(lambda: faulty.requests(self._path))

    def let_go(self) -> int:
        """Let Glance save what it read; its status."""
        self._faulty.change(self._path, stall_before_headers=False)
        status = self._answer.result(30).status_code
        self._pool.shutdown()
        return status


def test_lost_row_comes_back(site: GlanceSite, host: GlanceHost, faulty: FaultyServer) -> None:
    """A row added while Glance saves a stale copy of the image disappears; one pass puts it back, once (promise 8)."""
    image_id, data = make(host)
    held = Held(host, faulty, image_id)
    assert host.client().download(image_id).content == data
    settle(lambda: own_rows(host, image_id))
    assert held.let_go() == 200
    assert own_rows(host, image_id) == [], "Glance lost the row: the fact this test is about (docs/glance.md)"
    assert run(host)["registered"] == 1
    assert len(own_rows(host, image_id)) == 1
    assert run(host)["registered"] == 0
    assert len(own_rows(host, image_id)) == 1


def test_what_stays_under_pressure(tmp_path: Path) -> None:
    """What another host has goes first, then what only this one has; copies pinned by order or by property stay."""
    limits = {"max_bytes": str(4 * SIZE + SIZE // 10), "pin_property": "keep_me", "max_pinned_percent": "50"}
    quiet = {"replicas": {**QUIET["replicas"], **limits}}
    with GlanceSite(tmp_path / "site") as site:
        one, two = (site.add_host(f"127.0.0.{number}", options=quiet, start=False) for number in (2, 3))
        for host in (one, two):
            run(host)
            host.start(wait=False)
        for host in (one, two):
            host.wait_ready()
        by_property, by_order, unique, shared = (make(one, **more)[0] for more in ({"keep_me": "true"}, {}, {}, {}))
        Pins(LedgerDatabase(site.ledger_url)).add([by_order], [one.name], "a test")
        for number, image_id in enumerate((by_property, by_order, unique, shared)):
            one.client().download(image_id)
            settle(lambda image_id=image_id: own_rows(one, image_id))
            used(one.cache_dir / image_id, 90_000 - number)
        two.client().download(shared)
        settle(lambda: own_rows(two, shared))
        used(one.cache_dir / shared, 80_000)
        settle(lambda: entry_of(one.cache_dir / by_order).pinned)
        new = cached(one)[0]
        assert kept(one) == {by_property, by_order, unique, new}, "what another host has goes first"
        newer = cached(one)[0]
        assert kept(one) == {by_property, by_order, new, newer}, "what is pinned stays"
        assert "problems: " not in run(one)["problems"]
        assert kept(one) == {by_property, by_order, newer}, "the pass is above the high watermark"


def kept(host: GlanceHost) -> set[str]:
    """The images of which a host has a complete file."""
    return {path.name for path in host.cache_dir.iterdir() if len(path.name) == 36}


def test_resurrected_row_goes_again(site: GlanceSite, host: GlanceHost, faulty: FaultyServer) -> None:
    """A withdrawn row that a stale save brings back is withdrawn again, and nothing else is touched (promise 8)."""
    image_id, _ = cached(host)
    cached(host)  # so that the directory is not empty, as an unmounted one is
    held = Held(host, faulty, image_id)
    withdraw(host, image_id)
    assert held.let_go() == 200
    assert len(own_rows(host, image_id)) == 1, "Glance brought it back: the fact this test is about (docs/glance.md)"
    others = [row for row in site.locations(image_id) if row["url"] != replica_url(host.url, image_id)]
    assert run(host)["withdrawn"] == 1
    assert site.locations(image_id) == others
    assert len(others) == 2


def test_racing_saves_heal(site: GlanceSite, host: GlanceHost) -> None:
    """Renames and PATCHes from both hosts race with fills: after one pass of each, rows equal files (promise 8)."""
    images = [make(host)[0] for _ in range(4)]
    stop = threading.Event()

    def rename(image_id: str) -> None:
        client = site.hosts[1].client()
        for number in itertools.count():
            if stop.is_set():
                return
            client.patch(image_id, [{"op": "replace", "path": "/name", "value": f"name-{number}"}])

    with ThreadPoolExecutor(4) as pool:
        renames = [pool.submit(rename, image_id) for image_id in images]
        for _ in range(3):
            for one, image_id in itertools.product(site.hosts, images):
                one.client().download(image_id)
            for image_id in images[::2]:
                if (host.cache_dir / image_id).exists():
                    withdraw(host, image_id)
        stop.set()
        for one in renames:
            one.result()
    for one in site.hosts:
        run(one)
    for one, image_id in itertools.product(site.hosts, images):
        assert len(own_rows(one, image_id)) == (one.cache_dir / image_id).exists()


def test_killed_host_agrees_after_restart(site: GlanceSite, host: GlanceHost, faulty: FaultyServer) -> None:
    """kill -9 of everything during fills; after the next start and one pass rows equal files, and the files are right.

    (promise 7)
    """
    contents = {}
    for _ in range(3):
        image_id, data = make(host)
        site.move_to(faulty, image_id, rate=2 * MIB)
        contents[image_id] = data
    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(attempt, host, image_id) for image_id in contents]
        time.sleep(0.9)
        host.kill()
        for one in clients:
            one.result()
    host.restart()
    run(host)
    for image_id, data in contents.items():
        assert len(own_rows(host, image_id)) == (host.cache_dir / image_id).exists()
        faulty.change(f"/{image_id}", rate=None)
        assert host.client().download(image_id).content == data
        settle(lambda image_id=image_id: own_rows(host, image_id))
        assert (host.cache_dir / image_id).read_bytes() == data
    assert list(host.partial_dir.glob("????????-*")) == []


def attempt(host: GlanceHost, image_id: str) -> None:
    try:
        host.client().download(image_id)
    except OSError:  # the host died under it; requests' errors are OSErrors
        pass


def test_file_without_row_and_row_without_file(host: GlanceHost) -> None:
    """Killed between rename and row, or between file and row the other way: one pass settles both (promise 7)."""
    image_id, _ = cached(host)
    Catalogue(host.site.database_url).withdraw_url(image_id, replica_url(host.url, image_id))
    lost, _ = cached(host)
    (host.cache_dir / lost).unlink()
    done = run(host)
    assert (done["registered"], done["withdrawn"]) == (1, 1)
    assert len(own_rows(host, image_id)) == 1
    assert own_rows(host, lost) == []


def test_stock_files_are_adopted(host: GlanceHost) -> None:
    """What the stock cache left is verified: right files are registered, wrong ones set aside, never registered."""
    right, data = make(host)
    (host.cache_dir / right).write_bytes(data)
    wrong, data = make(host)
    (host.cache_dir / wrong).write_bytes(bytes(len(data)))
    short, data = make(host)
    (host.cache_dir / short).write_bytes(data[:100])
    done = run(host)
    assert (done["adopted"], done["damaged"], done["registered"]) == (1, 2, 1)
    assert len(own_rows(host, right)) == 1
    assert not (host.cache_dir / wrong).exists()
    assert own_rows(host, wrong) == own_rows(host, short) == []


def test_queue_is_filled(host: GlanceHost) -> None:
    """A name in queue/ is a request to fill; it is registered like any other and the name goes."""
    image_id, data = make(host)
    (host.cache_dir / "queue" / image_id).touch()
    assert run(host)["filled"] == 1
    assert (host.cache_dir / image_id).read_bytes() == data
    assert len(own_rows(host, image_id)) == 1
    run(host)
    assert not (host.cache_dir / "queue" / image_id).exists()


def test_scrub_finds_rot(host: GlanceHost) -> None:
    """A file unverified for too long is read again: rot is withdrawn and set aside; the next download is right."""
    image_id, data = cached(host)
    path = host.cache_dir / image_id
    rot(path, SIZE - 1, bytes([data[-1] ^ 1]))
    note(path, data, age=30 * 86400)
    done = run(host)
    assert (done["scrubbed"], done["damaged"]) == (1, 1)
    assert own_rows(host, image_id) == []
    assert host.client().download(image_id).content == data


def test_removal_asked_for(host: GlanceHost) -> None:
    """What prune asked this host to drop is dropped, and said to be done; it is not registered again."""
    image_id, _ = cached(host)
    ledger = Ledger(default_ledger(host.site.database_url))
    row = own_rows(host, image_id)[0]
    location = Location(image_id, row["url"], row["metadata"], row["id"])
    ledger.request_withdrawal(location, reason="asked by a test", who="tester", proof=None)
    assert run(host)["removed"] == 1
    assert not (host.cache_dir / image_id).exists()
    assert own_rows(host, image_id) == []
    assert ledger.pending_withdrawals(host.name) == []
    assert run(host)["registered"] == 0


def test_a_copy_that_is_going_is_not_registered(host: GlanceHost) -> None:
    """A pass while a prune has withdrawn the row and not yet handed the file over leaves it to the next one."""
    image_id, _ = cached(host)
    ledger = Ledger(default_ledger(host.site.database_url))
    row = own_rows(host, image_id)[0]
    location = Location(image_id, row["url"], row["metadata"], row["id"])
    request = ledger.request_withdrawal(location, reason="asked by a test", who="tester", row_only=True)
    assert Catalogue(host.site.database_url).withdraw(location)
    assert run(host)["registered"] == 0
    assert (host.cache_dir / image_id).exists()
    ledger.hand_over(request)
    assert run(host)["removed"] == 1
    assert own_rows(host, image_id) == []


def test_unmounted_directory_withdraws_nothing(host: GlanceHost) -> None:
    """An empty directory in place of the cache is unknown, not empty: every row stays, and the pass says so."""
    image_id, _ = cached(host)
    away = host.cache_dir.with_name("mounted-elsewhere")
    host.cache_dir.rename(away)
    host.cache_dir.mkdir()
    try:
        done = run(host)
        assert done["withdrawn"] == 0
        assert "unmounted" in done["problems"]
        assert len(own_rows(host, image_id)) == 1
    finally:
        shutil.rmtree(host.cache_dir)
        away.rename(host.cache_dir)
    assert run(host)["withdrawn"] == 0


@pytest.mark.parametrize("lost", [3, 4])
def test_withdrawals_of_one_pass_are_capped(host: GlanceHost, lost: int) -> None:
    """One pass withdraws as many rows as allowed and says when there were more; the next goes on."""
    cached(host)
    for image_id in [cached(host)[0] for _ in range(lost)]:
        (host.cache_dir / image_id).unlink()
    done = run(host)
    assert done["withdrawn"] == 3
    assert ("max_withdrawals_per_pass" in done["problems"]) == (lost == 4)
    assert run(host)["withdrawn"] == lost - 3


def test_only_own_rows_are_touched(site: GlanceSite, host: GlanceHost) -> None:
    """Rows of other hosts, of operators and of users who imitate ours stay, whatever is on disk."""
    image_id, _ = make(host)
    foreign = [
        ("http://127.0.0.9/replicas/" + image_id, {"replica_host": "elsewhere", "store": "web"}),
        ("http://127.0.0.9/replicas/" + image_id, {"replica_host": host.name, "store": "web"}),
        (replica_url(host.url, image_id), {"store": "web", "note": "an operator's"}),
        ("http://127.0.0.9/mirror/image", {"store": "web"}),
    ]
    for url, metadata in foreign:
        site.add_location(image_id, url, metadata)
    before = site.locations(image_id)
    assert run(host)["withdrawn"] == 0
    assert site.locations(image_id) == before


def test_database_away_changes_nothing(host: GlanceHost, tmp_path: Path) -> None:
    """Without the catalogue nothing is registered, withdrawn or removed; the pass says what it could not ask."""
    image_id, _ = cached(host)
    database = Path(host.site.database_url.removeprefix("sqlite:///").split("?")[0])
    away = database.with_name("away.sqlite")
    database.rename(away)
    try:
        done = run(host)
    finally:
        database.unlink(missing_ok=True)
        away.rename(database)
    assert "reconcile" in done["problems"]
    assert (done["withdrawn"], done["removed"]) == (0, 0)
    assert (host.cache_dir / image_id).exists()


def test_another_database_removes_nothing(host: GlanceHost) -> None:
    """A catalogue that knows none of many files is taken for another one: the files stay."""
    names = [f"50000000-0000-4000-8000-{number:012d}" for number in range(5)]
    for name in names:
        keep(host.cache_dir / name, b"x")
    try:
        done = run(host)
        assert "another database" in done["problems"]
        assert all((host.cache_dir / name).exists() for name in names)
    finally:
        for name in names:
            (host.cache_dir / name).unlink()


def test_dead_hosts_rows_go_and_come_back(site: GlanceSite, host: GlanceHost) -> None:
    """Rows of a host without a heartbeat for long are withdrawn; one that is only late keeps them."""
    image_id, _ = make(host)
    ledger = Ledger(default_ledger(site.database_url))
    for name, address, age in (("late", "127.0.0.8", 3000), ("dead", "127.0.0.9", 4000)):
        ledger.heartbeat(Host(name, None, f"http://{address}:9292"))
        site.ledger_rows(
            "UPDATE replica_hosts SET heartbeat = datetime('now', :age) WHERE name = :name",
            age=f"-{age} seconds",
            name=name,
        )
        site.add_location(image_id, f"http://{address}:9292/replicas/{image_id}", {"replica_host": name})
    assert run(host)["withdrawn"] == 1
    left = [row["metadata"].get("replica_host") for row in site.locations(image_id)]
    assert left == [None, "late"]


def test_moved_host_withdraws_its_old_rows(site: GlanceSite) -> None:
    """A host whose URL changed registers under the new one and leaves no row under the old one."""
    host = site.hosts[1]
    run(host)
    image_id, _ = cached(host)
    old = host.url
    host.configure({"replicas": {"host_url": "http://127.0.0.33:9292"}})
    try:
        done = run(host)
        assert done["withdrawn"] >= 1
        urls = [row["url"] for row in site.locations(image_id)]
        assert replica_url(old, image_id) not in urls
        assert f"http://127.0.0.33:9292/replicas/{image_id}" in urls
    finally:
        host.configure({"replicas": {"host_url": old}})
        run(host)
    assert len(own_rows(host, image_id)) == 1


def test_two_janitors_on_one_directory(host: GlanceHost) -> None:
    """The second janitor on a host does nothing and says why."""
    with (host.cache_dir / ".glance-replicas" / "janitor").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AssertionError, match="another janitor"):
            run(host)


def test_delayed_delete_does_not_hang(tmp_path: Path) -> None:
    """With delayed_delete no http row is left for the scrubber, which would choke on it for ever (docs/glance.md).

    Deleting through a host with our filters leaves none; after one without them the next pass takes it away.
    """
    with GlanceSite(tmp_path / "delayed", options={"DEFAULT": {"delayed_delete": "true"}}) as made:
        ours = made.add_host("127.0.0.4", processes=1, options=QUIET)
        plain = made.add_host("127.0.0.5", processes=1, pipeline="stock")

        def pending(image_id: str) -> list[str]:
            query = "SELECT value FROM image_locations WHERE image_id = :id AND status = 'pending_delete'"
            return [row["value"].split(":")[0] for row in made.rows(query, id=image_id)]

        image_id, _ = cached(ours)
        ours.client().delete(image_id)
        assert pending(image_id) == ["file"]
        image_id, _ = cached(ours)
        plain.client().delete(image_id)
        assert sorted(pending(image_id)) == ["file", "http"], "the fact this test is about"
        assert run(ours)["withdrawn"] == 1
        assert pending(image_id) == ["file"]
        assert not (ours.cache_dir / image_id).exists()
