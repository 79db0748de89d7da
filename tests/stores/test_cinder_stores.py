"""A real Glance whose images are volumes of a real Cinder: our cache before it, our tools beside it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from glance_store._drivers import rbd
from services import environment
from services.glance.site import GlanceSite
from services.stores.cinder import Cinder
from support.programs import Desk, Programs
from support.worlds.scenes import fails, new_image, settle

pytest_plugins = ["support.desk"]

SIZE = 5_000_000


@pytest.fixture(scope="module")
def desk(cinder: Cinder, programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A host with our filters, whose durable store is Cinder."""
    options = {"fast": cinder.store_options(), **cinder.host_options()}
    with GlanceSite(tmp_path_factory.mktemp("cinder-site"), store="cinder", options=options) as site:
        yield Desk(site, site.add_host(processes=1), programs)


def volume(cinder: Cinder, desk: Desk, image_id: str) -> dict[str, Any]:
    """The volume that holds the image."""
    [name] = [url.rpartition("/")[2] for url in desk.urls(image_id) if url.startswith("cinder://fast/")]
    status, found = cinder.request("GET", f"/volumes/{name}")
    assert status == 200
    return dict(found["volume"])


def detached(cinder: Cinder, desk: Desk, image_id: str) -> bool:
    found = volume(cinder, desk, image_id)
    return (found["status"], found["attachments"]) == ("available", [])


def test_an_image_in_a_volume(desk: Desk, cinder: Cinder) -> None:
    """The first download fills the cache from the volume; both copies are intact, and nothing stays attached."""
    image_id, data = new_image(desk.host, SIZE)
    assert desk.host.client().download(image_id).content == data
    settle(lambda: len(desk.urls(image_id)) == 2)
    done = desk.run("verify", image_id)
    assert (done.status, done.err) == (0, ""), done.out
    assert "2 locations verified: 2 intact" in done.out
    assert {row["Kind"] for row in desk.run("list", image_id, "-f", "json").rows} == {"cinder", "cached"}
    assert detached(cinder, desk, image_id)
    assert desk.host.client().download(image_id, {"Range": "bytes=4999990-"}).content == data[-10:]


def test_damage_in_a_volume(desk: Desk, cinder: Cinder) -> None:
    """A flipped byte is found; no client gets the last byte, and no copy is made."""
    image_id, data = new_image(desk.host, SIZE)
    name = cinder.image_of(volume(cinder, desk, image_id)["id"])
    with cinder.ceph.pool_of(cinder.pool) as pool, rbd.rbd.Image(pool, name) as image:
        image.write(bytes([data[SIZE // 2] ^ 0xFF]), SIZE // 2)
    done = desk.run("verify", image_id)
    assert done.status == 1
    assert f"image {image_id} (image): corrupt in store fast at cinder://fast/" in done.out
    assert fails(desk.host, image_id)
    assert len(desk.urls(image_id)) == 1


def test_a_program_detaches_before_it_ends(desk: Desk, cinder: Cinder) -> None:
    """A volume that states another size is not read to its end, and is free again when the program is over."""
    image_id, _ = new_image(desk.host, SIZE)
    path = f"/volumes/{volume(cinder, desk, image_id)['id']}/metadata"
    assert cinder.request("POST", path, {"metadata": {"image_size": str(SIZE + 1)}})[0] == 200
    command = [Path(sys.executable).with_name("replica"), "--config-file", desk.host.config_file, "verify", image_id]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, "1 wrong_size" in done.stdout) == (1, True), done.stdout + done.stderr
    assert detached(cinder, desk, image_id)


@pytest.mark.parametrize("size", [0, 1, 513])
def test_sizes(desk: Desk, cinder: Cinder, size: int) -> None:
    """An image of no bytes, or of an odd number of them, is intact in its volume, by every evidence."""
    image_id, _ = new_image(desk.host, size)
    for evidence in ("full", "size"):
        done = desk.run("verify", image_id, "--evidence", evidence)
        assert (done.status, done.err) == (0, ""), done.out
    assert detached(cinder, desk, image_id)
