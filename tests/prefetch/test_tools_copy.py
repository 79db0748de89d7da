"""Copies asked for from elsewhere, by command line and by the API, on two real hosts."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from services import environment
from services.glance.site import GlanceClient, GlanceHost
from services.web.faulty import FaultyServer
from support.programs import Done, Programs
from support.worlds.cached import entry_of, rot
from support.worlds.scenes import new_image, settle

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.location import replica_url

pytest_plugins = ["support.desk"]

MIB = 1 << 20
SIZE = 2 * MIB + 5
ABSENT = "11111111-2222-4333-8444-555555555555"
Run = Callable[..., Done]


@pytest.fixture
def near(two_hosts: tuple[GlanceHost, GlanceHost]) -> GlanceHost:
    """The host that is asked, api1 in zone-2."""
    return two_hosts[0]


@pytest.fixture
def far(two_hosts: tuple[GlanceHost, GlanceHost]) -> GlanceHost:
    """The host that is to have the copy, api2 in zone-3."""
    return two_hosts[1]


@pytest.fixture
def run(near: GlanceHost, programs: Programs) -> Run:
    """`replica WORDS` on the near host."""
    return lambda *words: programs.run("--config-file", near.config_file, *words)


def has(host: GlanceHost, image_id: str, data: bytes) -> bool:
    """The host has file and row."""
    path = host.cache_dir / image_id
    return path.exists() and path.read_bytes() == data and has_row(host, image_id)


def has_row(host: GlanceHost, image_id: str) -> bool:
    return replica_url(host.url, image_id) in [row["url"] for row in host.site.locations(image_id)]


def order(client: GlanceClient, method: str, image_id: str, host: str, **more: Any) -> Any:
    """The answer to an order about a host's copy."""
    return client.request(method, f"/v2/images/{image_id}/replicas/{host}", **more)


