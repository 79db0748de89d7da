"""The Cinder place of the fault matrix: a volume as glance_store writes it, whose RBD image is then changed."""

import io
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from glance_store._drivers import cinder as driver_of_cinder
from glance_store._drivers import rbd
from oslo_config import cfg
from services.configuration import conf_text
from services.stores.cinder import Cinder
from services.web.proxy import FaultyProxy

from glance_replicas.model import Location
from glance_replicas.stores.body import Limits
from glance_replicas.stores.drivers import loading
from glance_replicas.stores.drivers import reader as driver_reader
from glance_replicas.stores.sources import Sources
from support.places.matrix import DATA, HASTY, Backend, Own, location, sources_of
from support.places.readers import load
from support.worlds.scenes import settle

REGION = "Faulty"  # where Keystone's catalogue names the proxy
LIMIT = "conf_rbd_qos_read_bps_limit"
DRIP = "10000"  # bytes per second: it takes five to read all
SOME = Limits(stall=2)  # a volume is attached within these


class Volumes:
    """Two cinder stores, one with a password that is not taken, and one volume in the other."""

    def __init__(self, folder: Path, cinder: Cinder) -> None:
        self.cinder = cinder
        options = cinder.store_options() | {"cinder_os_region_name": REGION}
        withdrawn = options | {"cinder_store_password": "changed"}
        stores = {"volumes": options, "withdrawn": withdrawn}
        enabled = {"enabled_backends": "volumes:cinder, withdrawn:cinder, web:http"}
        self.patient = load(folder, conf_text({"DEFAULT": enabled, **stores, **cinder.host_options()}))
        self.hasty = sources_of(folder, HASTY)
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # privsep leaves its helper's log open
            self.url = self._put(DATA)
        self.id = self.url.rpartition("/")[2]

    def _put(self, content: bytes) -> str:
        driver = driver_of_cinder.Store(cfg.CONF, "volumes")
        driver.configure(re_raise_bsc=True)
        context = SimpleNamespace(project_id="owner", user_id="user")
        return str(driver.add(str(uuid.uuid4()), io.BytesIO(content), len(content), "sha512", context=context)[0])

    @contextmanager
    def image(self) -> Iterator[Any]:
        """The RBD image of the volume."""
        name = self.cinder.image_of(self.id)
        with self.cinder.ceph.pool_of(self.cinder.pool) as pool, rbd.rbd.Image(pool, name) as image:
            yield image

    def hold(self, content: bytes | None) -> Location:
        """The volume holds this, or is another one that is not there."""
        if content is None:
            return location(self.url.replace(self.id, str(uuid.uuid4())), "volumes")
        with self.image() as image:
            image.write(content.ljust(2 * len(DATA), b"\0"), 0)
        size = {"metadata": {"image_size": str(len(content))}}
        assert self.cinder.request("POST", f"/volumes/{self.id}/metadata", size)[0] == 200
        return location(self.url, "volumes")

    def part(self, content: bytes | None) -> Location:
        """The one object of the volume that has bytes is gone, or has others."""
        one = self.hold(DATA)
        with self.image() as image:
            name = f"{image.stat()['block_name_prefix']}.{0:016x}"
        with self.cinder.ceph.pool_of(self.cinder.pool) as pool:
            if content is None:
                pool.remove_object(name)
            else:
                pool.write(name, content, 100)
        return one

    @contextmanager
    def half(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """The OSD says nothing any more once a third of the image was read."""
        hasty = Sources([], driver_reader.Reader(cfg.CONF, [("volumes", "cinder")], self._freezing, SOME))
        try:
            yield replace(backend, hasty=hasty), self.hold(DATA)
        finally:
            self.cinder.ceph.thaw()
            self.detached()

    def detached(self) -> None:
        """Wait until what was left behind has come to its end: a volume is attached once at a time."""
        settle(lambda: self.cinder.request("GET", f"/volumes/{self.id}")[1]["volume"]["status"] == "available")

    def _freezing(self, conf: cfg.ConfigOpts, name: str | None, kind: str) -> Any:
        driver = loading.installed(conf, name, kind, seconds=SOME.stall)
        get, driver.READ_CHUNKSIZE = driver.get, len(DATA) // 3

        def later(pieces: Iterator[bytes]) -> Iterator[bytes]:
            yield next(pieces)
            self.cinder.ceph.freeze("osd")
            yield from pieces

        def half(*args: Any, **more: Any) -> tuple[Iterator[bytes], int]:
            pieces, size = get(*args, **more)
            return later(pieces), size

        driver.get = half
        return driver

    @contextmanager
    def slow(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """The volume may be read at so many bytes a second only."""
        with self.image() as image:
            image.metadata_set(LIMIT, DRIP)
        try:
            hasty = Sources([], driver_reader.Reader(cfg.CONF, [("volumes", "cinder")], limits=SOME))
            yield replace(backend, hasty=hasty), self.hold(DATA)
        finally:
            with self.image() as image:
                image.metadata_remove(LIMIT)
            self.detached()

    @contextmanager
    def withdrawn(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """A password that Keystone does not take any more."""
        yield backend, location(self.hold(DATA).url, "withdrawn")


@contextmanager
def cinder_backend(folder: Path, cinder: Cinder) -> Iterator[Backend]:
    with FaultyProxy(cinder.address, cinder.port) as proxy:
        cinder.keystone.add_endpoint("volumev3", proxy.url + cinder.path, REGION)
        made = Volumes(folder, cinder)
        own: dict[str, Own] = {
            "hang in the middle": made.half,
            "slow drip": made.slow,
            "expired credential": made.withdrawn,
        }
        yield Backend(
            made.hold, made.patient, made.hasty, proxy, lambda _: f"/volumes/{made.id}", part=made.part, own=own
        )
