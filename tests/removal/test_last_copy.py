"""The last intact copy that the ledger knows of stays, on real hosts: orders through the API, and the janitor."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import webob
import webob.exc
from services.glance.site import GlanceHost
from support.desk import programs  # noqa: F401 - a fixture
from support.programs import Desk, Programs
from support.worlds.scenes import new_image, settle

from glance_replicas import settings
from glance_replicas.host.local_host import LocalHost
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.middleware.orders import _forced
from glance_replicas.model import Location

Pair = tuple[GlanceHost, GlanceHost]


@pytest.fixture(scope="module")
def desk_of(two_hosts: Pair, programs: Programs) -> Desk:  # noqa: F811
    """The programs, with the configuration of the first host."""
    return Desk(two_hosts[0].site, two_hosts[0], programs)


@pytest.fixture
def cached(two_hosts: Pair, desk_of: Desk) -> Iterator[str]:
    """An image cached on both hosts, whose object in the store the ledger knows to be corrupt."""
    image_id, data = new_image(two_hosts[0], 100_000)
    for host in two_hosts:
        assert host.client().download(image_id).content == data
    settle(lambda: len(held(two_hosts, image_id)) == 2 and len(hosts_of(two_hosts[0], image_id)) == 2)
    two_hosts[0].site.store_file(image_id).write_bytes(b"x" * 100_000)
    assert desk_of.run("verify", image_id).status == 1
    yield image_id
    assert two_hosts[0].client().delete(image_id).status_code == 204


def held(hosts: Pair, image_id: str) -> list[str]:
    """The hosts that have a complete file of the image."""
    return [one.name for one in hosts if (one.cache_dir / image_id).exists()]


def hosts_of(host: GlanceHost, image_id: str) -> list[str]:
    """The hosts that Glance's rows name."""
    found = [one["metadata"].get("replica_host") for one in host.client().locations(image_id)]
    return [name for name in found if name]


def drop(host: GlanceHost, image_id: str, name: str, query: str = "", **more: object) -> tuple[int, str]:
    answer = host.client(**more).request("DELETE", f"/v2/images/{image_id}/replicas/{name}{query}")  # type: ignore[arg-type]
    return answer.status_code, answer.text


def test_the_last_copy_is_never_ordered_away(two_hosts: Pair, desk_of: Desk, cached: str) -> None:
    """With the store's copy known corrupt, one of two intact cached copies may be ordered away and not the other."""
    one, other = two_hosts
    assert drop(one, cached, one.name)[0] == 202
    status, text = drop(one, cached, other.name)
    assert (status, "last known intact copy" in text) == (409, True), text
    settle(lambda: held(two_hosts, cached) == [other.name])
    assert drop(other, cached, other.name)[0] == 409
    assert held(two_hosts, cached) == [other.name]
    shown = desk_of.run("audit", "log", cached, "-f", "json").rows
    assert ["last intact copy" in ((row["Proof"] or {}).get("refused") or "") for row in shown] == [True, True, False]
    assert "no durable copy" in one.client().replicas(cached)["alarm"]
    assert desk_of.run("repair", cached, "--yes").status == 0
    settle(lambda: drop(one, cached, other.name)[0] == 202)
    settle(lambda: held(two_hosts, cached) == [])


def test_a_row_that_came_back_is_no_copy(two_hosts: Pair, cached: str) -> None:
    """A save of an image that was read earlier brings the row of a removed copy back: the last copy stays all the same.

    The other host's janitor withdraws that row in its next pass.
    """
    one, other = two_hosts
    assert drop(one, cached, one.name)[0] == 202
    settle(lambda: held(two_hosts, cached) == [other.name])
    back = "UPDATE image_locations SET deleted = false, status = 'active', deleted_at = NULL WHERE value = :url"
    one.site.rows(back, url=f"{one.url}/replicas/{cached}")
    assert sorted(hosts_of(one, cached)) == sorted([one.name, other.name])
    assert drop(one, cached, other.name)[0] == 409
    assert held(two_hosts, cached) == [other.name]