def begun(near: GlanceHost, *words: object) -> "subprocess.Popen[str]":
    """`replica WORDS`, left running."""
    command = [Path(sys.prefix) / "bin" / "replica", "--config-file", near.config_file, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def states(run: Run, image_id: str) -> list[str]:
    return [row["State"] for row in run("copy", "list", image_id, "-f", "json").rows]


def test_another_host_fetches(run: Run, near: GlanceHost, far: GlanceHost) -> None:
    """With --wait the command ends when the other host has the image, registered; nothing of it came through here."""
    image_id, data = new_image(near, SIZE)
    done = run("copy", image_id, "--to", far.name, "--wait", "-f", "json")
    (row,) = done.rows
    assert done.status == 0
    names = ("Image", "Host", "State", "Done", "Bytes", "Size", "Priority", "Pin")
    assert [row[name] for name in names] == [image_id, far.name, "done", 1.0, SIZE, SIZE, "normal", "no"]
    assert has(far, image_id, data)
    assert not (near.cache_dir / image_id).exists()


def test_asked_and_left(run: Run, near: GlanceHost, far: GlanceHost) -> None:
    """Without --wait it says how to see what becomes of it; every host of a zone, or of all, is asked."""
    image_id, data = new_image(near, SIZE, name="left")
    done = run("copy", "--name", "left", "--zone", far.zone)
    assert done.status == 0
    assert f"replica copy list {image_id}" in done.out
    settle(lambda: states(run, image_id) == ["done"], 30)
    done = run("copy", image_id, "--all", "--wait", "-f", "json")
    assert sorted(row["Host"] for row in done.rows) == [near.name, far.name]
    assert has(near, image_id, data)
    assert has(far, image_id, data)


def test_refused(run: Run, near: GlanceHost, far: GlanceHost) -> None:
    """Unknown hosts and zones, images that are not active or not there, nothing named: said, and nothing asked for."""
    image_id, _ = new_image(near, SIZE)
    queued = near.client().create("queued")["id"]
    closed, _ = new_image(near, SIZE)
    near.client().deactivate(closed)
    cases = {
        f"host nowhere is not known; nothing was asked for. Living hosts: {near.name}, {far.name}": (
            *(image_id, "--to", far.name, "nowhere"),
        ),
        f"no living host in zone moon; zones: {near.zone}, {far.zone}": (image_id, "--zone", "moon"),
        "its status is queued": (image_id, queued, "--all"),
        "its status is deactivated": (image_id, closed, "--all"),
        "there is no such image": (image_id, ABSENT, "--all"),
        "nothing named": ("--all",),
        "one of the arguments --to --zone --all is required": (image_id,),
    }
    for text, words in cases.items():
        done = run("copy", *words)
        assert (done.status, text in done.err) == (2, True), done.err
    assert states(run, image_id) == []
    nothing = run("copy", "--name", "no such name", "--all")
    assert nothing.status == 3


def test_interrupted_and_cancelled(run: Run, near: GlanceHost, far: GlanceHost, faulty: FaultyServer) -> None:
    """Ctrl-C ends the waiting only and says so; a copy that is cancelled ends, and its bytes go."""
    image_id, _ = new_image(near, SIZE)
    near.site.move_to(faulty, image_id, rate=MIB // 32)
    waiting = begun(near, "copy", image_id, "--to", far.name, "--wait")
    settle(lambda: states(run, image_id) == ["running"], 30)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"the hosts go on; see: replica copy list {image_id}" in err
    assert states(run, image_id) == ["running"]
    cancelled = run("copy", "cancel", image_id, "--host", far.name)
    assert cancelled.out == "1 copy cancelled\n"
    settle(lambda: not (far.partial_dir / image_id).exists(), 30)
    assert states(run, image_id) == ["cancelled"]
    assert run("copy", "cancel").status == 2


def test_what_was_cancelled_is_no_success(run: Run, near: GlanceHost, far: GlanceHost, faulty: FaultyServer) -> None:
    """--wait ends with 3 when a copy did not come to its end."""
    image_id, _ = new_image(near, SIZE)
    near.site.move_to(faulty, image_id, rate=MIB // 32)
    waiting = begun(near, "copy", image_id, "--to", far.name, "--wait", "-f", "value", "-c", "State")
    settle(lambda: states(run, image_id), 30)
    run("copy", "cancel", image_id)
    out, _ = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (3, "cancelled\n")


def test_a_damaged_copy_is_fetched_anew(run: Run, near: GlanceHost, far: GlanceHost) -> None:
    """`replica repair` of a cached copy: its host drops it and fetches it, and what it has then is read in full."""
    image_id, data = new_image(near, SIZE)
    assert run("copy", image_id, "--to", far.name, "--wait").status == 0
    path = far.cache_dir / image_id
    rot(path, 0, data[::-1])
    done = run("repair", image_id, "--host", far.name, "--yes", "--wait", "-f", "json")
    (row,) = done.rows
    assert (done.status, row["Action"], row["Before"], row["After"]) == (0, "refilled", "corrupt", "intact")
    assert has(far, image_id, data)
    assert not (near.cache_dir / image_id).exists()


def test_pinned(run: Run, near: GlanceHost, far: GlanceHost) -> None:
    """--pin: the pin is in the ledger and on the file when the copy is done."""
    image_id, _ = new_image(near, SIZE)
    assert run("copy", image_id, "--to", far.name, "--pin", "--priority", "high", "--wait").status == 0
    assert entry_of(far.cache_dir / image_id).pinned
    (row,) = run("copy", "list", image_id, "--host", far.name, "--state", "done", "-f", "json").rows
    assert (row["Priority"], row["Pin"]) == ("high", "yes")
    assert [pin["Host"] for pin in run("pin", "list", image_id, "-f", "json").rows] == [far.name]


def test_by_the_api(run: Run, near: GlanceHost, far: GlanceHost) -> None:
    """An admin has another host fetch an image, and drop it again: row and file go."""
    image_id, data = new_image(near, SIZE)
    admin = near.client()
    answer = order(admin, "POST", image_id, far.name, json={"priority": "high", "pin": True})
    value = answer.json()
    assert answer.status_code == 202
    assert (value["image_id"], value["host"], value["priority"], value["pin"]) == (image_id, far.name, "high", True)
    settle(lambda: has(far, image_id, data), 30)
    settle(lambda: states(run, image_id) == ["done"], 30)
    answer = order(admin, "DELETE", image_id, far.name)
    assert (answer.status_code, answer.json()["cancelled"]) == (202, 0)
    settle(lambda: not (far.cache_dir / image_id).exists(), 30)
    assert not has_row(far, image_id)
    assert order(admin, "POST", image_id, far.name).json()["priority"] == "normal"


def test_a_file_without_a_row_is_removed(near: GlanceHost, far: GlanceHost) -> None:
    """DELETE removes what the host has, registered or not."""
    image_id, data = new_image(near, SIZE)
    assert far.client().download(image_id).content == data
    settle(lambda: has(far, image_id, data))
    Catalogue(near.site.database_url).withdraw_url(image_id, replica_url(far.url, image_id))
    assert order(near.client(), "DELETE", image_id, far.name).status_code == 202
    settle(lambda: not (far.cache_dir / image_id).exists(), 30)
    assert not has_row(far, image_id)


def test_copy_is_ended_by_the_api(run: Run, near: GlanceHost, far: GlanceHost, faulty: FaultyServer) -> None:
    """DELETE of a copy that is under way ends it; it does not come after all."""
    image_id, _ = new_image(near, SIZE)
    near.site.move_to(faulty, image_id, rate=MIB // 32)
    order(near.client(), "POST", image_id, far.name)
    settle((far.partial_dir / image_id).exists, 30)
    assert order(near.client(), "DELETE", image_id, far.name).json()["cancelled"] == 1
    settle(lambda: not (far.partial_dir / image_id).exists(), 30)
    assert states(run, image_id) == ["cancelled"]
    assert not (far.cache_dir / image_id).exists()


def test_refused_by_the_api(near: GlanceHost, far: GlanceHost) -> None:
    """Glance's cache policies decide; what is not there, not active or not understood is said; nothing is asked for."""
    image_id, _ = new_image(near, SIZE)
    closed, _ = new_image(near, SIZE)
    admin, member = near.client(), near.client("p1", ("member", "reader"), "u2")
    admin.deactivate(closed)
    stranger = near.client("p2", ("member", "reader"), "u3")
    cases = [
        (member, "POST", image_id, far.name, {}, 403),
        (member, "DELETE", image_id, far.name, {}, 403),
        (stranger, "POST", image_id, far.name, {}, 404),
        (admin, "POST", image_id, "nowhere", {}, 404),
        (admin, "DELETE", image_id, "nowhere", {}, 404),
        (admin, "POST", ABSENT, far.name, {}, 404),
        (admin, "POST", "no-uuid", far.name, {}, 404),
        (admin, "POST", closed, far.name, {}, 409),
        (admin, "POST", image_id, far.name, {"data": b"[]"}, 400),
        (admin, "POST", image_id, far.name, {"json": {"priority": "highest"}}, 400),
        (admin, "POST", image_id, far.name, {"json": {"pin": 1}}, 400),
        (admin, "POST", image_id, far.name, {"json": {"speed": 1}}, 400),
        (admin, "POST", image_id, far.name, {"data": b"{" * 5000}, 413),
        (admin, "POST", image_id, far.name, {"data": iter([b'{"priority": "high"}'])}, 411),
        (admin, "DELETE", image_id, far.name, {"params": b"force=%ff"}, 400),
        (admin, "GET", image_id, far.name, {}, 405),
    ]
    found = [order(client, method, image, host, **more).status_code for client, method, image, host, more, _ in cases]
    assert found == [status for *_, status in cases]
    assert "nowhere" in order(admin, "POST", image_id, "nowhere").text
    assert near.site.ledger_rows("SELECT * FROM replica_copies WHERE image_id = :id", id=image_id) == []
