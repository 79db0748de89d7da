"""`openstack image replica ...`: the real program, a real Keystone and a real Glance that believes it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from services import eventually, free_port
from services.configuration import merge
from services.glance.client import GlanceClient
from services.glance.site import GlanceSite
from services.stores.keystone import Keystone
from services.web.faulty import FaultyServer
from services.web.nginx import Nginx
from support.authority import Authority
from support.programs import Done, Programs

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host, Location, Result
from glance_replicas.verdict import Evidence, Verdict

DATA = b"the bytes of an image" * 1000


@dataclass
class Cloud:
    """A site behind Keystone, and the program that a user of it runs."""

    site: GlanceSite
    client: GlanceClient
    programs: Programs
    clouds: Path  # clouds.yaml

    def run(self, *words: object) -> Done:
        """`openstack image replica WORDS`."""
        return self.programs.run("--os-cloud", "mine", "image", "replica", *words)

    def rows(self, *words: object) -> Any:
        """What it prints as JSON; all went well."""
        done = self.run(*words, "-f", "json")
        assert done.status == 0, done.err
        return done.rows

    def hosts(self, image: str) -> list[str]:
        """The hosts registered for an image."""
        found = [one["metadata"].get("replica_host") for one in self.site.locations(image)]
        return [one for one in found if one]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone) -> Iterator[Cloud]:
    """One host of ours that asks Keystone who its callers are."""
    names = {"username": keystone.user, "password": keystone.password, "project_name": keystone.project}
    auth = {"auth_url": keystone.auth_url, "user_domain_id": "default", "project_domain_id": "default", **names}
    folder = tmp_path_factory.mktemp("cloud")
    with GlanceSite(folder / "site") as site:
        options = {"keystone_authtoken": {"auth_type": "password", "www_authenticate_uri": keystone.auth_url, **auth}}
        host = site.add_host("127.0.0.2", name="ours", processes=1, pipeline="keystone+replicas", options=options)
        site.options = merge(site.options, options)  # of further hosts
        mine = {"auth": auth, "region_name": keystone.region, "image_endpoint_override": host.url}
        clouds = folder / "clouds.yaml"
        clouds.write_text(json.dumps({"clouds": {"mine": mine}}))
        client = host.client()
        client.identity = {"X-Auth-Token": keystone.token()[0]}
        site.wait_known()
        with Programs("openstack", OS_CLIENT_CONFIG_FILE=str(clouds), HOME=str(folder)) as programs:
            yield Cloud(site, client, programs, clouds)


def test_a_copy_from_its_order_to_its_end(cloud: Cloud, tmp_path: Path) -> None:
    """copy, list, show, choose, verify, save and prune, one after the other, on one image."""
    image = str(cloud.client.create("by name", DATA)["id"])
    (asked,) = cloud.rows("copy", "by name", "--to", "ours", "--priority", "high")
    assert (asked["Image"], asked["Host"], asked["Priority"]) == (image, "ours", "high")
    assert eventually(lambda: cloud.hosts(image) == ["ours"], timeout=60)
    listed = cloud.rows("list")
    assert [(one["Kind"], one["Host"]) for one in listed if one["Image"] == image] == [
        ("cached", "ours"),
        ("file", None),
    ]
    assert all("sig=" not in one["URL"] for one in listed)
    shown = cloud.rows("show", image)
    assert (shown["copies"], shown["hosts"], shown["stores"], shown["size"]) == (2, "ours", "fast", len(DATA))
    assert [one["Host"] for one in cloud.rows("choose", image)] == ["ours", None]
    done = cloud.run("save", image, "--file", tmp_path / "image.raw")
    assert done.status == 0, done.err
    assert "from ours (" in done.err
    assert (tmp_path / "image.raw").read_bytes() == DATA
    plan = cloud.run("prune", image, "--on", "ours")
    assert (plan.status, "1 copy can go; nothing was done, add --yes" in plan.err) == (0, True)
    assert cloud.hosts(image) == ["ours"]
    assert [one["Action"] for one in cloud.rows("prune", image, "--on", "ours", "--yes")] == ["asked for"]
    assert eventually(lambda: cloud.hosts(image) == [], timeout=60)


def test_the_last_copy_is_forced_or_stays(cloud: Cloud) -> None:
    """The store has it damaged: prune of the last copy is refused; --force by the admin has its reason kept."""
    image = str(cloud.client.create("last", DATA)["id"])
    cloud.client.download(image)
    assert eventually(lambda: cloud.hosts(image) == ["ours"], timeout=60)
    ledger = Ledger(cloud.site.ledger_url)
    try:
        bad = Location(image, f"file://{cloud.site.store_file(image)}", {"store": "fast"})
        ledger.record([Result(bad, Verdict.CORRUPT, Evidence.FULL)])
        done = cloud.run("prune", image, "--on", "ours", "--yes")
        assert (done.status, "last known intact copy" in done.err) == (1, True), done
        assert cloud.run("show", image, "-f", "value", "-c", "alarm").out.startswith("no durable copy")
        done = cloud.run("prune", image, "--on", "ours", "--force", "the disk goes", "--yes")
        assert done.status == 0, done
        assert eventually(lambda: cloud.hosts(image) == [], timeout=60)
        assert [(one.proof or {})["why"] for one in ledger.withdrawals(1, image_ids=[image])] == ["the disk goes"]
    finally:
        ledger.close()


def test_verify(cloud: Cloud) -> None:
    """Every copy a client can read, and Glance's own download, are held against the digest: 0, and 1 for damage."""
    image = str(cloud.client.create("verified", DATA)["id"])
    with FaultyServer() as web:
        url = web.put(f"/replicas/{image}", DATA)
        cloud.site.add_location(image, url, {"store": "web", "replica_host": "elsewhere"})
        rows = cloud.rows("verify", image, "--through-glance")
        assert {(one["Kind"], one["Verdict"], one["Evidence"]) for one in rows} == {
            ("cached", "intact", "full"),
            ("glance", "intact", "full"),
        }
        web.put(f"/replicas/{image}", DATA, flip_at=7)
        done = cloud.run("verify", image, "--on", "elsewhere")
        assert done.status == 1
        assert f"image {image} (verified): corrupt cached on elsewhere at {url}" in done.err
        assert "1 location verified: 1 corrupt" in done.err
        web.put(f"/replicas/{image}", DATA, status=503)
        assert cloud.run("verify", image, "--on", "elsewhere").status == 3
        web.put(f"/replicas/{image}", DATA)
        text = "UPDATE images SET checksum = NULL, os_hash_algo = NULL, os_hash_value = NULL WHERE id = :id"
        cloud.site.rows(text, id=image)
        assert cloud.run("verify", image, "--on", "elsewhere").status == 3, "it has no digest"
        done = cloud.run("verify", image, "--on", "elsewhere", "--allow-unverifiable")
        assert (done.status, "unverifiable cached" in done.err) == (0, False), done
        assert not any(web_request.headers.get("X-Auth-Token") for web_request in web.requests(f"/replicas/{image}"))