def test_an_order_in_the_ledger_is_decided_again(two_hosts: Pair, desk_of: Desk, cached: str) -> None:
    """Orders that an older version wrote down for both hosts: at the moment of removal one copy stays, at least."""
    ledger = Ledger(two_hosts[0].site.ledger_url)
    try:
        for host in two_hosts:
            copy = Location(cached, f"{host.url}/replicas/{cached}", {"replica_host": host.name})
            ledger.request_withdrawal(copy, reason="asked for through the API", who="somebody")
        settle(lambda: all(not ledger.pending_withdrawals(host.name) for host in two_hosts))
        refused = [one for one in ledger.withdrawals(image_ids=[cached]) if (one.proof or {}).get("refused")]
    finally:
        ledger.close()
    assert refused
    assert held(two_hosts, cached)
    assert len(held(two_hosts, cached)) == len(refused)


def test_force(two_hosts: Pair, desk_of: Desk, cached: str) -> None:
    """Only an admin may force it, only with a reason, and both are in the ledger with what was overruled."""
    one, other = two_hosts
    assert drop(one, cached, one.name)[0] == 202
    settle(lambda: held(two_hosts, cached) == [other.name])
    for query in ("?force=true", "?force=maybe&reason=x", "?force=1&reason=%20"):
        assert drop(one, cached, other.name, query)[0] == 400
    assert drop(one, cached, other.name, "?force=no&reason=x")[0] == 409
    assert held(two_hosts, cached) == [other.name]
    assert drop(one, cached, other.name, "?force=true&reason=the%20disk%20goes")[0] == 202
    settle(lambda: held(two_hosts, cached) == [])
    [line] = [row for row in desk_of.run("audit", "log", cached, "-f", "json").rows if "forced" in (row["Proof"] or {})]
    assert line["Proof"]["why"] == "the disk goes"
    assert "last intact copy" in line["Proof"]["overruled"]
    assert line["Proof"]["who"] == line["Who"] == "user u1 of project p1"


@pytest.mark.parametrize(
    ("query", "is_admin", "answer"),
    [
        ("", False, None),
        ("force=0", False, None),
        ("force=true&reason=x", True, "x"),
        ("force=true&reason=x", False, webob.exc.HTTPForbidden),
        ("force=true", True, webob.exc.HTTPBadRequest),
        ("force=please&reason=x", True, webob.exc.HTTPBadRequest),
    ],
)
def test_who_may_force(query: str, is_admin: bool, answer: Any) -> None:
    """Whoever may evict, by whatever policy: force is for those whom Glance takes for admins."""
    request = webob.Request.blank(f"/v2/images/x/replicas/y?{query}", method="DELETE")
    request.context = SimpleNamespace(is_admin=is_admin)
    if isinstance(answer, type):
        with pytest.raises(answer):
            _forced(request)
    else:
        assert _forced(request) == answer


def test_it_is_not_evicted(two_hosts: Pair, cached: str) -> None:
    """However little room there is, with the ledger and without: what is beside it goes, it stays."""
    host, image = two_hosts[0], new_image(two_hosts[0], 50_000)[0]
    host.client().download(image)
    bare, _ = new_image(host, 40_000)
    host.client().download(bare)
    settle(lambda: (held(two_hosts, image), held(two_hosts, bare)) == ([host.name], [host.name]))
    host.site.rows("DELETE FROM image_locations WHERE image_id = :i AND value LIKE 'file:%'", i=bare)
    loaded = settings.load([str(host.config_file)])
    for url in (loaded.ledger, "sqlite:////nowhere/ledger.sqlite"):
        local = LocalHost.assemble(replace(loaded, max_bytes=1000, ledger=url))
        if url == loaded.ledger:
            local.keeping.refresh([cached, image])
        local.eviction.trim()
        assert (held(two_hosts, cached), held(two_hosts, image)) == ([one.name for one in two_hosts], [])
        assert held(two_hosts, bare) == [host.name], "it has no location in a store"
        local.catalogue.close()
        local.ledger.close()
