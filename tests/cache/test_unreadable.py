"""Cached files that cannot be read are unknown, not damaged: a disk that gives EIO, a user who may not (EACCES)."""

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from services import environment
from services.databases.servers import server_folder
from services.machine.bad_disk import BadDisk, bad_disk
from services.machine.users import as_user
from services.web.faulty import FaultyServer
from support.worlds.cloud import DATA, Cloud, fill, loaded, read  # noqa: F401 - a fixture

from glance_replicas.errors import Unreadable
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly, scrub
from glance_replicas.janitor.passes import Janitor
from glance_replicas.ledger.schema.rows import place_key
from glance_replicas.middleware import unread
from glance_replicas.middleware.serving import Serving
from glance_replicas.model import Location, Pass, Result
from glance_replicas.settings import Settings
from glance_replicas.verdict import Evidence, Verdict

GLANCE = 64063  # a user that this machine need not know


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadDisk]:
    """A real disk."""
    with bad_disk(tmp_path_factory.mktemp("bad")) as made:
        yield made


@pytest.fixture
def on_disk(disk: BadDisk, tmp_path: Path, loaded: Settings, faulty: FaultyServer) -> Iterator[Cloud]:  # noqa: F811
    """A cloud whose hosts have their directories on that disk."""
    with closing(Cloud(tmp_path, loaded, faulty)) as made:
        made._folder = disk.folder / tmp_path.name
        made._folder.mkdir()
        yield made


def damage(cloud: Cloud, local: LocalHost, name: str) -> None:
    """The ledger knows the store's copy of an image to be corrupt."""
    [url] = [one["url"] for one in cloud.site.locations(name) if "replica_host" not in one["metadata"]]
    store = Location(name, url, {"store": "web"})
    local.ledger.record([Result(store, Verdict.CORRUPT, Evidence.FULL, "", datetime.now(UTC))])


def own(local: LocalHost, name: str) -> Location:
    return Location(name, local.registration.own_url(name) or "", local.registration.metadata())


def stuck(local: LocalHost, name: str) -> str:
    """What the ledger knows last of this host's copy."""
    return str(local.ledger.lasts([name])[name, place_key(own(local, name))].verdict)


def passed(local: LocalHost) -> Pass:
    """One look of the janitor at disk and catalogue."""
    done = Pass()
    assembly.reconciler(local).reconcile(done)
    return done


def test_a_scrub_lists_the_directory_once(tmp_path: Path, loaded: Settings, faulty: FaultyServer) -> None:  # noqa: F811
    """What is new, what could not be read and what is due come from one list, in which each file costs two calls."""
    with closing(Cloud(tmp_path, loaded, faulty)) as cloud:
        local = cloud.host("here")
        names = [cloud.cached(local), cloud.cached(local)]
        listed: list[str] = []
        _heard.append(listed)
        assembly.scrubber(local, lambda: None).step()
        _heard.clear()
        assert listed.count(str(local.cache.folder)) == 1
        assert {one.image_id for one in local.cache.complete.entries()} == set(names)


_heard: list[list[str]] = []  # who listens: a hook cannot be taken back


def _hear(event: str, of: tuple[object, ...]) -> None:
    if event == "os.scandir":
        for one in _heard:
            one.append(str(of[0]))


sys.addaudithook(_hear)