def test_what_cannot_be(cloud: Cloud) -> None:
    """An image or a host that there is not, a dead host, nothing named: one line, the status, nothing done."""
    image = str(cloud.client.create("alone", DATA)["id"])
    ledger = Ledger(f"sqlite:///{cloud.site.folder}/glance-replicas.sqlite")
    ledger.heartbeat(Host("silent", None, "http://127.0.0.9:1"))
    ledger.close()
    cloud.site.ledger_rows("UPDATE replica_hosts SET heartbeat = '2001-01-01 00:00:00.000000' WHERE name = 'silent'")
    for words, status, said in (
        (["show", "nobody has this name"], 2, "no image is named 'nobody has this name'"),
        (["copy", image, "--to", "nowhere"], 3, "No host nowhere keeps copies"),
        (["copy", image, "--to", "silent"], 1, "Host silent is dead"),
        (["prune", image], 2, "name the hosts with --on"),
        (["prune", image, "--on", "ours"], 3, "no copy on host ours"),
        (["verify", image, "--on", "ours"], 3, "no copy that a client can read; try --through-glance"),
        (["list", "-c", "Image", "-c", "bogus"], 2, "-c 'bogus': no such column; there are: Image, Name, "),
        (["show", image, "-c", "name", "-c", "bogus"], 2, "-c 'bogus': no such column; there are: image, name, "),
        (["choose", image, "-c", "Host", "-c", "bogus"], 2, "-c 'bogus': no such column; there are: Priority, "),
        (["copy", image, "--to", "ours", "-c", "bogus"], 2, "-c 'bogus': no such column; there are: Image, Host, "),
    ):
        done = cloud.run(*words)
        assert (done.status, said in done.err) == (status, True), (words, done.err)
        assert "Traceback" not in done.err
    assert cloud.hosts(image) == []


