"""Our tables know every cached copy; Glance's carry the best few, or none where a site says so."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from services.databases.schema import query
from services.databases.servers import DatabaseServer
from services.web.faulty import FaultyServer
from support.worlds.cloud import Cloud, filled

from glance_replicas import location, settings
from glance_replicas.catalogue import spread
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.errors import CatalogueError, LastCopy
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor.passes import Janitor
from glance_replicas.ledger.cached_copies import BestEffortCopies, CachedCopies
from glance_replicas.model import HOST_KEY, ZONE_KEY, Image, Location, Result
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.worlds.cloud"]

FEW = {"max_registered_per_image": 2}
LEDGER = {"registrar": "ledger", "http_store": None, "can_register": False}


def again(local: LocalHost, **changes: Any) -> LocalHost:
    """The host after a restart with other options."""
    return LocalHost.assemble(replace(local.settings, **changes))


def run(local: LocalHost) -> Any:
    """One pass of a host's janitor, as cron runs it."""
    return Janitor(local).run_once()


def everywhere(local: LocalHost, name: str) -> list[str | None]:
    """The hosts that have the image, as every reader sees them: those with a row of Glance's first."""
    image = local.catalogue.image(name)
    assert image is not None
    return [copy.host for copy in image.cached]


def three(cloud: Cloud, **changes: Any) -> tuple[LocalHost, LocalHost, LocalHost, str]:
    """Three hosts that have one image: a and b in zone z1, c in zone z2."""
    a, b, c = (cloud.host(name, host_zone=zone, **changes) for name, zone in (("a", "z1"), ("b", "z1"), ("c", "z2")))
    name = cloud.cached(a) if a.settings.registrar == "catalogue" else cloud.image()
    for local in (a, b, c):
        filled(local, name)
    return a, b, c, name


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_glances_table_carries_the_best_few(
    tmp_path: Path, loaded: settings.Settings, faulty: FaultyServer, server: str, request: pytest.FixtureRequest
) -> None:
    """Two rows for three copies, one in each zone; readers see three; when a host leaves, the one outside has its row.

    And no more rows than that are ever made, deleted ones too: Glance reads those with each GET.
    """
    database: DatabaseServer = request.getfixturevalue(server)
    with closing(Cloud(tmp_path, loaded, faulty, database.create_glance("registrar"))) as cloud:
        a, b, c, name = three(cloud, **FEW)
        assert cloud.rows(name) == ["a", "c"]
        assert sorted(filter(None, everywhere(a, name))) == ["a", "b", "c"]
        for local in (a, b, c):
            done = run(local)
            assert (done.registered, done.withdrawn, done.problems) == (0, 0, [])
        assert cloud.rows(name) == ["a", "c"]
        for _ in range(3):
            a.registration.withdraw(name)
            a.cache.complete.remove(name)
            assert run(b).registered == 1
            assert sorted(cloud.rows(name)) == ["b", "c"]
            filled(a, name)
            assert sorted(filter(None, everywhere(c, name))) == ["a", "b", "c"]
            b.registration.withdraw(name)
            b.cache.complete.remove(name)
            assert run(a).registered == 1
            filled(b, name)
        rows = query(cloud.site.database_url, "SELECT id FROM image_locations WHERE image_id = :id", id=name)
        assert len(rows) == 1 + 2


def test_peers_read_from_a_copy_without_a_row(cloud: Cloud) -> None:
    """A host that fills asks the hosts that our tables know, before the store."""
    *_, name = three(cloud, max_registered_per_image=1)
    assert len(cloud.rows(name)) == 1
    late = cloud.host("late", host_zone="z3", max_registered_per_image=1)
    image = late.catalogue.active(name)
    assert image is not None
    assert {copy.host for copy in late.source_selection.order(image, fills=False) if copy.is_cached} == {"a", "b", "c"}


def test_nothing_in_glances_table(cloud: Cloud) -> None:
    """`registrar = ledger`, and no http store: readers see every copy; evictions and passes keep that true."""
    a, b, c, name = three(cloud, **LEDGER)
    assert cloud.rows(name) == []
    assert everywhere(a, name) == ["a", "b", "c"]
    assert [run(local).registered for local in (a, b, c)] == [0, 0, 0]
    a.registration.withdraw(name)
    assert everywhere(b, name) == ["b", "c"]
    assert run(a).registered == 1, "its file is there"
    (a.cache.folder / name).unlink()
    keep = cloud.image()
    filled(a, keep)
    assert run(a).withdrawn == 1
    assert everywhere(b, name) == ["b", "c"]
    assert cloud.rows(name) == cloud.rows(keep) == []


def test_the_way_there_and_back(cloud: Cloud) -> None:
    """A site that changes `registrar` has its rows within a pass, whichever way; no file is read again for that."""
    local = cloud.host("a")
    name = cloud.cached(local)
    ledger = again(local, registrar="ledger")
    assert run(ledger).problems == []
    assert cloud.rows(name) == []
    assert everywhere(ledger, name) == ["a"]
    reads = cloud.reads(name)
    assert run(again(local)).registered == 1
    assert cloud.rows(name) == ["a"]
    assert cloud.reads(name) == reads


