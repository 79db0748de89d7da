"""The last intact copy that the ledger knows of stays, on real hosts: orders through the API, and the janitor."""

from collections.abc import Iterator

import pytest
from desk import programs  # noqa: F401 - a fixture
from programs import Desk, Programs
from scenes import new_image, settle
from services.glance import GlanceHost

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
    assert (status, "last intact copy" in text) == (409, True), text
    settle(lambda: held(two_hosts, cached) == [other.name])
    assert drop(other, cached, other.name)[0] == 409
    assert held(two_hosts, cached) == [other.name]
    assert desk_of.run("repair", cached, "--yes").status == 0
    settle(lambda: drop(one, cached, other.name)[0] == 202)
    settle(lambda: held(two_hosts, cached) == [])