def test_an_id_with_capitals(cloud: Cloud) -> None:
    """Copies of such an image are listed under the id that `openstack image list` shows."""
    image = "FEDCBA99-2345-4678-9ABC-DEF012345678"
    cloud.client.create("capitals", DATA, id=image)
    cloud.client.download(image)
    assert eventually(lambda: cloud.hosts(image) == ["ours"])
    assert {one["Image"] for one in cloud.rows("list", image)} == {image}
    assert {one["Host"] for one in cloud.rows("list", image) if one["Host"]} == {"ours"}
    assert cloud.run("verify", image).status == 0


def test_an_empty_image(cloud: Cloud, tmp_path: Path) -> None:
    """A snapshot without a byte is intact, status 0, and saved as an empty file."""
    image = str(cloud.client.create("empty", b"", block_device_mapping="[]")["id"])
    assert cloud.run("verify", image).status == 0
    assert cloud.run("save", image, "--file", tmp_path / "image").status == 0
    assert (tmp_path / "image").read_bytes() == b""


def test_a_name_makes_no_line(cloud: Cloud) -> None:
    """`-f value` has one line for each copy, whatever the image is called; JSON gives the name back."""
    name = "x\n11111111-2222-4333-8444-555555555555 corrupt\x1b[2J\u2028"
    image = str(cloud.client.create(name, DATA)["id"])
    done = cloud.run("list", image, "-f", "value", "-c", "Image", "-c", "Name")
    assert (done.status, len(done.out.splitlines())) == (0, 1)
    assert done.out.startswith(f"{image} x\\n11111111")
    assert [one["Name"] for one in cloud.rows("list", image)] == [name]
    assert cloud.rows("show", image)["name"] == name
    assert len(cloud.run("show", image, "-f", "value", "-c", "name").out.splitlines()) == 1


def test_save_behind_a_private_authority(cloud: Cloud, tmp_path: Path) -> None:
    """`openstack --os-cacert CA image replica save`, where Glance and the host's copy are behind TLS of an authority
    that the system does not know: the bytes are the host's. Without it Glance cannot be asked."""
    authority, address = Authority(tmp_path / "ca"), "127.0.0.7"
    port, target = free_port(address), tmp_path / "image.raw"
    url = f"https://{address}:{port}"
    host = cloud.site.add_host(address, name="closed", processes=1, pipeline="keystone+replicas", start=False)
    host.configure({"replicas": {"host_url": url}, "web": {"https_ca_certificates_file": str(authority.file)}})
    more = f"listen {address}:{port} ssl; {authority.directives(address)} location = /ready {{ return 200; }}"
    more += f" location / {{ proxy_pass {host.url}; }}"
    known = json.loads(cloud.clouds.read_text())
    known["clouds"]["closed"] = known["clouds"]["mine"] | {"image_endpoint_override": url}
    cloud.clouds.write_text(json.dumps(known))
    with Nginx(tmp_path / "nginx", tmp_path, address, more=more), host.start():
        cloud.site.wait_known()
        image, client = str(cloud.client.create("closed", DATA)["id"]), host.client()
        client.identity = cloud.client.identity
        assert client.download(image).content == DATA
        assert eventually(lambda: cloud.hosts(image) == ["closed"])
        words = ("--os-cloud", "closed", "image", "replica", "save", image, "--file", target)
        refused = cloud.programs.run(*words)
        assert (refused.status, target.exists(), "Traceback" in refused.err) == (3, False, False), refused.err
        done = cloud.programs.run("--os-cacert", authority.file, *words)
        assert (done.status, f"from closed ({url}/replicas/{image}), verified" in done.err) == (0, True), done.err
        assert target.read_bytes() == DATA
