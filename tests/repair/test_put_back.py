"""An image left with cached copies only: the alarm of every tool, and the command that puts it back into a store."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import environment
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Desk
from support.worlds.scenes import settle

from glance_replicas.stores.file.writer import STAGED

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as made:
        yield made


@pytest.fixture
def alone(desk: Desk, server: FaultyServer) -> Iterator[str]:
    """An image of which only a cached copy is left: object and row are gone from the store."""
    image = only_cached(desk.site, desk.image(DATA, "alone"), server)
    desk.add_replica(image, server.url)
    yield image
    desk.site.rows("UPDATE images SET status = 'deleted', deleted = 1 WHERE id = :i", i=image)


def only_cached(site: GlanceSite, image: str, server: FaultyServer) -> str:
    server.put(f"/replicas/{image}", DATA)
    site.store_file(image).unlink()
    site.rows("DELETE FROM image_locations WHERE image_id = :i", i=image)
    return image


def test_every_tool_raises_the_alarm(desk: Desk, alone: str, tmp_path: Path) -> None:
    """list, verify, report, audit and check name the image and the next command; who has a status says damage."""
    said, step = "no durable copy", f"replica repair {alone} --to-store STORE --yes"
    listed = desk.run("list", alone)
    assert said in listed.err
    assert step in listed.err
    for words in (["verify", alone], ["verify", "--all"], ["verify", "--all", "--max-age", "1d"], ["audit", "--all"]):
        done = desk.run(*words)
        assert (done.status, said in done.out, step in done.out) == (1, True, True), (words, done)
    done = desk.run("report")
    assert (done.status, said in done.out, step in done.out) == (1, True, True), done
    told = json.loads(desk.run("report", "-f", "json").out)
    assert told["images_without_durable_copy"] == 1
    assert [one["next"] for one in told["worst"] if one["image"] == alone] == [step]
    assert desk.run("report", "--html", tmp_path / "page.html").status == 1
    page = (tmp_path / "page.html").read_text()
    assert "images without a durable copy" in page
    assert step in page
    done = desk.run("check")
    assert (done.status, alone in done.out, "no durable copy" in done.out) == (1, True, True), done


def test_a_fresh_copy_in_another_spelling_raises_it_too(desk: Desk, server: FaultyServer) -> None:
    """What was verified lately is left out by its URL: another spelling of `replicas` is a host's all the same."""
    image = only_cached(desk.site, desk.image(DATA, "spelled"), server)
    desk.site.add_location(image, server.put(f"/%72eplicas/{image}", DATA), {"store": "web"})
    for words in (["verify", image], ["verify", "--all", "--max-age", "1d"]):
        done = desk.run(*words)
        assert (done.status, "no durable copy" in done.out) == (1, True), (words, done)
    desk.site.rows("UPDATE images SET status = 'deleted', deleted = 1 WHERE id = :i", i=image)


def test_a_damaged_store_counts_as_none(desk: Desk, server: FaultyServer) -> None:
    """With a row left whose object is known to be bad, the alarm names the repair in place."""
    image = desk.image(DATA, "bad store")
    server.put(f"/replicas/{image}", DATA)
    desk.add_replica(image, server.url)
    desk.site.store_file(image).write_bytes(DATA[::-1])
    assert desk.run("list", image).err == ""
    assert desk.run("verify", image).status == 1
    said = f"no durable copy is intact: only cached, on api9; next: replica repair {image} --yes"
    assert said in desk.run("list", image).err
    assert desk.run("repair", image, "--yes").status == 0
    assert desk.run("list", image).err == ""


def test_it_is_put_back(desk: Desk, alone: str) -> None:
    """Under Glance's own name, read back, its row before the cached ones; a second run has nothing to do."""
    plan = desk.run("repair", alone, "--to-store", "fast")
    assert (plan.status, desk.site.store_file(alone).exists()) == (1, False), plan
    assert "add --yes" in plan.out
    done = desk.run("repair", alone, "--to-store", "fast", "--yes", "-f", "json")
    assert done.status == 0, done
    [row] = done.rows
    assert (row["Action"], row["Store"], row["From"]) == ("put back", "fast", "api9")
    assert desk.site.store_file(alone).read_bytes() == DATA
    assert [url.partition(":")[0] for url in desk.urls(alone)] == ["file", "http"]
    assert desk.host.client().download(alone).content == DATA
    assert desk.run("verify", alone).status == 0
    again = desk.run("repair", alone, "--to-store", "fast", "--yes")
    assert "has an intact durable copy" in again.out


def test_a_run_that_was_killed_before_the_row_is_finished(desk: Desk, alone: str) -> None:
    """An object that is there and is the image gets its row; nothing is written."""
    desk.site.store_file(alone).write_bytes(DATA)
    before = desk.site.store_file(alone).stat()
    assert desk.run("repair", alone, "--to-store", "fast", "--yes").status == 0
    assert desk.site.store_file(alone).stat().st_ino == before.st_ino
    assert desk.site.store_file(alone).stat().st_mtime_ns == before.st_mtime_ns
    assert len(desk.urls(alone)) == 2


def test_killed_in_the_middle(desk: Desk, server: FaultyServer, alone: str) -> None:
    """kill -9 while the object is written: nothing has its name, no row was added, and the next run does all of it."""
    server.put(f"/replicas/{alone}", DATA, rate=len(DATA) // 4)
    words = ("--config-file", desk.host.config_file, "repair", alone, "--to-store", "fast", "--yes")
    command = [Path(sys.prefix) / "bin" / "replica", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    path = desk.site.store_file(alone)
    settle(path.with_name(STAGED.format(alone)).exists, 60)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert (path.exists(), len(desk.urls(alone))) == (False, 1)
    server.put(f"/replicas/{alone}", DATA)
    assert desk.run("repair", alone, "--to-store", "fast", "--yes").status == 0
    assert (path.read_bytes(), len(desk.urls(alone))) == (DATA, 2)


def test_nothing_is_overwritten(desk: Desk, alone: str) -> None:
    """Something else under that name stays as it is, and no row is added."""
    desk.site.store_file(alone).write_bytes(b"somebody else's")
    done = desk.run("repair", alone, "--to-store", "fast", "--yes")
    assert done.status == 1
    assert "never overwritten" in done.out
    assert desk.site.store_file(alone).read_bytes() == b"somebody else's"
    assert len(desk.urls(alone)) == 1


def test_what_cannot_be_put_back(desk: Desk, server: FaultyServer, alone: str) -> None:
    """A store that is none, a cached copy that is bad, a store that could not be asked: refused, nothing is written."""
    for store in ("web", "nowhere"):
        done = desk.run("repair", alone, "--to-store", store, "--yes")
        assert (done.status, "there are: fast" in done.err) == (2, True), done
    server.put(f"/replicas/{alone}", DATA[::-1])
    done = desk.run("repair", alone, "--to-store", "fast", "--yes")
    assert (done.status, "no copy is intact" in done.out) == (1, True), done
    server.put(f"/replicas/{alone}", DATA)
    desk.site.add_location(alone, "http://127.0.0.1:1/nobody", {"store": "web"})
    done = desk.run("repair", alone, "--to-store", "fast", "--yes")
    assert (done.status, "could not be asked" in done.out) == (3, True), done
    assert not desk.site.store_file(alone).exists()
