"""Hosts that read their own files when they are asked to, and what happens when they do not answer."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.glance.site import GlanceHost, GlanceSite
from support.programs import Desk, Programs
from support.worlds.scenes import new_image, settle

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema.tables import verify_requests
from glance_replicas.ledger.verify_requests import VerifyRequest, VerifyRequests

pytest_plugins = ["support.desk"]

IMAGE = "11111111-2222-4333-8444-555555555555"
SIZE = 300_000


def test_a_request_stands_until_it_is_ended(database_url: str) -> None:
    """Asked twice it is one request; silence is counted from the asking or the last sign of reading."""
    ledger = Ledger(database_url)
    ledger.upgrade()
    made = VerifyRequests(ledger.database)
    asked_at = made.ask(IMAGE, "api1", who="ann", rate=5)
    assert made.ask(IMAGE, "api1", who="bob") >= asked_at
    assert made.due("api1") == [VerifyRequest(IMAGE, 5)]
    assert made.due("api2") == []
    ledger.database.change(verify_requests.update().values(requested_at=asked_at.replace(year=2020)))
    assert (made.silence(IMAGE, "api1") or 0) > 86400
    made.renew(IMAGE, "api1")
    assert (made.silence(IMAGE, "api1") or 0) < 60
    made.end(IMAGE, "api1")
    assert made.silence(IMAGE, "api1") is None
    ledger.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """A host with a janitor."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as site:
        made = site.add_host("127.0.0.2", processes=1, options={"replicas": {"janitor_interval_seconds": "1"}})
        site.wait_known()
        yield made


def cached(host: GlanceHost) -> tuple[str, Path]:
    """A new image that the host has a registered copy of, and its file there."""
    image, data = new_image(host, SIZE)
    assert host.client().download(image).content == data
    settle(lambda: len(host.site.locations(image)) == 2)
    return image, host.cache_dir / image


def test_a_host_reads_its_own_file(host: GlanceHost, programs: Programs) -> None:
    """The verdict is the host's, of every byte, and is recorded once; nothing was read over the network."""
    image, _ = cached(host)
    desk = Desk(host.site, host, programs)
    (row,) = desk.run("verify", image, "--host", host.name, "-f", "json").rows
    assert (row["Verdict"], row["Evidence"]) == ("intact", "full")
    assert row["Detail"] == f"read by host {host.name} itself: sha512 and {SIZE} bytes as expected"
    kept = "SELECT detail FROM replica_checks WHERE image_id = :image AND host IS NOT NULL ORDER BY id DESC"
    found = [one["detail"] for one in host.site.ledger_rows(kept, image=image)]
    assert [one for one in found if one.startswith("read by")] == found[:1]
    assert f"/replicas/{image}" not in host.log()
    assert host.site.ledger_rows("SELECT image_id FROM replica_looks") == []


def test_a_host_finds_what_its_disk_did(host: GlanceHost, programs: Programs) -> None:
    """One byte flipped under the same size and time (case 41): corrupt, and the host has taken the copy out."""
    image, path = cached(host)
    facts = path.stat()
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        byte = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(facts.st_mode & 0o777)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    desk = Desk(host.site, host, programs)
    done = desk.run("verify", image, "--host", host.name)
    assert done.status == 1
    assert "the host has withdrawn the copy and set the file aside" in done.out
    assert len(host.site.locations(image)) == 1


def test_read_over_the_network_on_demand(host: GlanceHost, programs: Programs) -> None:
    """With --remote-reads the host is not asked."""
    image, _ = cached(host)
    desk = Desk(host.site, host, programs)
    (row,) = desk.run("verify", image, "--host", host.name, "--remote-reads", "-f", "json").rows
    assert (row["Verdict"], row["Detail"]) == ("intact", f"sha512 and {SIZE} bytes as expected")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[GlanceHost, GlanceHost, str]]:
    """A host whose janitor is off by now, one that is stopped, both fresh in the ledger; an image that both have."""
    options = {"replicas": {"janitor_interval_seconds": "1"}}
    with GlanceSite(tmp_path / "site") as site:
        idle, stopped = (site.add_host(one, processes=1, options=options) for one in ("127.0.0.2", "127.0.0.3"))
        site.wait_known()
        image, _ = cached(idle)
        stopped.client().download(image)
        settle(lambda: len(site.locations(image)) == 3)
        idle.stop()
        idle.configure({"replicas": {"janitor": "false"}})
        idle.start()
        processes = [stopped.process.pid, *stopped.pids()]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        yield idle, stopped, image
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def test_hosts_that_only_seem_alive(silent: tuple[GlanceHost, GlanceHost, str], programs: Programs) -> None:
    """Neither answers for half a minute: one is then read over the network, of the other it is said that it stalls.

    Nothing is called damaged, the status is 3, no request is left; once the host goes on it answers for itself.
    """
    idle, stopped, image = silent
    desk, began = Desk(idle.site, idle, programs), time.monotonic()
    done = desk.run("verify", image, "-f", "json")
    assert 30 < time.monotonic() - began < 75
    rows = {row["Host"] or "store": (row["Verdict"], row["Detail"]) for row in done.rows}
    assert done.status == 3, done.out + done.err
    assert rows[idle.name] == ("intact", f"sha512 and {SIZE} bytes as expected")
    assert rows["store"][0] == "intact"
    assert rows[stopped.name][0] in ("stalled", "unreachable")
    assert "(3 tries)" in rows[stopped.name][1]
    assert idle.site.ledger_rows("SELECT image_id FROM replica_looks") == []
    assert len(idle.site.locations(image)) == 3
    for pid in [stopped.process.pid, *stopped.pids()]:
        os.kill(pid, signal.SIGCONT)
    (row,) = desk.run("verify", image, "--host", stopped.name, "-f", "json").rows
    assert (row["Verdict"], row["Detail"].partition(":")[0]) == ("intact", f"read by host {stopped.name} itself")
