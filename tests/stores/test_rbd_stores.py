"""A real Glance on a real Ceph: our cache before it, our tools beside it, and a cluster that does not answer."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from glance_store._drivers import rbd
from services import environment
from services.glance.client import OCTETS
from services.glance.site import GlanceSite
from services.stores.ceph import Ceph
from support.programs import Desk, Programs
from support.worlds.scenes import fails, new_bytes, settle

pytest_plugins = ["support.desk"]

SIZE = 5_000_000  # five objects of a megabyte
STALL = 1  # seconds


@pytest.fixture(scope="module")
def desk(ceph: Ceph, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A host with our filters and three stores: `fast` is RBD, `disk` a folder, `web` for the hosts."""
    folder = tmp_path_factory.mktemp("rbd")
    options: dict[str, dict[str, str | list[str]]] = {
        "DEFAULT": {"enabled_backends": "fast:rbd, disk:file, web:http"},
        "disk": {"filesystem_store_datadir": str(folder / "site" / "store")},
        "fast": {"rados_connect_timeout": str(STALL)},  # without it, Glance itself waits for ever
        "replicas": {"stall_timeout_seconds": str(STALL)},
    }
    with GlanceSite(folder / "site", store="rbd", ceph=ceph, options=options) as site:
        yield Desk(site, site.add_host(), programs)


def new_image(desk: Desk, store: str = "fast") -> tuple[str, bytes]:
    """An image in this store: its id, and its bytes."""
    data, client = new_bytes(SIZE), desk.host.client()
    image_id = str(client.create()["id"])
    headers = OCTETS | {"X-Image-Meta-Store": store}
    client.request("PUT", f"/v2/images/{image_id}/file", data=data, headers=headers, ok=True)
    return image_id, data


def rows(desk: Desk, *words: object) -> list[dict[str, Any]]:
    return list(desk.run(*words, "-f", "json").rows)


def damage(ceph: Ceph, image_id: str) -> None:
    """A byte in the middle of the image is another one, for its snapshot as well."""
    with ceph.pool_of(ceph.pool) as pool:
        with rbd.rbd.Image(pool, image_id, read_only=True) as image:
            name = f"{image.stat()['block_name_prefix']}.{2:016x}"
        [old] = pool.read(name, 1, 700)
        pool.write(name, bytes([old ^ 0xFF]), 700)


@contextlib.contextmanager
def frozen(ceph: Ceph, *daemons: str) -> Iterator[None]:
    """They say nothing meanwhile."""
    ceph.freeze(*daemons)
    try:
        yield
    finally:
        ceph.thaw()


def test_a_download_fills_the_cache_from_rbd(desk: Desk, ceph: Ceph) -> None:
    """The first reader gets RBD's bytes, the copy is registered, and what comes next does not need the cluster."""
    image_id, data = new_image(desk)
    assert desk.urls(image_id) == [f"rbd://{ceph.fsid}/{ceph.pool}/{image_id}/snap"]
    assert desk.host.client().download(image_id).content == data
    settle(lambda: len(desk.urls(image_id)) == 2)
    with frozen(ceph, "mon", "osd"):
        assert desk.host.client().download(image_id, {"Range": "bytes=4999990-"}).content == data[-10:]


def test_both_copies_are_listed_and_intact(desk: Desk) -> None:
    """`replica list` and `replica verify` know the store, the host, and every byte."""
    image_id, _ = new_image(desk)
    desk.host.client().download(image_id)
    settle(lambda: len(desk.urls(image_id)) == 2)
    done = desk.run("verify", image_id)
    assert (done.status, done.err) == (0, "")
    assert "2 locations verified: 2 intact" in done.out
    assert {row["Kind"] for row in rows(desk, "list", image_id)} == {"rbd", "cached"}
    found = rows(desk, "verify", image_id, "--evidence", "size")
    assert [(row["Verdict"], row["Evidence"]) for row in found] == [("intact", "size")] * 2


def test_damage_is_found_and_not_delivered(desk: Desk, ceph: Ceph) -> None:
    """A flipped byte in one object: exit 1 and `corrupt`; no client gets the last byte, and no copy is made."""
    image_id, _ = new_image(desk)
    damage(ceph, image_id)
    done = desk.run("verify", image_id)
    assert done.status == 1
    assert f"image {image_id} (image): corrupt in store fast at rbd://{ceph.fsid}/" in done.out
    assert fails(desk.host, image_id)
    assert len(desk.urls(image_id)) == 1


def test_each_copy_is_read_from_its_own_store(desk: Desk, ceph: Ceph) -> None:
    """Copies of one image in RBD and in a folder are told apart: the bad one is named, the image still downloads."""
    image_id, data = new_image(desk)
    path = desk.add_file(image_id, data)
    desk.site.rows('UPDATE image_locations SET meta_data = \'{"store": "disk"}\' WHERE value LIKE :url', url=f"%{path}")
    damage(ceph, image_id)
    found = {row["Store"]: row["Verdict"] for row in rows(desk, "verify", image_id)}
    assert found == {"fast": "corrupt", "disk": "intact"}
    other, _ = new_image(desk, "disk")
    assert [row["Verdict"] for row in rows(desk, "verify", other)] == ["intact"]


def test_a_cluster_without_its_monitor_is_stalled(desk: Desk, ceph: Ceph) -> None:
    """Nothing is known of the image, and all of it again when the monitor is back."""
    image_id, _ = new_image(desk)
    with frozen(ceph, "mon"):
        done = desk.run("verify", image_id)
    assert (done.status, "1 stalled" in done.out) == (3, True), done.out
    assert desk.run("verify", image_id).status == 0


def test_a_cluster_that_hangs_holds_up_no_command(desk: Desk, ceph: Ceph) -> None:
    """The program as an operator starts it ends by itself, with threads in librados or not."""
    image_id, _ = new_image(desk)
    command = [Path(sys.executable).with_name("replica"), "--config-file", desk.host.config_file, "verify", image_id]
    with frozen(ceph, "osd"):
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, "1 stalled" in done.stdout) == (3, True), done.stdout + done.stderr


def test_a_cluster_that_hangs_holds_up_no_download(desk: Desk, ceph: Ceph) -> None:
    """The client has its answer, a failure, when the limit is over; the next one has its bytes."""
    image_id, data = new_image(desk)
    with frozen(ceph, "osd"):
        assert fails(desk.host, image_id)
    assert desk.host.client().download(image_id).content == data
