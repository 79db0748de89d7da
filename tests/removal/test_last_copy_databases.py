"""The rule of the last copy on SQLite, PostgreSQL and MariaDB: what it asks, and removals at the same time."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from services.databases.servers import DatabaseServer
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.cloud import DATA, Cloud, loaded  # noqa: F401 - a fixture
from test_guard import doubled, stores

from glance_replicas.database.chunks import CHUNK
from glance_replicas.errors import LastCopy
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor.passes import Janitor
from glance_replicas.ledger.schema.rows import place_key
from glance_replicas.model import Host, Location, Pass, Result
from glance_replicas.removal.known import KnownCopies
from glance_replicas.settings import Settings
from glance_replicas.verdict import Evidence, Verdict

DAMAGED, FULL = Verdict.CORRUPT, Evidence.FULL


@pytest.fixture
def cloud(
    glance_database_url: str,
    tmp_path: Path,
    loaded: Settings,  # noqa: F811
    faulty: FaultyServer,
) -> Iterator[Cloud]:
    """A cloud on each database in turn."""
    with closing(Cloud(tmp_path, loaded, faulty, glance_database_url)) as made:
        yield made


@pytest.fixture
def pair(cloud: Cloud) -> tuple[LocalHost, LocalHost]:
    return cloud.host("h1"), cloud.host("h2")


def own(local: LocalHost, name: str) -> Location:
    return Location(name, local.registration.own_url(name) or "", local.registration.metadata())


def store_of(cloud: Cloud, name: str) -> Location:
    [row] = [one for one in cloud.site.locations(name) if "replica_host" not in one["metadata"]]
    return Location(name, row["url"], row["metadata"])


def record(local: LocalHost, one: Location, verdict: Verdict, evidence: Evidence = FULL) -> None:
    local.ledger.record([Result(one, verdict, evidence, "", datetime.now(UTC))])


def cached(cloud: Cloud, locals_: tuple[LocalHost, ...]) -> str:
    """An image with an intact copy on each host, whose store's copy is known to be damaged."""
    name = cloud.image()
    for local in locals_:
        image = local.catalogue.image(name)
        assert image is not None
        partial_file = local.cache.partials.begin(image)
        assert partial_file is not None
        partial_file.append(DATA, 0)
        local.cache.partials.commit(partial_file, image)
        assert local.full_reads.verified(image)
    record(locals_[0], store_of(cloud, name), DAMAGED)
    return name


def test_what_is_known(cloud: Cloud, pair: tuple[LocalHost, LocalHost]) -> None:
    """Verdicts, of a silent store those of before; open removals, not void ones; hosts that live: of 1,100 images."""
    one, other = pair
    name, silent = cached(cloud, pair), cached(cloud, pair)
    record(one, store_of(cloud, silent), Verdict.MISSING, Evidence.SIZE)
    for _ in range(3):
        record(one, store_of(cloud, silent), Verdict.UNREACHABLE, Evidence.SIZE)
    many = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(1100)]
    asked = [*many, name, silent]
    stale = one.ledger.request_withdrawal(own(one, silent), reason="r", who="w", row_only=True)
    mine = one.ledger.request_withdrawal(own(one, name), reason="r", who="w", row_only=True)
    theirs = one.ledger.request_withdrawal(own(other, name), reason="r", who="w")
    for line in (stale, theirs):  # a note that nobody acts on is void, an order waits for its host however long
        cloud.site.ledger_rows("UPDATE replica_withdrawals SET requested_at = '2001-01-01' WHERE id = :i", i=line)
    done = one.ledger.request_withdrawal(own(other, silent), reason="r", who="w")
    one.ledger.finish_withdrawal(done)
    for copy in (store_of(cloud, name), own(other, cloud.image())):  # of a store; of an image that nobody asks about
        one.ledger.request_withdrawal(copy, reason="r", who="w")
    one.ledger.heartbeat(Host("h3", None, "http://127.0.0.9:1"))
    cloud.site.ledger_rows("UPDATE replica_hosts SET heartbeat = '2001-01-01' WHERE name = 'h3'")
    asker = KnownCopies(one.ledger.database, 60.0)
    found = asker.of(asked, but=mine)
    assert set(found.living) == {"h1", "h2"}
    assert found.going == {(name, place_key(own(other, name)))}
    assert asker.of(asked, but=theirs).going == {(name, place_key(own(one, name)))}
    assert len(found.lasts) == 6
    before = found.lasts[silent, place_key(store_of(cloud, silent))]
    assert (before.verdict, before.full_verdict) == (Verdict.MISSING, DAMAGED), "as it was before nobody answered"
    doubtful = asker.doubtful_stores(asked)
    assert set(doubtful) == {(image, place_key(store_of(cloud, image))) for image in (name, silent)}
    assert doubtful[silent, place_key(store_of(cloud, silent))] == before
    gone, hidden, fine = (cloud.image() for _ in range(3))
    record(one, store_of(cloud, gone), Verdict.MISSING, Evidence.SIZE)
    record(one, store_of(cloud, hidden), DAMAGED)
    for image in (hidden, fine):
        record(one, store_of(cloud, image), Verdict.INTACT, Evidence.SIZE)
    assert {image for image, _ in asker.doubtful_stores([gone, hidden, fine, name])} == {gone, hidden, name}
    assert one.keeping.kept([gone, hidden, fine, name]) == {gone, hidden, name}
    record(one, own(other, name), Verdict.UNREACHABLE)
    silent_host = asker.of([name]).lasts[name, place_key(own(other, name))]
    assert silent_host.verdict is Verdict.UNREACHABLE, "a host that does not answer holds no copy that stays"
    assert set(asker.doubtful_stores([name])) == {(name, place_key(store_of(cloud, name)))}, "no copy on a host"
    assert len(many) > CHUNK
    assert one.keeping.kept([*many, name]) == {name}


