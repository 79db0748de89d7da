"""The last durable copy against every spelling of a request that would take it, on real hosts over MariaDB."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from services.databases.servers import MariaDB
from services.glance.client import PATCH, GlanceClient
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.scenes import new_image, settle

from glance_replicas import settings
from glance_replicas.database import transactions
from glance_replicas.errors import CatalogueError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Location, Result
from glance_replicas.verdict import Evidence, Verdict

OLD_PATCH = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
MEMBER, READER = ("member", "reader"), ("reader",)
NOBODY = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDB) -> Iterator[GlanceSite]:
    """Ours under uWSGI, under gunicorn and with delayed_delete, and a stock host; two file stores, one http store."""
    folder = tmp_path_factory.mktemp("site")
    options = {
        "DEFAULT": {"show_multiple_locations": "true", "enabled_backends": "fast:file, slow:file, web:http"},
        "slow": {"filesystem_store_datadir": str(folder / "slow")},
    }
    (folder / "slow").mkdir()
    with GlanceSite(folder, mariadb.ordinary(mariadb.create_glance("test_guard")), options=options) as made:
        made.add_host("127.0.0.2", processes=1, start=False)
        made.add_host("127.0.0.3", processes=1, start=False, server="gunicorn")
        made.add_host("127.0.0.4", processes=1, start=False, options={"DEFAULT": {"delayed_delete": "true"}})
        made.add_host("127.0.0.5", processes=1, start=False, pipeline="stock")
        for host in made.hosts:
            host.start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


@pytest.fixture
def one(site: GlanceSite) -> GlanceHost:
    return site.hosts[0]


@pytest.fixture(scope="module", params=["uwsgi", "gunicorn"])
def host(site: GlanceSite, request: pytest.FixtureRequest) -> GlanceHost:
    """Ours, under either server."""
    return next(one for one in site.hosts if one.server == request.param)


@pytest.fixture(scope="module")
def kept(site: GlanceSite, host: GlanceHost) -> str:
    """An image on that host of which nothing may go: whatever a test asks for, it is there for the next one."""
    return cached(site, host)


@pytest.fixture
def late(site: GlanceSite) -> GlanceHost:
    """Ours, with delayed_delete."""
    return site.hosts[2]


@pytest.fixture
def stock(site: GlanceSite) -> GlanceHost:
    return site.hosts[3]


def cached(site: GlanceSite, host: GlanceHost, **properties: Any) -> str:
    """An image in store `fast`, and on this host."""
    image_id, _ = new_image(host, 70_000, **properties)
    host.client().download(image_id)
    settle(lambda: len(site.locations(image_id)) == 2)
    return image_id


def doubled(site: GlanceSite, host: GlanceHost, **properties: Any) -> str:
    """The same, and in store `slow`."""
    image_id = cached(site, host, **properties)
    path = site.folder / "slow" / image_id
    path.write_bytes(site.store_file(image_id).read_bytes())
    site.add_location(image_id, f"file://{path}", {"store": "slow"})
    return image_id


def stores(site: GlanceSite, image_id: str) -> list[str]:
    """The stores that Glance's rows name, each of them with its file when it is a file store."""
    found = [row["metadata"]["store"] for row in site.locations(image_id)]
    assert site.store_file(image_id).exists() == ("fast" in found)
    assert (site.folder / "slow" / image_id).exists() == ("slow" in found)
    return sorted(found)


def accented(image_id: str) -> str:
    """Another spelling of the id for the usual collation of MariaDB."""
    return image_id.replace("a", "%C3%A1").replace("e", "%C3%A9")


SPELLINGS: dict[str, tuple[str, Callable[[str], str]]] = {
    "plain": ("DELETE", str),
    "get": ("GET", lambda one: f"{one}?_method=DELETE"),
    "post": ("POST", lambda one: f"{one}?x=y&_method=delete"),
    "put": ("PUT", lambda one: f"{one}?_method=DELETE"),
    "newline": ("DELETE", lambda one: f"{one}%0A"),
    "space": ("DELETE", lambda one: f"{one}%20"),
    "capitals": ("DELETE", str.upper),
    "accents": ("DELETE", accented),
    "get capitals": ("GET", lambda one: f"{one.upper()}?_method=DELETE"),
    "slash": ("DELETE", lambda one: f"{one}/"),
}


