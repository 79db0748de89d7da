"""Hosts behind TLS with certificates of an authority that the system does not know."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from services import free_port
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from services.web.nginx import Nginx
from support.authority import Authority
from support.programs import Done, Programs
from support.worlds.scenes import new_bytes, settle

pytest_plugins = ["support.desk"]

MIB = 1 << 20
ADDRESSES = ("127.0.0.2", "127.0.0.3")


@dataclass
class Scene:
    """Two hosts, each behind an nginx with TLS, and the authority of both."""

    site: GlanceSite
    authority: Authority
    hosts: list[GlanceHost]
    urls: list[str]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The hosts believe the authority by the option of their http store."""
    folder = tmp_path_factory.mktemp("tls")
    authority, started, urls = Authority(folder / "ca"), [], []
    with GlanceSite(folder / "site", options={"web": {"https_ca_certificates_file": str(authority.file)}}) as site:
        for number, address in enumerate(ADDRESSES):
            host = site.add_host(address, processes=1, start=False)
            port = free_port(address)
            urls.append(f"https://{address}:{port}")
            host.configure({"replicas": {"host_url": urls[-1], "janitor_interval_seconds": "2"}})
            more = f"listen {address}:{port} ssl; {authority.directives(address)} location = /ready {{ return 200; }}"
            more += f" location / {{ proxy_pass {host.url}; }}"
            started.append(Nginx(folder / f"nginx{number}", folder, address, more=more))
            host.start(wait=False)
        try:
            for host in site.hosts:
                host.wait_ready()
            site.wait_known()
            yield Scene(site, authority, site.hosts, urls)
        finally:
            for server in started:
                server.close()


def cached_on(scene: Scene, number: int, server: FaultyServer) -> tuple[str, bytes]:
    """An image of a counting back end, cached on that host and registered there."""
    host, data = scene.hosts[number], new_bytes(MIB)
    image_id = str(host.client().create(data=data)["id"])
    scene.site.move_to(server, image_id)
    assert host.client().download(image_id).content == data
    url = f"{scene.urls[number]}/replicas/{image_id}"
    settle(lambda: any(row["url"] == url for row in scene.site.locations(image_id)))
    return image_id, data


def test_with_the_authority(scene: Scene, faulty: FaultyServer, programs: Programs) -> None:
    """Hosts read each other over TLS: one back-end read; signed URLs open; verify says intact; check finds nothing."""
    image_id, data = cached_on(scene, 0, faulty)
    assert scene.hosts[1].client().download(image_id).content == data
    assert scene.site.backend_reads(image_id) == 1
    (url,) = [row["url"] for row in scene.hosts[1].client().replicas(image_id)["replicas"] if row["host"] == "api1"]
    assert url.startswith(scene.urls[0])
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(url, verify=str(scene.authority.file), timeout=30).content == data
    done = programs.run("--config-file", scene.hosts[1].config_file, "verify", image_id, "--remote-reads", "-f", "json")
    found = {row["Host"]: row["Verdict"] for row in json.loads(done.out)}
    assert found["api1"] == "intact"
    assert "is not believed here" not in programs.run("--config-file", scene.hosts[1].config_file, "check").out


def test_a_location_on_another_server_of_that_authority(scene: Scene, faulty: FaultyServer, programs: Programs) -> None:
    """An image registered by https on a server of that authority is read, and verified."""
    data = new_bytes(MIB)
    image_id = str(scene.hosts[0].client().create(data=data)["id"])
    address = ADDRESSES[0]
    port, root = free_port(address), scene.authority.folder / "www"
    root.mkdir()
    (root / "image").write_bytes(data)
    more = f"listen {address}:{port} ssl; {scene.authority.directives(address)}"
    with Nginx(scene.authority.folder / "nginx", root, address, more=more):
        scene.site.set_location(image_id, f"https://{address}:{port}/image", {"store": "web"})
        done = programs.run("--config-file", scene.hosts[0].config_file, "verify", image_id, "-f", "json")
        assert [row["Verdict"] for row in json.loads(done.out)] == ["intact"]


