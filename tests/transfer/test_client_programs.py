"""`replica choose` and `replica get` as a user runs them: with real Glance hosts, a real Keystone, and web servers."""

import base64
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from services import environment, eventually, need
from services.glance.site import GlanceClient, GlanceHost, GlanceSite
from services.stores.keystone import Keystone
from services.web.faulty import FaultyServer
from support import ROOT
from support.programs import Done, Programs

from glance_replicas.stores.body import Limits
from glance_replicas.stores.http.wire import Wire
from glance_replicas.tools.cloud.image_service import Cloud

IMAGE = "11111111-2222-4333-8444-555555555555"
DATA = random.Random(3).randbytes(2_000_003)
DIGEST = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(DATA).hexdigest()}


_homeless: list[Programs] = []


@pytest.fixture(scope="module", autouse=True)
def homeless() -> Iterator[None]:
    """`replica` of a user without any settings."""
    with Programs(XDG_CONFIG_HOME="/nonexistent", HOME="/nonexistent") as programs:
        _homeless[:] = [programs]
        yield


def replica(*words: str | Path, **rest: Any) -> Done:
    return _homeless[0].run(*words, **rest)


def get(target: Path, *words: str | Path, **rest: Any) -> Done:
    return replica("get", *words, "-o", target, **rest)