def test_a_scrub(on_disk: Cloud, disk: BadDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO: the file stays, serves nobody, has no row, is in the ledger and in the problems; once it can be read it is
    back by itself. Before, it was set aside as damaged, and gone a day later."""
    local = on_disk.host("here")
    bad, good = on_disk.cached(local), on_disk.cached(local)
    scrubber = assembly.scrubber(local, lambda: None)
    with disk.failing(local.cache.path(bad)):
        assert scrubber.verify(bad) is Verdict.UNREACHABLE
        image = local.catalogue.active(bad)
        assert image is not None
        with pytest.raises(Unreadable):
            local.own_copies.open(image)
        problems = passed(local).problems
        assert (on_disk.rows(bad), on_disk.rows(good)) == ([], ["here"])
        assert stuck(local, bad) == "unreachable"
        assert [bad in one and "Input/output error" in one and "dmesg" in one for one in problems] == [True]
        assert local.cache.complete.exists(bad)
        monkeypatch.setattr(scrub, "_AGAIN_SECONDS", 0.0)
        scrubber.again()
        assert passed(local).registered == 0
    scrubber.again()
    assert (on_disk.rows(bad), stuck(local, bad)) == (["here"], "intact")
    assert passed(local).problems == []


def test_the_last_copy_keeps_its_row(on_disk: Cloud, disk: BadDisk) -> None:
    """EIO of the last intact copy that is known of: its row says where to look for it; ordered away it is not."""
    local = on_disk.host("here")
    name = on_disk.cached(local)
    damage(on_disk, local, name)
    with disk.failing(local.cache.path(name)):
        assert assembly.scrubber(local, lambda: None).verify(name) is Verdict.UNREACHABLE
        assert len(passed(local).problems) == 1
        assert (on_disk.rows(name), stuck(local, name)) == (["here"], "unreachable")
        line = local.ledger.request_withdrawal(own(local, name), reason="asked", who="w")
        Janitor(local)._removals(Pass())
        assert (local.cache.complete.exists(name), on_disk.rows(name)) == (True, ["here"])
        assert [one.id for one in local.ledger.withdrawals(image_ids=[name]) if (one.proof or {}).get("refused")] == [
            line
        ]
        local.eviction.max_bytes, local.eviction._high, local.eviction._low = 1, 1, 1
        local.eviction.trim()
        assert local.cache.complete.exists(name)
    assert assembly.scrubber(local, lambda: None).verify(name) is Verdict.INTACT
    assert (on_disk.rows(name), stuck(local, name)) == (["here"], "intact")


def test_it_is_no_copy_that_stays(on_disk: Cloud, disk: BadDisk) -> None:
    """Of two copies that are left, one cannot be read: the other one is the last, and stays."""
    here, there = on_disk.host("here"), on_disk.host("there")
    name = on_disk.cached(here)
    fill(there, name)
    damage(on_disk, here, name)
    with disk.failing(here.cache.path(name)):
        assert assembly.scrubber(here, lambda: None).verify(name) is Verdict.UNREACHABLE
        passed(here)
        assert on_disk.rows(name) == ["there"]
        there.ledger.request_withdrawal(own(there, name), reason="asked", who="w")
        Janitor(there)._removals(Pass())
        assert there.cache.complete.exists(name)


def test_a_download(on_disk: Cloud, disk: BadDisk) -> None:
    """A client of a copy that cannot be read has every byte from elsewhere; the copy stays and is withheld."""
    local = on_disk.host("here")
    name = on_disk.cached(local)
    with disk.failing(local.cache.path(name)):
        assert read(local, name) == DATA
        assert local.cache.complete.exists(name)
        assert [one.readable for one in local.cache.complete.entries()] == [False]
    assert local.cache.listed("invalid") == []


def test_a_download_of_an_unread_file(on_disk: Cloud, disk: BadDisk) -> None:
    """The same of a file that nobody has read yet; what the sources gave is no proof of it, nor against it."""
    local = on_disk.host("here")
    name = on_disk.image()
    local.cache.path(name).write_bytes(DATA)
    image, before = local.catalogue.active(name), set(threading.enumerate())
    assert image is not None
    copy = local.own_copies.open(image)
    assert copy is not None
    with closing(copy), disk.failing(local.cache.path(name)):
        assert b"".join(unread.whole(Serving.of(local), local.fill_setup.plan(image), copy, goes_on=True)) == DATA
    assert not [one for one in threading.enumerate() if one.name == "replica-report" and one not in before]
    [entry] = local.cache.complete.entries()
    assert (entry.verified, entry.readable) == (False, False)
    assert local.cache.listed("invalid") == []
    assert assembly.scrubber(local, lambda: None).verify(name) is Verdict.INTACT
    assert on_disk.rows(name) == ["here"]


# What a user who may read the directory and not one of its files finds; run as that user.
_SCRIPT = """
import json, pickle, sys
from pathlib import Path
from glance_replicas import settings
from glance_replicas.janitor.passes import Janitor
from glance_replicas.host.local_host import LocalHost
from glance_replicas.model import Pass
from glance_replicas.janitor import assembly

settings.load([sys.argv[2]])
local = LocalHost.assemble(pickle.loads(Path(sys.argv[1]).read_bytes()))
scrubber, done = assembly.scrubber(local, lambda: None), Pass()
found = {one: str(scrubber.verify(one)) for one in sys.argv[3:]}
scrubber.adopt(), scrubber.again(), scrubber.oldest()
Janitor(local)._removals(done)
assembly.reconciler(local).reconcile(done)
local.eviction.trim()
print(json.dumps([found, done.problems, [one.image_id for one in local.cache.complete.entries()]]))
"""


def test_a_file_of_another_user(tmp_path: Path, loaded: Settings, faulty: FaultyServer) -> None:  # noqa: F811
    """EACCES, as a user of its own: denied, not corrupt; one such file stops no scrub, removal, reconciliation or
    eviction of the others; the last copy keeps its file and its row. With its mode back it is served again."""
    with server_folder("unreadable") as folder, closing(Cloud(folder, loaded, faulty)) as cloud:
        local = cloud.host("here")
        shut, last, asked, good = (cloud.cached(local) for _ in range(4))
        damage(cloud, local, last)
        for one in (last, asked):
            local.ledger.request_withdrawal(own(local, one), reason="asked", who="w")
        config = cloud.site.add_host("127.0.0.2", start=False).config_file
        for path in (folder, *folder.rglob("*")):
            os.chown(path, GLANCE, GLANCE)
        for one in (shut, last):
            os.chown(local.cache.path(one), 0, 0)
        (folder / "settings").write_bytes(pickle.dumps(replace(local.settings, max_bytes=1)))
        command = [*as_user(GLANCE, folder), sys.executable, "-W", "ignore", "-c", _SCRIPT]
        command += [folder / "settings", config, shut, last, asked, good]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr[-3000:]
        found, problems, left = json.loads(done.stdout)
        assert found == {shut: "denied", last: "denied", asked: "intact", good: "intact"}
        assert any("chown" in one for one in problems), problems
        assert set(left) == {shut, last}, "what could be read went, as asked and for want of room"
        assert (cloud.rows(shut), cloud.rows(last)) == ([], ["here"])
        os.chown(local.cache.path(shut), GLANCE, GLANCE)
        assert passed(local).registered == 1
        assert cloud.rows(shut) == ["here"]