@pytest.mark.parametrize("how", ["option", "environment"])
def test_get(scene: Scene, faulty: FaultyServer, programs: Programs, target: Path, how: str) -> None:
    """`replica get` takes the copy of a host when it is told the authority, by the option or by OS_CACERT."""
    image_id, data = cached_on(scene, 0, faulty)
    document = target.parent.parent / f"{how}.json"
    member = scene.hosts[0].client(roles=("member", "reader"))  # who sees no store, which is plain http here
    document.write_text(member.request("GET", f"/v2/images/{image_id}/replicas").text)
    words = ["get", image_id, "--document", document, "-o", target]
    assert programs.run(*words).status != 0, "without it no copy can be read"
    done = told(scene, programs, how, *words)
    assert done.status == 0, done.err
    assert target.read_bytes() == data


@pytest.mark.parametrize("how", ["option", "environment"])
def test_get_by_way_of_the_cloud(scene: Scene, faulty: FaultyServer, target: Path, how: str) -> None:
    """The same where Glance itself is asked over TLS, too; the bytes are the host's."""
    image_id, data = cached_on(scene, 0, faulty)
    identity = scene.hosts[1].client(roles=("member", "reader")).identity
    headers = [word for name, value in identity.items() for word in ("--header", f"{name}: {value}")]
    words = ["get", image_id, *headers, "-o", target]
    with Programs(OS_AUTH_TYPE="none", OS_ENDPOINT=scene.urls[1], HOME="/nonexistent") as mine:
        assert mine.run(*words).status != 0, "without it Glance cannot be asked"
        done = told(scene, mine, how, *words, OS_AUTH_TYPE="none", OS_ENDPOINT=scene.urls[1], HOME="/nonexistent")
    assert (done.status, "from api1" in done.err) == (0, True), done.err
    assert target.read_bytes() == data
    assert scene.site.backend_reads(image_id) == 1


def told(scene: Scene, programs: Programs, how: str, *words: object, **env: str) -> Done:
    """A program that is told the authority, by the option or by OS_CACERT."""
    ca_file = str(scene.authority.file)
    if how == "option":
        return programs.run(*words, "--os-cacert", ca_file)
    with Programs(OS_CACERT=ca_file, **env) as others:
        return others.run(*words)


def test_without_the_authority(scene: Scene, faulty: FaultyServer, programs: Programs, tmp_path: Path) -> None:
    """A host that is not told the authority reads the store, serves right bytes, and check says why."""
    host = scene.hosts[1]
    told, name = host.config_file.read_text(), "https_ca_certificates_file"
    host.config_file.write_text(told.replace(f"{name} =", f"# {name} ="))
    try:
        host.restart()
        image_id, data = cached_on(scene, 0, faulty)
        assert host.client().download(image_id).content == data
        assert scene.site.backend_reads(image_id) == 2
        out = programs.run("--config-file", host.config_file, "check").out
        for url in scene.urls:
            assert (
                f"error: the certificate of {url} is not believed here: unable to get local issuer certificate" in out
            )
        other = Authority(tmp_path / "other")
        host.config_file.write_text(told.replace(str(scene.authority.file), str(other.file)))
        assert "is not believed here" in programs.run("--config-file", host.config_file, "check").out
        host.config_file.write_text(told.replace(str(scene.authority.file), str(tmp_path / "none.pem")))
        assert "none.pem: No such file" in programs.run("--config-file", host.config_file, "check").out
        host.config_file.write_text(told.replace(f"{name} =", f"https_insecure = True\n# {name} ="))
        out = programs.run("--config-file", host.config_file, "check").out
        assert "warning: https_insecure = True" in out
        assert "is not believed here" not in out
    finally:
        host.config_file.write_text(told)
        host.restart()
