"""What goes wrong when copies are verified, as an operator sees it (docs/failures.md, "Replicas and tools")."""

import errno
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services.machine.disk import Disk
from services.web.faulty import FaultyServer
from support.programs import Desk

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000
LARGE = random.Random(14).randbytes(9 << 20)  # more than a sample
FLIPPED = bytes([LARGE[0] ^ 1]) + LARGE[1:]


@pytest.fixture(scope="module")
def web() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def found(desk: Desk, *words: object) -> dict[str, Any]:
    """The results of `replica verify`, by URL."""
    return {row["URL"]: row for row in desk.run("verify", *words, "-f", "json").rows}


LOOK = """
import json, sys
from pathlib import Path
from glance_replicas import model, verdict
from glance_replicas.stores import sources
from glance_replicas.stores.file import reader
from glance_replicas.verify import probe
root, size = Path(sys.argv[1]), int(sys.argv[2])
image = model.Image("x", "active", size, model.Digest("sha256", "00" * 32))
one = model.Location("x", f"file://{root}/image")
result = probe.probe(sources.Sources([reader.Reader([root])]), image, one, verdict.Evidence.FULL)
print(json.dumps([result.verdict, result.detail]))
"""


def test_device_error(tmp_path: Path) -> None:
    """A disk that reports an I/O error makes a copy unreachable, neither missing nor corrupt (32)."""
    root = tmp_path / "store"
    root.mkdir()
    (root / "image").write_bytes(DATA)
    disk = Disk(tmp_path / "disk")
    disk.build()
    disk.fail("stream", "store/image", errno.EIO)
    command = [sys.executable, "-W", "ignore", "-c", LOOK, root, str(len(DATA))]
    done = subprocess.run(command, env=disk.environment(), capture_output=True, text=True, timeout=60, check=True)
    verdict, detail = json.loads(done.stdout)
    assert verdict == "unreachable"
    assert "input/output error" in detail


def test_one_dead_url_among_live_ones(desk: Desk, web: FaultyServer) -> None:
    """A copy out of reach does not keep the others from being looked at, each by itself (33)."""
    image = desk.image(DATA)
    live = web.put(f"/replicas/{image}", DATA)
    desk.add_replica(image, web.url, host="api7")
    dead = desk.add_replica(image, "http://127.0.0.9:1", host="api8")
    rows = found(desk, image)
    assert rows[live]["Verdict"] == "intact"
    assert rows[dead]["Verdict"] == "unreachable"
    assert sorted(row["Verdict"] for row in rows.values()) == ["intact", "intact", "unreachable"]


def test_a_place_without_a_digest_says_so(desk: Desk, web: FaultyServer) -> None:
    """--evidence stored of a file and of a cached copy is evidence `size`, with the reason; nothing is read (42)."""
    image = desk.image(DATA)
    web.put(f"/replicas/{image}", bytes(len(DATA)))
    desk.add_replica(image, web.url)
    for row in found(desk, image, "--evidence", "stored").values():
        assert (row["Verdict"], row["Evidence"]) == ("intact", "size")
        assert "states no digest of its own" in row["Detail"]
    assert web.reads(f"/replicas/{image}") == 0


def test_a_sample_needs_an_intact_copy(desk: Desk) -> None:
    """--evidence sample without a copy that was intact in full is evidence `size`, and says so (42)."""
    image = desk.image(LARGE)
    [row] = found(desk, image, "--evidence", "sample").values()
    assert (row["Verdict"], row["Evidence"]) == ("intact", "size")
    assert "no other copy was intact in full" in row["Detail"]


def test_a_sample_of_one_copy_by_two_names(desk: Desk) -> None:
    """A second name of the same file was intact in full, and is no other copy to compare with (42)."""
    image = desk.image(LARGE)
    path = desk.add_file(image, None)
    path.hardlink_to(desk.site.store_dir / image)
    assert desk.run("verify", image).status == 0
    rows = found(desk, image, "--evidence", "sample").values()
    assert [(row["Verdict"], row["Evidence"]) for row in rows] == [("intact", "size")] * 2


def test_a_sample_of_two_places(desk: Desk, web: FaultyServer) -> None:
    """A file and a copy behind a web server are each held against the other, by ranges: intact, exit 0."""
    image = desk.image(LARGE)
    url = desk.add_replica(image, web.put(f"/replicas/{image}", LARGE).removesuffix(f"/replicas/{image}"))
    assert desk.run("verify", image).status == 0
    read = web.sent(f"/replicas/{image}")
    done = desk.run("verify", image, "--evidence", "sample", "-f", "json")
    assert done.status == 0, done.out + done.err
    rows = {row["URL"]: row for row in done.rows}
    (durable,) = rows.keys() - {url}
    assert {(row["Verdict"], row["Evidence"]) for row in rows.values()} == {("intact", "sample")}
    assert f"8388608 of them compared; the same as in {url}" in rows[durable]["Detail"]
    assert f"8388608 of them compared; the same as in {durable}" in rows[url]["Detail"]
    assert web.requests(f"/replicas/{image}")[-1].range is not None
    assert web.sent(f"/replicas/{image}") > read
    web.put(f"/replicas/{image}", FLIPPED)
    done = desk.run("verify", image, "--evidence", "sample", "--host", "api9", "-f", "json")
    assert (done.status, [row["Verdict"] for row in done.rows]) == (3, ["unverifiable"])


def test_a_sample_that_differs(desk: Desk) -> None:
    """A copy that differs from an intact one is unverifiable; the next command is the verification that tells (36)."""
    image = desk.image(LARGE)
    assert desk.run("verify", image).status == 0
    good = f"file://{desk.add_file(image, LARGE, 'good')}"
    bad = f"file://{desk.add_file(image, FLIPPED, 'bad')}"
    rows = found(desk, image, "--evidence", "sample")
    assert (rows[good]["Verdict"], rows[good]["Evidence"]) == ("intact", "sample")
    assert (rows[bad]["Verdict"], rows[bad]["Evidence"]) == ("unverifiable", "sample")
    done = desk.run("verify", image, "--evidence", "sample")
    assert done.status == 3
    assert f"next: replica verify {image} --evidence full" in done.out
    rows = found(desk, image)
    assert (rows[good]["Verdict"], rows[bad]["Verdict"]) == ("intact", "corrupt")
