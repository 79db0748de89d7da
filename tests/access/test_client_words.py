"""What clients may read of a fault: fixed words. The reason stands in the log, with the image's id."""

import ast
import re
from collections.abc import Iterator

import pytest
from services.glance.site import GlanceHost, GlanceSite
from support import ROOT
from support.worlds.scenes import new_image

MIB = 1 << 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """Hosts with a fault each: no room, no directory, no ledger."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        lost = f"sqlite:///{made.folder}/none/ledger.sqlite"
        faults = {"small": {"max_bytes": "1000"}, "broken": {}, "lost": {"connection": lost}}
        for number, (name, options) in enumerate(faults.items(), 2):
            made.add_host(f"127.0.0.{number}", name=name, processes=1, options={"replicas": options}, start=False)
        for host in made.hosts:
            host.start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


def host_of(site: GlanceSite, name: str) -> GlanceHost:
    return next(host for host in site.hosts if host.name == name)


def detail(status: str) -> str:
    return status.partition("; detail=")[2].strip('"')


def logged(host: GlanceHost, image_id: str) -> str:
    return "\n".join(line for line in host.log().splitlines() if image_id in line and "without cache" in line)


def test_no_room(site: GlanceSite) -> None:
    """A copy that does not fit: a fixed word for the client, the limit and the size in the log."""
    host = host_of(site, "small")
    image_id, data = new_image(host, MIB)
    answer = host.client(roles=("member",)).download(image_id)
    assert answer.content == data
    assert detail(answer.headers["Cache-Status"]) == "no room"
    assert "max_bytes = 1000" in logged(host, image_id)


def test_no_directory(site: GlanceSite) -> None:
    """A directory that cannot be written: neither its path nor the system's error goes out."""
    host = host_of(site, "broken")
    image_id, data = new_image(host, MIB)
    folder = host.cache_dir / "incomplete"
    folder.rename(host.cache_dir / "aside")
    folder.write_bytes(b"")
    answer = host.client(roles=("member",)).download(image_id)
    assert answer.content == data
    assert detail(answer.headers["Cache-Status"]) == "cache unavailable"
    assert str(host.cache_dir) not in str(answer.headers)
    assert str(host.cache_dir) in logged(host, image_id)


def test_no_ledger(site: GlanceSite) -> None:
    """An order that could not be written down: 503 without the database's words, which are in the log."""
    host = host_of(site, "lost")
    image_id, _ = new_image(host, 1000)
    answer = host.client().request("POST", f"/v2/images/{image_id}/replicas/small")
    assert answer.status_code == 503
    assert "The request was not recorded: the replica database could not be reached" in answer.text
    for word in ("sqlite", "unable", "upgrade", str(site.folder)):
        assert word not in answer.text
    assert any(image_id in line and "small" in line for line in host.log().splitlines())


def test_every_answer_takes_its_words_from_one_place() -> None:
    """No explanation, body text or `Cache-Status` detail in the filters is made of anything but the fixed words."""
    seen = 0
    for path in sorted((ROOT / "middleware").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for word in node.keywords if isinstance(node, ast.Call) else ():
                if word.arg in ("explanation", "detail", "comment"):
                    seen += 1
                    text = ast.unparse(word.value)
                    assert re.fullmatch(r"Refusal\.[A-Z_]+(\.format\((image|host)=[\w.]+\))?|error\.msg", text), text
    assert seen > 8