UNKNOWN = ("space", "accents", "slash")  # to Glance, though not to MariaDB


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_empties_the_store(site: GlanceSite, host: GlanceHost, kept: str, spelling: str) -> None:
    """The last durable copy stays in its store, whatever spelling Glance takes for a removal; 409 and the reason."""
    method, spelled = SPELLINGS[spelling]
    answer = host.client().request(method, f"/v2/stores/fast/{spelled(kept)}")
    assert answer.status_code == (404 if spelling in UNKNOWN else 409), answer.text
    assert answer.status_code == 404 or "last durable copy" in answer.text
    assert stores(site, kept) == ["fast", "web"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_deletes_the_image(site: GlanceSite, late: GlanceHost, spelling: str) -> None:
    """With delayed_delete no row of ours waits for a scrubber that cannot delete it; the file here goes at once."""
    image_id = cached(site, late)
    method, spelled = SPELLINGS[spelling]
    status = late.client().request(method, f"/v2/images/{spelled(image_id)}").status_code
    rows = "SELECT value, status FROM image_locations WHERE image_id = :id"
    found = {row["value"][:4]: row["status"] for row in site.rows(rows, id=image_id)}
    if spelling in UNKNOWN:
        assert (status, found) == (404, {"file": "active", "http": "active"})
        return
    assert (status, found) == (204, {"file": "pending_delete", "http": "deleted"})
    assert not (late.cache_dir / image_id).exists()


def patched(client: GlanceClient, image_id: str, operations: Any, **how: Any) -> requests.Response:
    """The answer to a PATCH; `chunked` sends no length, `old` uses the first media type, `long` is two MiB."""
    body = json.dumps(operations).encode()
    body += b" " * (2 << 20 if how.get("long") else 0)
    data: Any = iter([body]) if how.get("chunked") else body
    headers = OLD_PATCH if how.get("old") else PATCH
    return client.request("PATCH", f"/v2/images/{image_id}", data=data, headers=headers)


REMOVALS: dict[str, tuple[Any, dict[str, bool], Callable[[str], str]]] = {
    "plain": ([{"op": "remove", "path": "/locations/0"}], {}, str),
    "chunked": ([{"op": "remove", "path": "/locations/0"}], {"chunked": True}, str),
    "old": ([{"remove": "/locations/0"}], {"old": True}, str),
    "old chunked": ([{"remove": "/locations/0"}], {"old": True, "chunked": True}, str),
    "capitals": ([{"op": "remove", "path": "/locations/0"}], {}, str.upper),
    "newline": ([{"op": "remove", "path": "/locations/0"}], {}, lambda one: f"{one}%0A"),
    "spaced": ([{"op": "remove", "path": "/ locations / 0 "}], {}, str),
    "escaped": ([{"op": "remove", "path": "/locations/00"}], {}, str),
    "foreign digit": ([{"op": "remove", "path": "/locations/\u0660"}], {}, str),
    "long": ([{"op": "remove", "path": "/locations/0"}], {"long": True}, str),
    "renamed first": (
        [{"op": "replace", "path": "/name", "value": "x"}, {"op": "remove", "path": "/locations/0"}],
        {},
        str,
    ),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_no_patch_empties_the_store(
    site: GlanceSite, host: GlanceHost, stock: GlanceHost, kept: str, removal: str
) -> None:
    """The same for locations taken away one by one, in either media type, whole or chunked."""
    operations, how, spelled = REMOVALS[removal]
    answer = patched(host.client(), spelled(kept), operations, **how)
    if how.get("chunked") and host.server == "uwsgi":  # Glance 33 reads such a body twice there, and finds no JSON
        rename = [{"op": "replace", "path": "/name", "value": "image"}]
        assert answer.status_code == patched(stock.client(), kept, rename, chunked=True).status_code == 400
    else:
        assert (answer.status_code, "last durable copy" in answer.text) == (409, True), answer.text
    assert stores(site, kept) == ["fast", "web"]
    assert host.client().get(kept)["name"] == "image"


def test_the_last_position(site: GlanceSite, one: GlanceHost) -> None:
    """`-` names the last location for Glance, which may be the durable one."""
    image_id = cached(site, one)
    row = site.locations(image_id)[0]
    site.rows("UPDATE image_locations SET deleted = 1, status = 'deleted' WHERE id = :id", id=row["id"])
    site.add_location(image_id, row["url"], {"store": "none-that-is-known"})
    assert patched(one.client(), image_id, [{"op": "remove", "path": "/locations/-"}]).status_code == 409
    assert site.store_file(image_id).exists()


def test_nothing_of_a_refused_patch_is_done(site: GlanceSite, one: GlanceHost) -> None:
    """Two removals in one request, the second of which is refused: both copies stay, both files."""
    image_id = doubled(site, one)
    both = [{"op": "remove", "path": "/locations/0"}] * 2
    order = [row["metadata"]["store"] for row in one.client().get(image_id)["locations"]]
    assert order[1] == "web"
    answer = patched(one.client(), image_id, [both[0], {"op": "remove", "path": "/locations/1"}])
    assert answer.status_code == 409
    assert stores(site, image_id) == ["fast", "slow", "web"]


def test_a_copy_that_is_not_the_last_may_go(site: GlanceSite, host: GlanceHost) -> None:
    """What a user may do with Glance he may do with us: a store gives its copy back while another one has it."""
    image_id = doubled(site, host)
    assert host.client().request("DELETE", f"/v2/stores/fast/{image_id.upper()}").status_code == 204
    assert stores(site, image_id) == ["slow", "web"]
    assert host.client().request("DELETE", f"/v2/stores/slow/{image_id}").status_code == 409
    other = doubled(site, host)
    assert patched(host.client(), other, [{"op": "remove", "path": "/locations/0"}]).status_code == 200
    assert stores(site, other) == ["slow", "web"]
    assert host.client().delete(other).status_code == 204
    assert site.locations(other) == []


@pytest.mark.parametrize("disguise", ["bare", "twice", "host"])
def test_what_counts_as_durable_is_not_the_users_word(site: GlanceSite, one: GlanceHost, disguise: str) -> None:
    """Metadata is the user's: our copy without its mark, one file under two rows, a durable row with our mark."""
    image_id = cached(site, one)
    durable, ours = one.client().get(image_id)["locations"]
    durable, ours = ({"url": row["url"].partition("?")[0], "metadata": row["metadata"]} for row in (durable, ours))
    if disguise == "twice":
        site.add_location(image_id, durable["url"], {"store": "fast", "again": "yes"})
    else:
        changed = ours if disguise == "bare" else durable
        changed["metadata"] = {"store": changed["metadata"]["store"]}
        if disguise == "host":
            changed["metadata"]["replica_host"] = "api1"
        value = [{"op": "replace", "path": "/locations", "value": [durable, ours]}]
        assert patched(one.client(), image_id, value).status_code == 200
    assert one.client().request("DELETE", f"/v2/stores/fast/{image_id}").status_code == 409
    assert site.store_file(image_id).exists()
    if disguise == "host":  # nor may it keep its copies in caches for ever
        shown = {row["kind"]: row["host"] for row in one.client().replicas(image_id)["replicas"]}
        assert shown == {"file": None, "cached": one.name}
        assert one.client().request("DELETE", f"/v2/images/{image_id}/replicas/{one.name}").status_code == 202


def test_both_last_copies_in_one_patch(site: GlanceSite) -> None:
    """With the store's copy known corrupt, one request that takes away both intact cached ones takes away neither."""
    first, second = site.hosts[:2]
    image_id = cached(site, first)
    second.client().download(image_id)
    settle(lambda: len(site.locations(image_id)) == 3)
    rows = [Location(image_id, row["url"], row["metadata"], row["id"]) for row in site.locations(image_id)]
    ledger = Ledger(site.ledger_url)
    ledger.record([Result(rows[0], Verdict.CORRUPT, Evidence.FULL)])
    ledger.record([Result(row, Verdict.INTACT, Evidence.FULL) for row in rows[1:]])
    ledger.close()
    for places in ((2, 1), (1, 1)):
        changes = [{"op": "remove", "path": f"/locations/{place}"} for place in places]
        assert patched(first.client(), image_id, changes).status_code == 409
        assert [row["url"] for row in site.locations(image_id)] == [row.url for row in rows]
    with ThreadPoolExecutor(2) as pool:  # each sees the other's, on two hosts at the same moment
        wanted = zip((first, second), ("/locations/1", "/locations/2"), strict=True)
        done = [
            pool.submit(patched, host.client(), image_id, [{"op": "remove", "path": path}]) for host, path in wanted
        ]
    statuses = sorted(one.result().status_code for one in done)
    assert statuses in ([200, 409], [200, 400]), "400: the other row went before, and there is no such place any more"
    assert len(site.locations(image_id)) > 1


def test_last_intact_copy_stays(site: GlanceSite, one: GlanceHost) -> None:
    """Where the ledger knows the other store's copy for corrupt, the one that is not stays, cached copies or none."""
    image_id = doubled(site, one)
    slow = next(row for row in site.locations(image_id) if row["metadata"]["store"] == "slow")
    found = Location(image_id, slow["url"], slow["metadata"], slow["id"])
    ledger = Ledger(site.ledger_url)
    ledger.record([Result(found, Verdict.CORRUPT, Evidence.FULL)])
    refused = one.client().request("DELETE", f"/v2/stores/fast/{image_id}")
    assert (refused.status_code, "damaged" in refused.text) == (409, True), refused.text
    assert "replica repair" not in refused.text, "who may remove a location need not be an operator"
    assert f"Repair them first: replica repair {image_id} --yes" in one.log()
    assert stores(site, image_id) == ["fast", "slow", "web"]
    assert one.client().request("DELETE", f"/v2/stores/slow/{image_id}").status_code == 204
    ledger.close()


def test_last_intact_copy_on_a_host_stays(site: GlanceSite, one: GlanceHost) -> None:
    """Where the ledger knows the store's copy for corrupt, no patch takes away the row of the one that is intact."""
    image_id = cached(site, one)
    fast, ours = site.locations(image_id)
    ledger = Ledger(site.ledger_url)
    for row, verdict in ((fast, Verdict.CORRUPT), (ours, Verdict.INTACT)):
        ledger.record([Result(Location(image_id, row["url"], row["metadata"], row["id"]), verdict, Evidence.FULL)])
    refused = patched(one.client(), image_id, [{"op": "remove", "path": "/locations/1"}])
    assert (refused.status_code, "last intact copy" in refused.text) == (409, True), refused.text
    assert "replica repair" not in refused.text
    assert f"replica repair {image_id} --yes" in one.log()
    assert stores(site, image_id) == ["fast", "web"]
    ledger.record(
        [Result(Location(image_id, fast["url"], fast["metadata"], fast["id"]), Verdict.INTACT, Evidence.FULL)]
    )
    assert patched(one.client(), image_id, [{"op": "remove", "path": "/locations/1"}]).status_code == 200
    ledger.close()


REFUSED: dict[str, tuple[str, str, Any, tuple[str, ...], str]] = {
    "stranger": ("DELETE", "/v2/stores/fast/{id}", None, MEMBER, "p9"),
    "reader": ("DELETE", "/v2/stores/fast/{id}", None, READER, "p1"),
    "no such store": ("DELETE", "/v2/stores/nowhere/{id}", None, MEMBER, "p1"),
    "not in that store": ("DELETE", "/v2/stores/slow/{id}", None, ("admin",), "p1"),
    "no such image": ("DELETE", f"/v2/stores/fast/{NOBODY}", None, ("admin",), "p1"),
    "patch by a stranger": ("PATCH", "/v2/images/{id}", "/locations/0", MEMBER, "p9"),
    "patch by a reader": ("PATCH", "/v2/images/{id}", "/locations/0", READER, "p1"),
    "stale position": ("PATCH", "/v2/images/{id}", "/locations/7", ("admin",), "p1"),
    "no position": ("PATCH", "/v2/images/{id}", "/locations/x", ("admin",), "p1"),
    "all locations": ("PATCH", "/v2/images/{id}", "/locations", ("admin",), "p1"),
    "delete by a stranger": ("DELETE", "/v2/images/{id}", None, MEMBER, "p9"),
    "delete by a reader": ("DELETE", "/v2/images/{id}", None, READER, "p1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_glance_refuses_first(site: GlanceSite, host: GlanceHost, stock: GlanceHost, kept: str, case: str) -> None:
    """Who may not, or asks for what there is not, gets Glance's own answer, word for word."""
    before = site.locations(kept)
    method, path, position, roles, project = REFUSED[case]
    said = []
    for asked in (stock, host):
        client, where = asked.client(project=project, roles=roles), path.format(id=kept)
        body = None if position is None else json.dumps([{"op": "remove", "path": position}])
        answer = client.request(method, where, data=body, headers=PATCH if body else None)
        said.append((answer.status_code, answer.text))
    assert said[0] == said[1]
    assert said[0][0] in (400, 403, 404, 409)
    assert "last durable copy" not in said[1][1]
    assert site.locations(kept) == before


def test_protected_and_deactivated(site: GlanceSite, one: GlanceHost) -> None:
    """Protection and status are Glance's to refuse; our rows are what they were."""
    image_id = cached(site, one, protected=True)
    before = site.locations(image_id)
    assert one.client().request("DELETE", f"/v2/images/{image_id}").status_code == 403
    assert one.client().request("GET", f"/v2/images/{image_id}?_method=DELETE").status_code == 403
    assert site.locations(image_id) == before
    one.client().deactivate(image_id)
    assert one.client().request("DELETE", f"/v2/stores/fast/{image_id}").status_code == 409
    assert site.locations(image_id) == before


def test_a_store_that_refuses_gets_our_rows_back(site: GlanceSite, one: GlanceHost) -> None:
    """A delete that fails in the store: the image stays, and so does its cached copy, row and file."""
    image_id = cached(site, one)
    path = site.store_file(image_id)
    data = path.read_bytes()
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    assert one.client().request("DELETE", f"/v2/images/{image_id}").status_code >= 400
    assert sorted(row["metadata"]["store"] for row in site.locations(image_id)) == ["fast", "web"]
    assert (one.cache_dir / image_id).read_bytes() == data
    assert one.client().request("DELETE", f"/v2/stores/fast/{image_id}").status_code == 409


def test_a_removal_that_fails_keeps_its_row(site: GlanceSite, one: GlanceHost) -> None:
    """A copy that the store would not give up is a location still."""
    image_id = doubled(site, one)
    path = site.store_file(image_id)
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    assert one.client().request("DELETE", f"/v2/stores/fast/{image_id}").status_code >= 400
    assert sorted(row["metadata"]["store"] for row in site.locations(image_id)) == ["fast", "slow", "web"]


def test_two_at_a_time_leave_one(site: GlanceSite, one: GlanceHost) -> None:
    """Removals of both durable copies at the same time, on two hosts: one of them is refused, each time."""
    for _ in range(8):
        image_id = doubled(site, one)
        with ThreadPoolExecutor(2) as pool:
            wanted = [(site.hosts[0], "fast"), (site.hosts[1], "slow")]
            asked = [pool.submit(host.client().request, "DELETE", f"/v2/stores/{s}/{image_id}") for host, s in wanted]
        assert sorted(one.result().status_code for one in asked) == [204, 409]
        assert stores(site, image_id) in (["fast", "web"], ["slow", "web"])


def test_a_read_only_database_removes_nothing(site: GlanceSite, one: GlanceHost, mariadb: MariaDB) -> None:
    """`SET GLOBAL read_only = ON`: every removal is put off with a clear answer, no copy goes, none is evicted; lists
    and downloads go on. Writable again, the same removal is done."""
    image_id = doubled(site, one)
    data = one.client().download(image_id).content
    patch = [{"op": "remove", "path": "/locations/0"}]
    mariadb.execute("SET GLOBAL read_only = ON")
    try:
        store = one.client().request("DELETE", f"/v2/stores/fast/{image_id}")
        location = patched(one.client(), image_id, patch)
        order = one.client().request("DELETE", f"/v2/images/{image_id}/replicas/{one.name}")
        with closing_host(one, max_bytes=1) as local, pytest.raises(CatalogueError, match="read-only"):
            local.eviction.trim()
        listed = one.client().request("GET", f"/v2/images/{image_id}/replicas")
        downloaded = one.client().download(image_id).content
    finally:
        mariadb.execute("SET GLOBAL read_only = OFF")
    for answer in (store, location):
        assert (answer.status_code, "Nothing was removed" in answer.text) == (503, True), answer.text
    assert (order.status_code, "The request was not recorded" in order.text) == (503, True), order.text
    assert (listed.status_code, len(listed.json()["replicas"]), downloaded) == (200, 3, data)
    assert "read-only" in one.log(), "why is in the log"
    assert stores(site, image_id) == ["fast", "slow", "web"]
    assert (one.cache_dir / image_id).read_bytes() == data
    assert one.client().request("DELETE", f"/v2/stores/fast/{image_id}").status_code == 204
    assert stores(site, image_id) == ["slow", "web"]


def test_downloads_from_a_read_only_database(
    site: GlanceSite, one: GlanceHost, stock: GlanceHost, mariadb: MariaDB, faulty: FaultyServer
) -> None:
    """The same server, `SET GLOBAL read_only = 1`: a hit, a miss and its followers get what plain Glance sends, and
    their first byte no later than three seconds after its own; the row comes when the server is writable again."""
    hit = cached(site, one)
    miss, data = new_image(one, 200_000)
    site.move_to(faulty, miss, rate=400_000)

    def first(host: GlanceHost, image_id: str) -> tuple[float, int, bytes]:
        began = time.monotonic()
        answer = host.client().download(image_id, stream=True)
        body = answer.iter_content(4096)
        start = next(body)
        return time.monotonic() - began, answer.status_code, start + b"".join(body)

    mariadb.execute("SET GLOBAL read_only = 1")
    try:
        plain = {image_id: first(stock, image_id) for image_id in (hit, miss)}
        with ThreadPoolExecutor(4) as pool:
            found = [(miss, each.result()) for each in [pool.submit(first, one, miss) for _ in range(4)]]
        found += [(hit, first(one, hit)), (miss, first(one, miss))]
    finally:
        mariadb.execute("SET GLOBAL read_only = 0")
    for image_id, (seconds, status, body) in found:
        assert (status, body) == plain[image_id][1:]
        assert seconds < plain[image_id][0] + 3.0
    assert plain[miss][2] == data
    assert site.backend_reads(miss) == 2, "plain Glance, and one fill for all"
    settle(lambda: len(site.locations(miss)) == 2, 90)


@contextmanager
def closing_host(host: GlanceHost, **changes: Any) -> Iterator[LocalHost]:
    """The host's own code, here."""
    local = LocalHost.assemble(replace(settings.load([str(host.config_file)]), **changes))
    try:
        yield local
    finally:
        local.catalogue.close()
        local.ledger.close()


def test_what_cannot_be_asked_removes_nothing(site: GlanceSite, one: GlanceHost) -> None:
    """While another holds the image's row so that nothing can be proven, a removal is put off: 503, never a 500."""
    image_id = doubled(site, one)
    engine = transactions.engine(site.database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT id FROM images WHERE id = :id FOR UPDATE"), {"id": image_id})
        answer = one.client().request("DELETE", f"/v2/stores/fast/{image_id}")
    engine.dispose()
    assert answer.status_code == 503, answer.text
    assert stores(site, image_id) == ["fast", "slow", "web"]


def test_copy_that_fails_takes_nothing(site: GlanceSite, one: GlanceHost) -> None:
    """An import that cleans up after itself takes away its own copy only (`copy-image` into a store that is full)."""
    image_id = cached(site, one)
    (site.folder / "slow" / image_id).mkdir()
    body = {"method": {"name": "copy-image"}, "stores": ["slow"], "all_stores_must_succeed": True}
    assert one.client().request("POST", f"/v2/images/{image_id}/import", json=body).status_code == 202
    settle(lambda: one.client().get(image_id).get("os_glance_failed_import") == "slow", 30)
    assert sorted(row["metadata"]["store"] for row in site.locations(image_id)) == ["fast", "web"]
    assert site.store_file(image_id).exists()
