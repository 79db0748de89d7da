"""Images that are deleted and purged by Glance's own programs while a host is away, and ids that are used again.

Sources: OSSN-0075, Launchpad #1593799.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from services import need
from services.databases.schema import add_ledger, sqlite_database
from services.glance.site import GlanceHost, GlanceSite
from services.process import run
from support.programs import Done, Programs
from support.worlds.scenes import new_bytes, new_image, settle

from glance_replicas.settings import default_ledger
from glance_replicas.signing import parse_keys, sign

pytest_plugins = ["support.desk"]

SIZE = 300_000
KEY = "a:0123456789abcdef0123456789abcdef"
MEMBER = ("member", "reader")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GlanceHost, GlanceHost]]:
    """Two hosts; on the second a pass is made when a test says so."""
    with GlanceSite(tmp_path_factory.mktemp("site"), options={"replicas": {"signing_keys": KEY}}) as site:
        here = site.add_host("127.0.0.2", processes=1)
        yield here, site.add_host("127.0.0.3", processes=1, options={"replicas": {"janitor": "false"}})


class Tools:
    """The programs as they run on one host."""

    def __init__(self, host: GlanceHost, programs: Programs) -> None:
        self.host, self._programs = host, programs

    def run(self, *words: object) -> Done:
        return self._programs.run("--config-file", self.host.config_file, *words)

    def hosts(self, *words: object) -> dict[str, str]:
        """The hosts in what a program lists, each with the verdict of its copy."""
        return {row["Host"]: row["Verdict"] for row in self.run(*words, "-f", "json").rows if row["Host"]}


def owners(host: GlanceHost, image_id: str) -> list[str]:
    """The hosts that have a row."""
    rows = host.site.locations(image_id)
    return [row["metadata"]["replica_host"] for row in rows if "replica_host" in row["metadata"]]


def direct(host: GlanceHost, image_id: str) -> requests.Response:
    """The per-host URL, signed."""
    return requests.get(sign(f"{host.url}/replicas/{image_id}", parse_keys([KEY]), 600), timeout=30)


def cached(host: GlanceHost) -> str:
    """A private image of p1 with a registered copy on this host."""
    image_id, data = new_image(host, SIZE, visibility="private")
    assert host.client("p1", MEMBER).download(image_id).content == data
    settle(lambda: owners(host, image_id) == [host.name])
    return image_id


def purge(host: GlanceHost) -> None:
    """Nothing of deleted images is left in Glance's database."""
    for words in ("purge", "purge_images_table"):
        command: list[str | Path] = [need("glance-manage"), "--config-file", host.config_file, "db", words]
        run([*command, "--age_in_days", "0", "--max_rows", "-1"])


def used_again(host: GlanceHost, image_id: str, size: int) -> bytes:
    """The bytes of another project's private image, which has this id now."""
    data = new_bytes(size)
    host.client("p2", MEMBER, "u2").create(data=data, id=image_id, visibility="private")
    return data


def shown_nowhere(tools: Tools, image_id: str) -> None:
    """The old copy is no location, in no document, not intact, and not sent."""
    host = tools.host
    assert direct(host, image_id).status_code == 404
    document = host.client("p2", MEMBER, "u2").replicas(image_id)
    assert [row["host"] for row in document["replicas"] if row["host"]] == []
    assert tools.hosts("list", image_id) == {}
    assert "intact" not in tools.run("verify", image_id, "--remote-reads", "-f", "json", "--host", host.name).out


def test_ids_used_again_after_a_purge(pair: tuple[GlanceHost, GlanceHost], programs: Programs) -> None:
    """Another project with the id gets its own bytes from the host that kept the old file, asked before or after its
    first pass, of the same or another size; no tool, document or URL shows the old copy; the new one is registered."""
    here, there = pair
    sizes = {cached(there): size for size in (SIZE, SIZE - 9, SIZE, SIZE + 9)}
    first, last = list(sizes)[:2], list(sizes)[2:]
    there.stop()
    for image_id in sizes:
        here.client().delete(image_id)
    purge(here)
    assert here.site.rows("SELECT id FROM images") == []
    data = {image_id: used_again(here, image_id, size) for image_id, size in sizes.items()}
    tools, reader = Tools(there.start(), programs), there.client("p2", MEMBER, "u2")
    for image_id in first:
        shown_nowhere(tools, image_id)
        assert reader.download(image_id).content == data[image_id]
    assert tools.run("janitor", "--once").status == 0
    for image_id in last:
        shown_nowhere(tools, image_id)
        assert not (there.cache_dir / image_id).exists()
        assert reader.download(image_id).content == data[image_id]
    for image_id in sizes:
        settle(lambda image_id=image_id: owners(there, image_id) == ["api2"])
        assert direct(there, image_id).content == data[image_id]
        assert tools.hosts("verify", image_id, "--host", "api2", "--remote-reads") == {"api2": "intact"}
        assert there.client("p1", MEMBER).download(image_id).status_code == 404
    assert not any((there.cache_dir / "invalid").iterdir()), "nothing that is right was set aside"


def test_an_id_in_a_database_that_was_made_anew(
    pair: tuple[GlanceHost, GlanceHost], programs: Programs, tmp_path: Path
) -> None:
    """A lab that was rebuilt, with images of fixed ids: what the host kept of the old one is sent to nobody."""
    there = pair[1]
    image_id, other_id = cached(there), cached(there)
    there.stop()
    url = sqlite_database(tmp_path / "glance.sqlite")
    add_ledger(default_ledger(url))
    (tmp_path / "store").mkdir()
    there.configure({"database": {"connection": url}, "fast": {"filesystem_store_datadir": str(tmp_path / "store")}})
    tools = Tools(there.start(), programs)
    data = {each: used_again(there, each, SIZE) for each in (image_id, other_id)}
    shown_nowhere(tools, image_id)
    reader = there.client("p2", MEMBER, "u2")
    assert reader.download(image_id).content == data[image_id]
    assert tools.run("janitor", "--once").status == 0
    shown_nowhere(tools, other_id)
    assert reader.download(other_id).content == data[other_id]
    settle(lambda: set(tools.hosts("list", other_id)) == set(tools.hosts("list", image_id)) == {"api2"})
    assert direct(there, image_id).content == data[image_id]
