"""Everything over IPv6, and IPv4 clients on a socket that takes both families."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from services import environment, need
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.scenes import new_image, settle

pytest_plugins = ["support.desk"]

MIB = 1 << 20
TRUSTING = {"replicas": {"trusted_networks": "127.0.0.0/8,::1/128"}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """Two hosts on ::1, and two that take IPv4 clients on an IPv6 socket, under both servers."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        for address, server, options in (
            ("::1", "uwsgi", {}),
            ("::1", "gunicorn", {}),
            ("::ffff:127.0.0.2", "uwsgi", TRUSTING),
            ("::ffff:127.0.0.3", "gunicorn", TRUSTING),
        ):
            made.add_host(address, server=server, processes=1, options=options, start=False).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        made.wait_known()
        yield made


def get(url: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=30)


def cached(site: GlanceSite, host: GlanceHost, server: FaultyServer | None = None) -> tuple[str, bytes]:
    """An image cached and registered there; with `server` its only store is that."""
    image_id, data = new_image(host, MIB)
    if server is not None:
        site.move_to(server, image_id)
    assert host.client().download(image_id).content == data
    settle(lambda: any(row["metadata"].get("replica_host") == host.name for row in site.locations(image_id)))
    return image_id, data


def signed(host: GlanceHost, image_id: str) -> str:
    """The host's URL as its document gives it."""
    return next(str(row["url"]) for row in host.client().replicas(image_id)["replicas"] if row["host"] == host.name)


def test_hosts_read_each_other(site: GlanceSite, faulty: FaultyServer) -> None:
    """A second host reads the first one's copy: the store is read once; both URLs are registered as they are."""
    first, second = site.hosts[:2]
    image_id, data = cached(site, first, faulty)
    assert second.client().download(image_id).content == data
    assert site.backend_reads(image_id) == 1
    urls = {f"{host.url}/replicas/{image_id}" for host in (first, second)}
    settle(lambda: urls <= {row["url"] for row in site.locations(image_id)})


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_signed_urls(site: GlanceSite, number: int) -> None:
    """A signed URL opens under either server, and no trusted network covers the host's own address there."""
    host = site.hosts[number]
    image_id, data = cached(site, host)
    url = signed(host, image_id)
    assert get(url).content == data
    assert get(url.partition("?")[0]).status_code == 403


def test_metalink_by_aria2c(site: GlanceSite, tmp_path: Path) -> None:
    """aria2c downloads from the Metalink document's IPv6 URL and verifies."""
    image_id, data = cached(site, site.hosts[0])
    accept = {"Accept": "application/metalink4+xml"}
    document = tmp_path / "image.meta4"
    document.write_bytes(
        site.hosts[0].client().request("GET", f"/v2/images/{image_id}/replicas", headers=accept).content
    )
    assert b"://[::1]:" in document.read_bytes()
    run = [need("aria2c"), "--no-conf", "--console-log-level=error", f"--dir={tmp_path}", document]
    subprocess.run(run, env=environment(), check=True, timeout=60)
    assert (tmp_path / image_id).read_bytes() == data


def test_tools(site: GlanceSite, programs: Programs) -> None:
    """verify reads the copy over IPv6, list shows it, and check sees a loopback address and no unknown name."""
    host = site.hosts[1]
    image_id, _ = cached(site, site.hosts[0])
    words = ("--config-file", host.config_file)
    done = programs.run(*words, "verify", image_id, "--remote-reads", "-f", "json")
    assert {row["Host"]: row["Verdict"] for row in json.loads(done.out)}[site.hosts[0].name] == "intact"
    out = programs.run(*words, "check").out
    assert f"host_url {host.url} is a loopback address" in out
    assert "not known to the DNS" not in out
