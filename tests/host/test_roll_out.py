"""Hosts with and without the http store side by side: why that store comes first, on every host."""

from collections.abc import Iterator

import pytest
from services.glance.site import GlanceHost, GlanceSite
from support.worlds.scenes import new_image, settle

BARE = {"DEFAULT": {"enabled_backends": "fast:file"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """Ours, a stock host as it was before, and a stock host that has been given the http store."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        made.add_host("127.0.0.6", processes=1, start=False)
        made.add_host("127.0.0.7", processes=1, start=False, pipeline="stock", options=BARE)
        made.add_host("127.0.0.8", processes=1, start=False, pipeline="stock")
        for host in made.hosts:
            host.start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


@pytest.fixture
def hosts(site: GlanceSite) -> tuple[GlanceHost, GlanceHost, GlanceHost]:
    ours, bare, prepared = site.hosts
    return ours, bare, prepared


Hosts = tuple[GlanceHost, GlanceHost, GlanceHost]


def registered(site: GlanceSite, ours: GlanceHost) -> tuple[str, bytes]:
    """An image in the store, and on our host with a row."""
    image_id, data = new_image(ours, 70_000)
    ours.client().download(image_id)
    settle(lambda: len(site.locations(image_id)) == 2)
    return image_id, data


def test_a_host_with_the_http_store_deletes(site: GlanceSite, hosts: Hosts) -> None:
    """A stock host that has the http store deletes an image with a copy on ours, and every other call works there."""
    ours, _, prepared = hosts
    image_id, data = registered(site, ours)
    client = prepared.client()
    assert client.download(image_id).content == data
    assert client.patch(image_id, [{"op": "replace", "path": "/name", "value": "new"}]).status_code == 200
    assert client.request("DELETE", f"/v2/images/{image_id}").status_code == 204
    assert site.locations(image_id) == []
    assert not site.store_file(image_id).exists()


def test_a_host_without_it_breaks_the_image(site: GlanceSite, hosts: Hosts) -> None:
    """Without the http store a stock host answers 500 after it removed the durable copy; ours can end that."""
    ours, bare, _ = hosts
    image_id, data = registered(site, ours)
    assert bare.client().request("DELETE", f"/v2/images/{image_id}").status_code == 500
    assert not site.store_file(image_id).exists()
    assert ours.client().get(image_id)["status"] == "active"
    assert [row["metadata"]["store"] for row in site.locations(image_id)] == ["web"], "a cached copy is all there is"
    assert ours.client().download(image_id).content == data
    assert ours.client().delete(image_id).status_code == 204
    assert site.locations(image_id) == []


def test_without_rows_of_ours_nothing_breaks(site: GlanceSite, hosts: Hosts) -> None:
    """The same host deletes images that nobody has registered a copy of: before the first row it does no harm."""
    ours, bare, _ = hosts
    image_id, _ = new_image(ours, 70_000)
    assert bare.client().delete(image_id).status_code == 204