def test_a_hosts_metadata_on_a_durable_row(cloud: Cloud, pair: tuple[LocalHost, LocalHost]) -> None:
    """A member writes `replica_host` onto the store's row: it is durable as before, for each question."""
    one, _ = pair
    name = cached(cloud, pair)
    store = store_of(cloud, name)
    dressed = json.dumps({**store.metadata, "replica_host": "h1"})
    query = "UPDATE image_locations SET meta_data = :m WHERE image_id = :i AND value = :u"
    cloud.site.rows(query, m=dressed, i=name, u=store.url)
    noted = "UPDATE replica_states SET host = 'h1' WHERE image_id = :i AND place = :p"  # as earlier versions did
    cloud.site.ledger_rows(noted, i=name, p=place_key(store))
    assert set(KnownCopies(one.ledger.database).doubtful_stores([name])) == {(name, place_key(store))}
    record(one, store, Verdict.UNREACHABLE, Evidence.SIZE)
    cloud.site.ledger_rows(noted, i=name, p=place_key(store))
    assert KnownCopies(one.ledger.database).of([name]).lasts[name, place_key(store)].verdict is DAMAGED
    assert one.keeping.kept([name]) == {name}
    assert [found.url for found in one.catalogue.of_host("h1")] == [one.registration.own_url(name)]
    image = one.catalogue.image(name)
    assert image is not None
    assert [found.url for found in image.durable] == [store.url]
    record(one, image.durable[0], Verdict.INTACT)
    assert one.keeping.kept([name]) == set(), "it would stay in caches for ever"
    assert name not in one.catalogue.only_cached()
    cloud.site.rows("DELETE FROM image_locations WHERE image_id = :i AND value = :u", i=name, u=store.url)
    own_url = one.registration.own_url(name)
    cloud.site.rows("UPDATE image_locations SET meta_data = '{}' WHERE image_id = :i AND value = :u", i=name, u=own_url)
    assert name in one.catalogue.only_cached(), "a host's URL is no durable copy, whatever its row says"


def test_one_of_two(cloud: Cloud, pair: tuple[LocalHost, LocalHost]) -> None:
    """One order goes through, the second is refused by whomever it is given; the hosts do it so; a row of a dead host
    stays when it is the last."""
    one, other = pair
    name = cached(cloud, pair)
    one.removals.order(own(one, name), reason="r", who="w")
    for asker in pair:
        with pytest.raises(LastCopy):
            asker.removals.order(own(other, name), reason="r", who="w")
    for local in pair:
        Janitor(local)._removals(Pass())
    assert [local.cache.complete.exists(name) for local in pair] == [False, True]
    assert list(one.removals.expendable([own(other, name)])) == []
    other.ledger.request_withdrawal(own(other, name), reason="by an older version", who="w")
    Janitor(other)._removals(Pass())
    assert other.cache.complete.exists(name)
    assert cloud.rows(name) == ["h2"]


