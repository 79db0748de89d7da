"""Per-host URLs open to nobody by way of a host's own address, another image's row, or another host's URL."""

import http.client
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from services.glance.site import GlanceClient, GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.scenes import new_bytes, settle

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host

MIB = 1 << 20
OPTIONS = {
    "DEFAULT": {"show_multiple_locations": "true", "show_image_direct_url": "true", "http_retries": "1"},
    "import_filtering_opts": {"allowed_hosts": "[127.0.0.1,127.0.0.2,127.0.0.3]", "allowed_ports": "[]"},
}
TRUSTING = {"replicas": {"trusted_networks": "127.0.0.0/8"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """Two hosts whose `trusted_networks` cover all of them, and one that trusts none."""
    with GlanceSite(tmp_path_factory.mktemp("site"), options=OPTIONS) as made:
        for number, options in ((2, TRUSTING), (3, TRUSTING), (4, {})):
            made.add_host(f"127.0.0.{number}", processes=1, options=options, start=False).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        made.wait_known()
        yield made


@pytest.fixture(scope="module")
def secret(site: GlanceSite) -> dict[str, Any]:
    """A private image of p1, cached on the second and third host; `data` are its bytes."""
    data = new_bytes(MIB)
    image = owner(site.hosts[0]).create(data=data, visibility="private")
    for host in site.hosts[1:]:
        assert owner(host).download(image["id"]).content == data
        settle(
            lambda host=host: any(
                row["metadata"].get("replica_host") == host.name for row in site.locations(image["id"])
            )
        )
    return image | {"data": data}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """The thief's own web server."""
    with FaultyServer() as made:
        yield made


def owner(host: GlanceHost) -> GlanceClient:
    return host.client("p1", ("member", "reader"), "u1")


def thief(host: GlanceHost) -> GlanceClient:
    return host.client("p2", ("member", "reader"), "u2")


def get(url: str, source: str | None = None) -> tuple[int, bytes]:
    """Status and body of a GET as it is, from this source address."""
    parts = urlsplit(url)
    assert parts.hostname
    address = (source, 0) if source else None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, source_address=address, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def settled(client: GlanceClient, image_id: str) -> str:
    """The status of an image whose import has come to its end."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        image = client.get(image_id)
        if "os_glance_import_task" not in image:
            break
        time.sleep(0.1)
    return str(client.get(image_id)["status"])


@pytest.mark.parametrize("target", [0, 1])
def test_a_location_that_redirects(site: GlanceSite, secret: dict[str, Any], server: FaultyServer, target: int) -> None:
    """A member's own location that redirects to a host's copy, of that host or another, gives nobody its bytes."""
    held = site.hosts[1]
    server.put("/mine", b"", redirect_to=f"{held.url}/replicas/{secret['id']}")
    host = (held, site.hosts[0])[target]
    image_id = thief(host).create()["id"]
    answer = thief(host).request("POST", f"/v2/images/{image_id}/locations", json={"url": f"{server.url}/mine"})
    assert answer.status_code == 202, answer.text
    settled(thief(host), image_id)
    assert server.reads("/mine") or server.requests("/mine")
    got = thief(host).download(image_id)
    assert secret["data"] not in got.content
    size = site.rows("SELECT size FROM images WHERE id = :i", i=image_id)[0]["size"]
    assert size != len(secret["data"]), "Glance has seen the copy"


def test_an_import_that_redirects(site: GlanceSite, secret: dict[str, Any], server: FaultyServer) -> None:
    """The same by web-download."""
    held = site.hosts[1]
    server.put("/mine", b"", redirect_to=f"{held.url}/replicas/{secret['id']}")
    for host in site.hosts[:2]:
        before = len(server.requests("/mine"))
        image_id = thief(host).create()["id"]
        method = {"method": {"name": "web-download", "uri": f"{server.url}/mine"}}
        answer = thief(host).request("POST", f"/v2/images/{image_id}/import", json=method)
        assert answer.status_code == 202, answer.text
        settled(thief(host), image_id)
        assert len(server.requests("/mine")) > before, "Glance never asked"
        assert secret["data"] not in thief(host).download(image_id).content


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.9"])
def test_no_network_covers_a_host(site: GlanceSite, secret: dict[str, Any], source: str) -> None:
    """Neither a host of the ledger nor an address of this very machine is let in without a signature."""
    status, body = get(f"{site.hosts[1].url}/replicas/{secret['id']}", source)
    assert (status, secret["data"] in body) == (403, False)


@pytest.mark.parametrize("metadata", [{"store": "web"}, {"store": "web", "replica_host": "api3"}])
def test_a_row_that_names_another_images_copy(
    site: GlanceSite, secret: dict[str, Any], metadata: dict[str, str]
) -> None:
    """A row whose URL is another image's copy is read unsigned: no host lends its signature for it."""
    host, held = site.hosts[0], site.hosts[2]
    image_id = thief(host).create(data=b"x" * MIB)["id"]
    site.rows(
        "UPDATE images SET os_hash_value = :d, os_hash_algo = :a, checksum = :c WHERE id = :i",
        d=secret["os_hash_value"],
        a=secret["os_hash_algo"],
        c=secret["checksum"],
        i=image_id,
    )
    site.set_location(image_id, f"{held.url}/replicas/{secret['id']}", metadata)
    answer = thief(host).download(image_id)
    assert secret["data"] not in answer.content
    assert "sig=" not in thief(host).request("GET", f"/v2/images/{image_id}").text
    assert "sig=" not in thief(host).request("GET", f"/v2/images/{image_id}/replicas").text


def signed_urls(client: GlanceClient, image_id: str) -> dict[str, str]:
    """The signed URLs of an image by the host's name."""
    rows = client.replicas(image_id)["replicas"]
    return {row["host"]: row["url"] for row in rows if "sig=" in row["url"]}


def test_a_signed_url_is_good_on_its_host_alone(site: GlanceSite, secret: dict[str, Any]) -> None:
    """A URL signed for one host opens it, and the same path and query open no other host that has the image."""
    urls = signed_urls(owner(site.hosts[0]), secret["id"])
    second, third = site.hosts[1:]
    assert get(urls["api2"]) == (200, secret["data"])
    assert get(urls["api3"]) == (200, secret["data"])
    assert get(urls["api2"].replace(second.url, third.url))[0] == 403
    assert get(urls["api3"].replace(third.url, second.url))[0] == 403


def test_no_signature_for_a_silent_host(site: GlanceSite, secret: dict[str, Any]) -> None:
    """A host whose heartbeat is old is named, and its URL is signed nowhere: whoever has its address learns nothing."""
    gone = "http://127.0.0.77:9292"
    ledger = Ledger(site.ledger_url)
    ledger.heartbeat(Host("gone", "zone-a", gone))
    ledger.close()
    site.ledger_rows("UPDATE replica_hosts SET heartbeat = '2020-01-01 00:00:00.000000' WHERE name = 'gone'")
    site.add_location(secret["id"], f"{gone}/replicas/{secret['id']}", {"replica_host": "gone", "store": "web"})
    try:
        time.sleep(1.1)  # a host asks for its list of hosts early once a second
        client = owner(site.hosts[0])
        document = client.request("GET", f"/v2/images/{secret['id']}/replicas")
        shown = {row["host"]: row["url"] for row in document.json()["replicas"]}
        assert shown["gone"] == f"{gone}/replicas/{secret['id']}"
        assert "sig=" in shown["api2"]
        assert gone not in str(document.headers)
        metalink = client.request(
            "GET", f"/v2/images/{secret['id']}/replicas", headers={"Accept": "application/metalink4+xml"}
        )
        assert gone not in metalink.text
        rows = client.get(secret["id"])["locations"]
        assert [row["url"] for row in rows if row["url"].startswith(gone)] == [f"{gone}/replicas/{secret['id']}"]
    finally:
        site.ledger_rows("DELETE FROM replica_hosts WHERE name = 'gone'")
        site.rows("DELETE FROM image_locations WHERE value LIKE :url", url=f"{gone}/%")


@pytest.mark.parametrize("path", ["", "/locations", "/replicas"])
def test_what_carries_a_signature_is_not_stored(site: GlanceSite, secret: dict[str, Any], path: str) -> None:
    """Every answer with a signed URL says so to caches, and no other answer of Glance's is changed."""
    client = site.hosts[0].client("p1", ("admin", "member", "reader"))
    answer = client.request("GET", f"/v2/images/{secret['id']}{path}", ok=True)
    assert "sig=" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    plain = client.create(data=b"plain")["id"]
    answer = client.request("GET", f"/v2/images/{plain}", ok=True)
    assert "sig=" not in answer.text
    assert "Cache-Control" not in answer.headers