def failed(done: Done, status: int, text: str) -> bool:
    """The status, and one line on stderr that says this; nothing on stdout."""
    assert (done.status, done.out) == (status, ""), done.err
    assert done.err.startswith("replica: error: ")
    assert done.err.count("\n") == 1
    assert text in done.err
    return True


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """A host with our filters, and one as others have it, which shows every location."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        shown = {"DEFAULT": {"show_multiple_locations": "true"}}
        made.add_host("127.0.0.2", name="ours", processes=1, start=False)
        made.add_host("127.0.0.3", name="stock", processes=1, pipeline="stock", options=shown, start=False)
        for host in made.hosts:
            host.start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


def member(host: GlanceHost) -> tuple[dict[str, str], list[str]]:
    """The environment and the options with which a member reaches a Glance without Keystone."""
    identity = host.client("p1", ("member", "reader")).identity
    headers = [word for name, value in identity.items() for word in ("--header", f"{name}: {value}")]
    return {"OS_AUTH_TYPE": "none", "OS_ENDPOINT": host.url}, headers


def admin(site: GlanceSite) -> GlanceClient:
    return site.hosts[0].client()


def document(*urls: str, **more: Any) -> str:
    rows = [
        {"url": url, "kind": "cached", "durable": False, "host": f"h{n}", "zone": f"z{n}", "priority": n}
        for n, url in enumerate(urls, 1)
    ]
    return json.dumps({"image_id": IMAGE, "name": "one", "size": len(DATA), **DIGEST, "replicas": rows, **more})


def good(target: Path) -> bool:
    return target.read_bytes() == DATA


def test_get_through_glance_then_from_the_host(site: GlanceSite, target: Path) -> None:
    """First nobody has a copy and Glance serves; then its host has one, and the next download comes from there."""
    host = site.hosts[0]
    image = admin(site).create("by name", DATA)["id"]
    env, headers = member(host)
    first = get(target, "by name", *headers, env=env)
    assert (first.status, first.out) == (0, ""), first.err
    assert "from Glance itself, verified by sha512" in first.err
    assert good(target)
    target.unlink()
    assert eventually(lambda: len(site.locations(image)) == 2)
    second = get(target, image, *headers, env=env)
    assert second.status == 0, second.err
    assert f"from ours ({host.url}/replicas/{image}), verified by sha512" in second.err
    assert good(target)
    assert "sig=" not in second.err


def test_choose_from_a_cloud(site: GlanceSite) -> None:
    """The table shows where the copies are and why, without signatures; JSON has the signed URL when asked to."""
    host = site.hosts[0]
    image = admin(site).create("chosen", b"abc")["id"]
    site.add_location(
        image, f"{host.url}/replicas/{image}", {"replica_host": "ours", "replica_zone": "zone-a", "store": "web"}
    )
    env, headers = member(host)
    table = replica("choose", "chosen", "--zone", "zone-a", *headers, env=env)
    assert (table.status, table.err) == (0, "")
    assert "same zone (zone-a); never verified" in table.out
    assert "sig=" not in table.out
    rows = json.loads(replica("choose", image, "-f", "json", "--show-urls", *headers, env=env).out)
    columns = ["Priority", "Kind", "Host", "Zone", "Store", "Verdict", "Checked", "Why", "URL"]
    assert list(rows[0]) == columns
    assert [(row["Priority"], row["Kind"], row["Host"]) for row in rows] == [(1, "cached", "ours")]
    assert "sig=" in rows[0]["URL"]


def test_site_without_our_filter(site: GlanceSite, faulty: FaultyServer, target: Path) -> None:
    """Where a site only shows locations, those are used; all of them bad, the image comes from Glance, verified."""
    host = site.hosts[1]
    image = admin(site).create("stock", DATA)["id"]
    env, headers = member(host)
    bad = faulty.put(f"/replicas/{image}", DATA, flip_at=77)
    site.add_location(image, bad, {"replica_host": "h1", "store": "web"})
    done = get(target, image, *headers, env=env)
    assert done.status == 0, done.err
    assert "from Glance itself" in done.err
    assert f"h1 ({bad}) gave wrong bytes" in done.err
    assert good(target)
    rows = json.loads(replica("choose", image, "-f", "json", *headers, env=env).out)
    assert [row["Kind"] for row in rows] == ["cached", "file"]
    faulty.change(f"/replicas/{image}")
    assert "from h1" in get(target, image, *headers, env=env).err


def test_damage_everywhere(site: GlanceSite, target: Path) -> None:
    """Every source has wrong bytes: exit status 1, the sources named, no file."""
    image = admin(site).create("damaged", DATA)["id"]
    site.store_file(image).write_bytes(DATA[:-1] + b"?")
    env, headers = member(site.hosts[1])
    done = get(target, image, *headers, env=env)
    assert failed(done, 1, "Glance itself: gave wrong bytes")
    assert f"replica verify {image}" in done.err
    assert not target.exists()


def test_names(site: GlanceSite, target: Path) -> None:
    """An unknown name, an ambiguous one and an unknown id are usage errors; the ids to choose from are listed."""
    ids = [admin(site).create("twice", b"x")["id"] for _ in range(2)]
    env, headers = member(site.hosts[0])
    assert failed(get(target, "never", *headers, env=env), 2, "no image is named 'never'")
    done = get(target, "twice", *headers, env=env)
    assert failed(done, 2, "2 images are named 'twice'")
    assert all(one in done.err for one in ids)
    assert failed(get(target, IMAGE, *headers, env=env), 2, f"there is no image {IMAGE}")
    queued = admin(site).create("queued")["id"]
    assert failed(get(target, queued, *headers, env=env), 2, "is queued: it has no data")


def test_refused(site: GlanceSite, target: Path) -> None:
    """Without rights (a deactivated image, no identity) it is exit status 3 and the remedy is named."""
    image = admin(site).create("secret", b"x")["id"]
    admin(site).deactivate(image)
    env, headers = member(site.hosts[0])
    assert failed(get(target, image, *headers, env=env), 3, "you may not download it")
    assert failed(get(target, image, env=env), 3, "status 401")


def test_a_name_where_images_may_not_be_listed(faulty: FaultyServer, target: Path) -> None:
    """A policy that forbids the list hides every name: that is said, and that the id does; not that of a download."""
    faulty.put("/v2/images", b"{}", status=403)
    env = {"OS_AUTH_TYPE": "none", "OS_ENDPOINT": faulty.url}
    for done in (get(target, "cirros", env=env), replica("choose", "cirros", env=env)):
        assert failed(done, 3, "you may not list images, so no name is found; give its id")
        assert "may not download" not in done.err


def test_saved_document(faulty: FaultyServer, tmp_path: Path, target: Path) -> None:
    """A saved document, or one on stdin, needs no cloud at all."""
    urls = [faulty.put("/a", DATA, truncate_at=1_000_000), faulty.put("/b", DATA)]
    saved = tmp_path / "replicas.json"
    saved.write_text(document(*urls))
    done = get(target, "--document", saved)
    assert done.status == 0, done.err
    assert good(target)
    assert f"h1 ({urls[0]}) failed at byte 1000000" in done.err
    assert get(target, "--document", "-", stdin=document(*urls)).status == 0
    rows = json.loads(replica("choose", "--document", saved, "-f", "json").out)
    assert [row["Host"] for row in rows] == ["h1", "h2"], "the order of whoever made it"
    rows = json.loads(replica("choose", "--document", saved, "-f", "json", "--zone", "z2").out)
    assert [row["Host"] for row in rows] == ["h2", "h1"], "here is another place"


def test_proxies_of_the_environment_carry_no_image(faulty: FaultyServer, target: Path) -> None:
    """Image data come from the replica itself, whatever proxy the environment names."""
    env = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), "http://127.0.0.1:1")
    done = get(target, "--document", "-", stdin=document(faulty.put("/a", DATA)), env=env)
    assert (done.status, good(target)) == (0, True), done.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--document", "/nonexistent/x.json"], "/nonexistent/x.json: No such file"),
        (["--document", "-"], "not JSON"),
        ([], "name an IMAGE"),
        (["x"], "auth_url"),
        (["x", "--os-cloud", "nowhere"], "nowhere"),
        (["x", "--header", "no colon"], "Name: value"),
        (["x", "--header", "X: a\nY: b"], "Name: value"),
    ],
)
def test_usage(words: Sequence[str], text: str, target: Path) -> None:
    """What is wrong on the command line or in the environment is named, exit status 2."""
    assert failed(get(target, *words), 2, text)


def test_nothing_to_hold_against(faulty: FaultyServer, target: Path) -> None:
    """An image without any digest is refused, and taken on trust when that is asked for."""
    plain = document(faulty.put("/a", DATA), os_hash_algo=None, os_hash_value=None)
    assert failed(get(target, "--document", "-", stdin=plain), 2, "--unverified")
    done = get(target, "--document", "-", "--unverified", stdin=plain)
    assert done.status == 0
    assert "NOT verified" in done.err


def test_out_of_reach(target: Path) -> None:
    """A cloud, and replicas, that do not answer: exit status 3."""
    env = {"OS_AUTH_TYPE": "none", "OS_ENDPOINT": "http://127.0.0.1:1"}
    assert failed(get(target, "x", env=env), 3, "127.0.0.1:1")
    assert failed(get(target, "--document", "-", stdin=document("http://127.0.0.1:1/r")), 3, "connection refused")


def test_the_target_is_wrong(faulty: FaultyServer, tmp_path: Path) -> None:
    """A folder as target, and a folder that is not there."""
    text = document(faulty.put("/a", DATA))
    assert failed(get(tmp_path, "--document", "-", stdin=text), 2, "is a folder")
    assert failed(get(tmp_path / "no" / "x", "--document", "-", stdin=text), 2, "make it first")


def image_service(server: FaultyServer, text: str, **faults: Any) -> None:
    """An image service of one image: its document, its download."""
    server.put(f"/v2/images/{IMAGE}/replicas", text.encode())
    server.put(f"/v2/images/{IMAGE}/file", DATA, **faults)


def test_credentials_go_to_the_image_service_alone(faulty: FaultyServer, target: Path) -> None:
    """Token, basic authorisation and extra headers reach the image service and no replica, nor where one redirects."""
    with FaultyServer() as other:
        image_service(faulty, document(other.put("/a", DATA, flip_at=1), other.put("/b", DATA, redirect_to="/a")))
        basic = {
            "OS_AUTH_TYPE": "http_basic",
            "OS_ENDPOINT": faulty.url + "/v2/",
            "OS_USERNAME": "u",
            "OS_PASSWORD": "p",
        }
        done = get(target, IMAGE, "--header", "X-Extra: 1", env=basic)
        assert done.status == 0, done.err
        assert good(target)
        for path in ("replicas", "file"):
            sent = faulty.requests(f"/v2/images/{IMAGE}/{path}")[0].headers
            assert sent["Authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
            assert sent["X-Extra"] == "1"
        seen = [request.headers for path in ("/a", "/b") for request in other.requests(path)]
        assert len(seen) == 2, "the redirect was not followed"
        assert not any(name.lower() in ("authorization", "x-auth-token", "x-extra") for sent in seen for name in sent)
        image_service(faulty, document(), redirect_to=other.url + "/a")
        assert failed(get(target.with_name("second"), IMAGE, env=basic), 3, "Glance itself: ")
        assert len(other.requests("/a")) == 1


def test_cloud_of_clouds_yaml_and_keystone(
    keystone: Keystone, faulty: FaultyServer, tmp_path: Path, target: Path
) -> None:
    """A cloud of clouds.yaml with a real Keystone: its catalogue names the image service, its token goes there."""
    image_service(faulty, document())
    keystone.add_endpoint("image", faulty.url)
    auth = {"auth_url": keystone.auth_url, "username": keystone.user, "password": keystone.password}
    auth |= {"project_name": keystone.project, "user_domain_id": "default", "project_domain_id": "default"}
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text(json.dumps({"clouds": {"mine": {"auth": auth, "region_name": keystone.region}}}))
    env = {"OS_CLIENT_CONFIG_FILE": str(clouds)}
    done = get(target, IMAGE, "--os-cloud", "mine", env=env)
    assert done.status == 0, done.err
    assert good(target)
    assert len(faulty.requests(f"/v2/images/{IMAGE}/file")[0].headers["X-Auth-Token"]) > 50
    auth["password"] = "wrong"
    clouds.write_text(json.dumps({"clouds": {"mine": {"auth": auth, "region_name": keystone.region}}}))
    assert failed(get(target, IMAGE, env={**env, "OS_CLOUD": "mine"}), 3, "Keystone: ")


def test_expired_signature_brings_a_new_document(faulty: FaultyServer, target: Path) -> None:
    """403 from a replica: the document is asked for again, once, and what it says now is used."""
    with FaultyServer() as other:
        image_service(faulty, document(other.put("/a", DATA, status=403) + "?sig=1"))
        done = get(target, IMAGE, env={"OS_AUTH_TYPE": "none", "OS_ENDPOINT": faulty.url})
        assert done.status == 0, done.err
        assert faulty.reads(f"/v2/images/{IMAGE}/replicas") == 2
        assert "from Glance itself" in done.err


def test_glance_that_cannot_start_midway(faulty: FaultyServer) -> None:
    """Glance on Swift refuses a Range: its download is read from the start and what comes before is dropped."""
    cloud = Cloud(faulty.url, dict, Wire(Limits()))
    for faults in ({"wrong_content_range": True}, {"ignore_range": True}, {}):
        image_service(faulty, document(), **faults)
        with cloud.download(IMAGE)(1_500_000) as body:
            assert b"".join(body) == DATA[1_500_000:]
    assert faulty.reads(f"/v2/images/{IMAGE}/file") == 1


def test_terminated(faulty: FaultyServer, target: Path) -> None:
    """SIGTERM and SIGINT midway leave no file and no part of one, and a status that says so."""
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        text = document(faulty.put("/a", DATA, rate=200_000))
        command = [str(need("replica")), "get", "--document", "-", "-o", str(target)]
        process = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        assert eventually(lambda: any(path.stat().st_size for path in target.parent.glob(".image.raw.*")), 20)
        process.send_signal(number)
        assert process.wait(20) == status
        assert process.stderr is not None
        process.stderr.close()
        assert list(target.parent.iterdir()) == []


def test_progress_on_a_terminal(faulty: FaultyServer, target: Path) -> None:
    """Somebody at a terminal sees how far it is; a program that reads stderr does not."""
    text = document(faulty.put("/a", DATA, rate=2_000_000))
    ours, theirs = os.openpty()
    command = [str(need("replica")), "get", "--document", "-", "-o", str(target)]
    done = subprocess.run(command, env=environment(), input=text.encode(), stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "of 1.9 MiB" in seen
    assert "h1 (" in seen


def test_the_documented_example(faulty: FaultyServer, tmp_path: Path) -> None:
    """The Python of docs/clients.md runs as it stands and names the source that gave wrong bytes."""
    text = (ROOT / "docs" / "clients.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    urls = [faulty.put("/a", DATA, flip_at=9), faulty.put("/b", DATA)]
    (tmp_path / "replicas.json").write_text(document(*urls))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert f"{len(DATA)} bytes from h2 ({urls[1]}), sha512 verified" in done.stdout
    assert f"gave wrong bytes: h1 ({urls[0]})" in done.stdout
    assert good(tmp_path / "disk.raw")


@pytest.mark.parametrize("size", [0, 1, 511, 4097])
def test_get_of_any_size(site: GlanceSite, target: Path, size: int) -> None:
    """An image of no bytes, of one, or of an odd number: a file of just these, status 0, by Glance and by its host."""
    data = DATA[:size]
    image = admin(site).create(f"of {size}", data)["id"]
    env, headers = member(site.hosts[0])
    for _ in range(2):
        done = get(target, image, *headers, env=env)
        assert (done.status, target.read_bytes()) == (0, data), done.err
        target.unlink()
        if size:
            assert eventually(lambda: len(site.locations(image)) == 2)
    assert ("from ours" in done.err) == bool(size), done.err