def test_too_many_rows_of_an_earlier_version_go(cloud: Cloud) -> None:
    """Each host takes away its own; those stay that the rule would have taken."""
    a, b, c, name = three(cloud)
    assert cloud.rows(name) == ["a", "b", "c"]
    for local in (a, b, c):
        run(again(local, **FEW))
    assert cloud.rows(name) == ["a", "c"]
    assert sorted(filter(None, everywhere(b, name))) == ["a", "b", "c"]


def test_rows_of_an_earlier_version_are_counted(cloud: Cloud) -> None:
    """A row that our tables never had, without a file: found by the daily reading of the table, and withdrawn."""
    local = cloud.host("a")
    kept = cloud.cached(local)
    stray, later = cloud.image(), cloud.image()
    for name in (stray, later):
        cloud.site.add_location(name, f"{local.settings.host_url}/replicas/{name}", {HOST_KEY: "a"})
        done = run(again(local))
        assert done.withdrawn == (name == stray), "the second came after the day's reading"
    assert cloud.rows(stray) == []
    assert run(again(local, catalogue_scan_seconds=0)).withdrawn == 1
    assert (cloud.rows(later), cloud.rows(kept)) == ([], ["a"])


def test_a_host_is_searched_by_index(cloud: Cloud) -> None:
    """What is registered on a host is the same by index, and by reading all of Glance's table."""
    _, b, _, name = three(cloud, **FEW)
    other = cloud.cached(b)
    index = Catalogue(cloud.site.database_url, None, BestEffortCopies(CachedCopies(b.ledger.database), _asked))
    before = {(copy.image_id, copy.url) for copy in index.registrations("b")}
    assert index.images_of("b") is None, "it has not counted its rows yet"
    run(b)
    assert index.images_of("b") == {name, other}
    assert {(copy.image_id, copy.url) for copy in index.registrations("b")} == before | {
        (name, location.replica_url(b.settings.host_url or "", name))
    }
    index.close()


def test_a_dead_hosts_copies_are_forgotten(cloud: Cloud) -> None:
    """Those in our tables alone too, and not the last intact copy that is known of."""
    a, *_, name = three(cloud, **LEDGER)
    cloud.site.ledger_rows("UPDATE replica_hosts SET heartbeat = '2020-01-01 00:00:00.000000' WHERE name <> 'a'")
    assert run(a).withdrawn == 2
    assert everywhere(a, name) == ["a"]


def test_an_eviction_needs_the_only_record(cloud: Cloud) -> None:
    """Where our tables are all there is, no file goes while its registration stands (promise 1)."""
    local = cloud.host("a", **LEDGER)
    name = cloud.image()
    filled(local, name)
    cloud.site.ledger_rows("ALTER TABLE replica_cached RENAME TO replica_away")
    with pytest.raises(CatalogueError, match="in our own tables alone"):
        local.registration.withdraw(name)
    cloud.site.ledger_rows("ALTER TABLE replica_away RENAME TO replica_cached")


def test_the_last_intact_copy_counts_those_without_a_row(cloud: Cloud) -> None:
    """Of an image whose store lost it: a copy without a row of Glance's is the other one that may stay, or the last."""
    a, b, c, name = three(cloud, **LEDGER)
    image = a.catalogue.image(name)
    assert image is not None
    copies = {copy.host: copy for copy in image.cached}
    a.ledger.record([Result(image.durable[0], Verdict.MISSING, Evidence.FULL)])
    for local in (a, b):
        local.removals.order(copies[local.settings.host_name], reason="a test", who="somebody")
    with pytest.raises(LastCopy):
        c.removals.order(copies["c"], reason="a test", who="somebody")


def _asked(_name: str, question: Any, _otherwise: Any) -> Any:
    return question()


def at(row: int | None, zone: str | None) -> Location:
    """A copy in a zone; with a row it is registered."""
    return Location("x", f"http://{row}-{zone}/replicas/x", {HOST_KEY: f"{row}", ZONE_KEY: zone}, row)


def listed(*zones: str | None) -> Image:
    """An image with a row in each of these zones, oldest first."""
    return Image("x", "active", 1, None, tuple(at(number, zone) for number, zone in enumerate(zones, 1)))


@pytest.mark.parametrize(
    ("zones", "coming", "most", "wanted", "leaves"),
    [
        ((), "a", 1, True, None),
        (("a",), "b", 1, False, None),
        (("a", "a"), "a", 2, False, None),
        (("a", "a"), "b", 2, True, 2),
        (("a", "b", "b", "a"), "c", 4, True, 3),
        (("a", "b"), "c", 2, False, None),
        ((None, None), "a", 2, True, 2),
        (("a", "b"), None, 3, True, None),
    ],
)
def test_who_has_a_row(zones: tuple[str | None, ...], coming: str | None, most: int, wanted: bool, leaves: int) -> None:
    """The rules of `spread`, one by one."""
    image, copy = listed(*zones), at(None, coming)
    way = spread.gives_way(image, copy, most)
    assert (spread.is_wanted(image, copy, most), way and way.row) == (wanted, leaves)


def test_too_many_leave_as_they_would_not_have_come() -> None:
    """Every zone keeps a row, the oldest first; of the rest the newest go."""
    assert spread.surplus(listed("a", "a", "b", "a", "c"), 3) == {2, 4}
    assert spread.surplus(listed("a", "b"), 3) == set()
    assert spread.surplus(listed("a", "b", "c"), 1) == {2, 3}
