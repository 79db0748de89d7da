"""RBD on a real Ceph: what the driver alone would get wrong, or wait for."""

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from glance_store._drivers import rbd
from oslo_config import cfg
from services.configuration import conf_text
from services.stores.ceph import Ceph
from support.places.readers import DATA, Place, load, rbd_place, read
from support.worlds.scenes import begun_since, settle

from glance_replicas.errors import Absent, Denied, SourceError, Stalled, Unreachable
from glance_replicas.model import Location
from glance_replicas.stores.body import Limits
from glance_replicas.stores.drivers import loading
from glance_replicas.stores.drivers import reader as driver_reader
from glance_replicas.stores.sources import Sources

HUGE = 1 << 40  # bytes; nothing of it is written


@pytest.fixture
def place(ceph: Ceph, tmp_path: Path) -> Place:
    return rbd_place(ceph, tmp_path)


def sources(ceph: Ceph, folder: Path, **options: str) -> Sources:
    """Those of a single-store configuration."""
    driver = ceph.store_options() | options
    return load(folder, conf_text({"glance_store": {"stores": "rbd", "default_store": "rbd", **driver}}))


def error_of(call: Callable[[], Any]) -> type[SourceError]:
    with pytest.raises(SourceError) as caught:
        call()
    return type(caught.value)


def test_another_cluster_does_not_know(place: Place, ceph: Ceph) -> None:
    """An image that is not found, in a cluster that the URL does not name, is not known to be absent."""
    elsewhere = place.absent.replace(ceph.fsid, str(uuid.uuid4()))
    assert error_of(lambda: place.size(place.absent)) is Absent
    assert error_of(lambda: place.size(elsewhere)) is Unreachable
    assert error_of(lambda: place.open(elsewhere)) is Unreachable


def test_a_mirror_is_read(place: Place, ceph: Ceph) -> None:
    """What is found there is the image, whatever cluster its URL was written for."""
    url = place.put(DATA).replace(ceph.fsid, str(uuid.uuid4()))
    assert read(place.open(url)) == DATA


def test_an_image_without_its_snapshot_is_absent(place: Place, ceph: Ceph) -> None:
    """The URL names the snapshot: the image may have changed since."""
    assert error_of(lambda: place.open(place.put(DATA).replace("/snap", "/other"))) is Absent


def test_a_single_store(ceph: Ceph, tmp_path: Path, place: Place) -> None:
    """The old way to configure a store, and URLs of an image alone, as old catalogues have them."""
    url = place.put(DATA)
    found = sources(ceph, tmp_path)
    assert read(found.open(Location("x", url), 5)) == DATA[5:]
    assert error_of(lambda: found.size(Location("x", f"rbd://{uuid.uuid4()}"))) is Absent


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"rbd_store_ceph_conf": "/nowhere/ceph.conf"}, Unreachable),
        ({"rbd_store_user": "nobody"}, Unreachable),  # has no keyring
        ({"rbd_store_user": "forger"}, Denied),
    ],
)
def test_a_cluster_that_cannot_be_asked(
    ceph: Ceph, tmp_path: Path, place: Place, options: dict[str, str], kind: type[SourceError]
) -> None:
    """Neither a file that is not there nor a key that is not taken says anything of an image."""
    key = ceph.keyring(ceph.user).read_text().replace(f"client.{ceph.user}", "client.forger")
    ceph.keyring("forger").write_text(key)
    found = sources(ceph, tmp_path, **options)
    assert error_of(lambda: found.size(Location("x", place.absent))) is kind
    assert error_of(lambda: found.open(Location("x", place.absent))) is kind


def test_an_offset_costs_nothing(place: Place, ceph: Ceph) -> None:
    """The last bytes of a terabyte come at once: what is before them is not read."""
    name = str(uuid.uuid4())
    with ceph.pool_of(ceph.pool) as pool:
        rbd.rbd.RBD().create(pool, name, HUGE, old_format=False, features=1)
        with rbd.rbd.Image(pool, name) as image:
            image.write(b"the end", HUGE - 7)
            image.create_snap("snap")
    url = f"rbd://{ceph.fsid}/{ceph.pool}/{name}/snap"
    assert place.size(url) == HUGE
    assert read(place.open(url, HUGE - 7)) == b"the end"


def test_no_thread_stays_with_a_cluster_that_hangs(place: Place, ceph: Ceph) -> None:
    """A call that was left behind ends by itself, although the OSD stays silent, and its connection with it."""
    one = place.location(place.put(DATA))
    reader = driver_reader.Reader(cfg.CONF, [("block", "rbd")], limits=Limits(stall=0.5))
    reader.size(one)
    before = threading.enumerate()
    ceph.freeze("osd")
    try:
        for _ in range(3):
            assert error_of(lambda: reader.open(one)) is Stalled
        settle(lambda: not begun_since(before))
    finally:
        ceph.thaw()
    assert read(reader.open(one)) == DATA


def test_the_time_that_the_store_is_given_counts(ceph: Ceph, tmp_path: Path, place: Place) -> None:
    """`rados_connect_timeout` ends a call before our own limit does."""
    one = Location("x", place.put(DATA))
    found = sources(ceph, tmp_path, rados_connect_timeout="1")
    ceph.freeze("mon", "osd")
    try:
        began = time.monotonic()
        assert error_of(lambda: found.size(one)) is Stalled
        assert time.monotonic() - began < 10
    finally:
        ceph.thaw()


def test_glance_can_write_with_the_driver_it_has(ceph: Ceph) -> None:
    """What is read with is a class of its own: that of glance_store is left as it was."""
    made = loading.installed(cfg.CONF, None, "rbd", seconds=1)
    assert isinstance(made, rbd.Store)
    assert type(made) is not rbd.Store
