"""Metalink and Link headers: right for the programs that read them, harmless whatever an image is called."""

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from services import need
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.scenes import new_image, settle

from glance_replicas.client import metalink
from glance_replicas.client.document import Document, Replica

IMAGE = "11111111-2222-4333-8444-555555555555"
SHA = hashlib.sha512().hexdigest()
NAMESPACE = {"m": "urn:ietf:params:xml:ns:metalink"}
DOCUMENT = Document(IMAGE, "one", "active", 0, None, "sha512", SHA)


def copy(url: str, priority: int = 1) -> Replica:
    return Replica(url, "cached", False, "h", "z", "web", 0, priority)


def read(document: Document) -> ElementTree.Element:
    file = ElementTree.fromstring(metalink.dump(document)).find("m:file", NAMESPACE)
    assert file is not None
    return file


def test_document() -> None:
    """Name, size, digest and the readable copies in their order, as RFC 5854 writes them."""
    stored = Replica("swift+https://u:p@k/c/o", "swift+https", True, priority=2)
    made = replace(DOCUMENT, replicas=(copy("http://a/replicas/x?sig=1&kid=2"), stored, copy("https://b/x", 3)))
    file = read(made)
    assert file.attrib == {"name": IMAGE}
    found = [(one.tag.split("}")[1], one.attrib, one.text) for one in file]
    assert found == [
        ("identity", {}, "one"),
        ("size", {}, "0"),
        ("hash", {"type": "sha-512"}, SHA),
        ("url", {"priority": "1"}, "http://a/replicas/x?sig=1&kid=2"),
        ("url", {"priority": "3"}, "https://b/x"),
    ]
    assert list(metalink.links(made)) == [
        "<http://a/replicas/x?sig=1&kid=2>; rel=duplicate; pri=1",
        "<https://b/x>; rel=duplicate; pri=3",
        f'</v2/images/{IMAGE}/replicas>; rel=describedby; type="application/metalink4+xml"',
    ]


def test_hostile_texts() -> None:
    """No name of an image and no URL in its metadata breaks the XML, names a file or adds a header."""
    name = "../../etc/passwd\x00\x1b<![CDATA[</identity><url>http://evil</url>\ud800\uffff"
    made = replace(DOCUMENT, name=name, replicas=(copy('http://a/>; rel="next"\r\nSet-Cookie: x=1, <http://b'),))
    file = read(made)
    assert file.attrib == {"name": IMAGE}
    assert [one.text for one in file.findall("m:url", NAMESPACE)] == [
        "http://a/%3E;%20rel=%22next%22%0D%0ASet-Cookie:%20x=1,%20%3Chttp://b"
    ]
    assert all(one.isascii() and one.count("<") == 1 and "\n" not in one for one in metalink.links(made))


def test_digests() -> None:
    """An md5 serves where there is nothing else; a digest Metalink has no name for is left out."""
    md5 = hashlib.md5(usedforsecurity=False).hexdigest()
    old = replace(DOCUMENT, os_hash_algo=None, os_hash_value=None, checksum=md5)
    assert f'<hash type="md5">{md5}</hash>'.encode() in metalink.dump(old)
    odd = replace(DOCUMENT, os_hash_algo="blake2b", os_hash_value=SHA)
    assert b"<hash" not in metalink.dump(odd)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """One host with our filters."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        made.add_host("127.0.0.2", name="ours", processes=1)
        yield made


def test_aria2(site: GlanceSite, faulty: FaultyServer, tmp_path: Path) -> None:
    """aria2 takes the document, fetches from the host, and does not take other bytes for the image."""
    host = site.hosts[0]
    image, data = new_image(host, 3_000_000)
    host.client().download(image)
    settle(lambda: len(site.locations(image)) == 2)
    headers = {"Accept": metalink.MEDIA_TYPE}
    answer = host.client("p1", ("member", "reader")).request("GET", f"/v2/images/{image}/replicas", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(metalink.MEDIA_TYPE)
    assert "rel=duplicate; pri=1, </v2/images/" in answer.headers["Link"]
    document = tmp_path / "image.meta4"
    document.write_bytes(answer.content)
    words = ["--dir", tmp_path, "--follow-metalink=mem", "--check-integrity=true", "--metalink-file", document]
    run = [need("aria2c"), "--no-conf", "--allow-overwrite=false", "--console-log-level=error", *words]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / image).read_bytes() == data
    wrong = faulty.put(f"/replicas/{image}", data, flip_at=77)
    url = ElementTree.fromstring(answer.content).find(".//m:url", NAMESPACE)
    assert url is not None
    assert url.text
    document.write_bytes(answer.content.replace(url.text.replace("&", "&amp;").encode(), wrong.encode()))
    (tmp_path / image).unlink()
    assert subprocess.run(run, capture_output=True, timeout=60, check=False).returncode != 0  # the digest is in it


def test_json_stays_the_default(site: GlanceSite) -> None:
    """Whoever asks for nothing, for JSON, or for something else gets JSON."""
    image, _ = new_image(site.hosts[0], 1000)
    for accept in ("*/*", "application/json", "text/html", "application/json, application/metalink4+xml;q=0.5"):
        answer = site.hosts[0].client().request("GET", f"/v2/images/{image}/replicas", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == "application/json", accept
        assert answer.json()["image_id"] == image


def test_an_empty_image(site: GlanceSite) -> None:
    """A file in Metalink has a URL (RFC 5854, 4.1.2): 406 says that there is nothing to download, or it is JSON."""
    client = site.hosts[0].client()
    path = f"/v2/images/{client.create(data=b'')['id']}/replicas"
    answer = client.request("GET", path, headers={"Accept": metalink.MEDIA_TYPE})
    assert (answer.status_code, "is empty" in answer.text) == (406, True)
    for accept in (f"{metalink.MEDIA_TYPE}, application/json;q=0.5", "*/*"):
        assert client.request("GET", path, headers={"Accept": accept}).json()["size"] == 0