def test_a_forced_order(cloud: Cloud, pair: tuple[LocalHost, LocalHost]) -> None:
    """It goes through, is done by the host, and the ledger has who, why and what was overruled; others are refused."""
    one, other = pair
    name = cached(cloud, (one,))
    with pytest.raises(LastCopy):
        other.removals.order(own(one, name), reason="r", who="w")
    line = other.removals.order(own(one, name), reason="r", who="w", forced="the disk goes")
    [noted] = [found for found in one.ledger.withdrawals(image_ids=[name]) if found.id == line]
    assert noted.proof is not None
    assert (noted.proof["forced"], noted.proof["why"], noted.proof["who"]) == (True, "the disk goes", "w")
    assert "last intact copy" in str(noted.proof["overruled"])
    Janitor(one)._removals(Pass())
    assert (one.cache.complete.exists(name), cloud.rows(name)) == (False, [])


def test_a_verdict_of_another_file(cloud: Cloud, pair: tuple[LocalHost, LocalHost]) -> None:
    """What was known to be wrong may go; not when its host has read the file since, and found it right."""
    one, _ = pair
    name = cached(cloud, (one,))
    record(one, own(one, name), DAMAGED)
    line = one.removals.order(own(one, name), reason="r", who="w")
    [asked] = [found for found in one.ledger.pending_withdrawals("h1") if found.id == line]
    assert not one.removals.is_refused(asked)
    assert not one.removals.is_refused(asked, time.time() - 3600)
    assert one.removals.is_refused(asked, time.time() + 5)
    assert one.ledger.pending_withdrawals("h1") == [], "it is closed, with the reason"


def test_two_orders_at_once(cloud: Cloud, pair: tuple[LocalHost, LocalHost]) -> None:
    """Both of the last two copies, ordered away at the same moment by two hosts: at least one is refused, each time."""
    one, other = pair
    for _ in range(12):
        name, start = cached(cloud, pair), threading.Barrier(2)

        def order(asker: LocalHost, local: LocalHost, name: str = name, start: threading.Barrier = start) -> bool:
            start.wait(10)
            try:
                asker.removals.order(own(local, name), reason="r", who="w")
            except LastCopy:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            taken = list(pool.map(order, (one, other), (other, one)))
        assert taken.count(True) < 2
        list(ThreadPoolExecutor(2).map(lambda local: Janitor(local)._removals(Pass()), pair))
        assert [local.cache.complete.exists(name) for local in pair].count(True) == 2 - taken.count(True)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])  # test_guard has MariaDB
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[GlanceHost]]:
    """Two real hosts on each database, with two file stores."""
    server: DatabaseServer | None = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("site")
    (folder / "slow").mkdir()
    options = {
        "DEFAULT": {"show_multiple_locations": "true", "enabled_backends": "fast:file, slow:file, web:http"},
        "slow": {"filesystem_store_datadir": str(folder / "slow")},
    }
    with GlanceSite(folder, server.create_glance("two_removals") if server else None, options=options) as made:
        for number in (2, 3):
            made.add_host(f"127.0.0.{number}", processes=1, start=False).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made.hosts


def test_two_removals_at_once(hosts: list[GlanceHost]) -> None:
    """Both durable copies, deleted at the same time on two hosts: one of them is refused, each time."""
    site = hosts[0].site
    for _ in range(6):
        image_id, told = doubled(site, hosts[0]), [len(host.log()) for host in hosts]
        with ThreadPoolExecutor(2) as pool:
            wanted = zip(hosts, ("fast", "slow"), strict=True)
            asked = [pool.submit(host.client().request, "DELETE", f"/v2/stores/{s}/{image_id}") for host, s in wanted]
        statuses = sorted(one.result().status_code for one in asked)
        if statuses == [409, 500] and site.database_url.startswith("sqlite"):
            # Glance reads before it writes in one transaction, which SQLite refuses at once when another has written;
            # or the row went and Glance could not read the image again for its answer.
            failed = [one.result().status_code for one in asked].index(500)
            assert "database is locked" in hosts[failed].log()[told[failed] :]
            assert set(stores(site, image_id)) | {("fast", "slow")[failed]} == {"fast", "slow", "web"}
            continue
        assert statuses == [204, 409]
        assert stores(site, image_id) in (["fast", "web"], ["slow", "web"])
