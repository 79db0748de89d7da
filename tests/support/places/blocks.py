"""The RBD place of the fault matrix: a real Ceph, and what can go wrong with one instead of answers of HTTP."""

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from glance_store._drivers import rbd
from oslo_config import cfg
from services.configuration import conf_text
from services.stores.ceph import Ceph

from glance_replicas.model import Location
from glance_replicas.stores.drivers import loading
from glance_replicas.stores.drivers import reader as driver_reader
from glance_replicas.stores.sources import Sources
from support.places.matrix import DATA, HASTY, Backend, Own, location, sources_of
from support.places.readers import load

DRIP = "1000"  # bytes per second
DOOMED, STRANGER, WITHDRAWN = "doomed", "stranger", "withdrawn"  # stores, and clients of the same names


class Blocks:
    """RBD stores of one cluster, and images in them as glance_store writes them."""

    def __init__(self, folder: Path, ceph: Ceph) -> None:
        self.ceph, self.folder = ceph, folder
        own = {"block": {}, **{name: {"rbd_store_user": name} for name in (DOOMED, STRANGER, WITHDRAWN)}}
        own[DOOMED]["rbd_store_pool"] = DOOMED
        stores = {name: ceph.store_options() | options for name, options in own.items()}
        enabled = ", ".join(f"{name}:rbd" for name in stores)
        self.patient = load(folder, conf_text({"DEFAULT": {"enabled_backends": f"{enabled}, web:http"}, **stores}))
        self.hasty = sources_of(folder, HASTY)

    def put(self, content: bytes, name: str = "block") -> str:
        """The URL of a new image, written by the driver."""
        driver = rbd.Store(cfg.CONF, name)
        driver.configure(re_raise_bsc=True)
        return str(driver.add(str(uuid.uuid4()), io.BytesIO(content), len(content), "sha512")[0])

    def hold(self, content: bytes | None) -> Location:
        """An image, or where one would be."""
        absent = f"rbd://{self.ceph.fsid}/{self.ceph.pool}/{uuid.uuid4()}/snap"
        return location(absent if content is None else self.put(content), "block")

    def part(self, content: bytes | None) -> Location:
        """An image whose one object holds this, or is gone, behind the back of its snapshot."""
        one = self.hold(DATA)
        with self.ceph.pool_of(self.ceph.pool) as pool:
            with rbd.rbd.Image(pool, one.url.split("/")[-2], read_only=True) as image:
                prefix = image.stat()["block_name_prefix"]
            [name] = [found.key for found in pool.list_objects() if found.key.startswith(prefix)]
            if content is None:
                pool.remove_object(name)
            else:
                pool.write(name, content, 100)
        return one

    def rotten(self) -> Location:
        """An image, with a byte changed on the OSD's disk."""
        one = self.hold(DATA)
        self.ceph.rot(DATA)
        return one

    @contextmanager
    def down(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """Both daemons are gone, and their ports refuse."""
        one = self.hold(DATA)
        self.ceph.close()
        try:
            yield backend, one
        finally:
            self.ceph.start()

    @contextmanager
    def frozen(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """Both take connections and say nothing."""
        one = self.hold(DATA)
        self.ceph.freeze("mon", "osd")
        try:
            yield backend, one
        finally:
            self.ceph.thaw()

    @contextmanager
    def half(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """The OSD says nothing any more once a third of the image was read."""
        hasty = Sources([], driver_reader.Reader(cfg.CONF, [("block", "rbd")], self._freezing, HASTY))
        try:
            yield replace(backend, hasty=hasty), self.hold(DATA)
        finally:
            self.ceph.thaw()

    def _freezing(self, conf: cfg.ConfigOpts, name: str | None, kind: str) -> Any:
        driver = loading.installed(conf, name, kind, seconds=HASTY.stall)
        get = driver.get

        def half(*args: Any, **more: Any) -> tuple[Iterator[bytes], int]:
            driver.READ_CHUNKSIZE = len(DATA) // 3
            pieces, size = get(*args, **more)
            return later(pieces), size

        def later(pieces: Iterator[bytes]) -> Iterator[bytes]:
            yield next(pieces)
            self.ceph.freeze("osd")
            yield from pieces

        driver.get = half
        return driver

    @contextmanager
    def slow(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """The image may be read at so many bytes a second only."""
        one = self.hold(DATA)
        with self.ceph.pool_of(self.ceph.pool) as pool, rbd.rbd.Image(pool, one.url.split("/")[-2]) as image:
            image.metadata_set("conf_rbd_qos_read_bps_limit", DRIP)
        yield backend, one

    @contextmanager
    def gone(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """The pool of the image was there, and is no more."""
        self.ceph.add_pool(DOOMED)
        self.ceph.add_client(DOOMED, DOOMED)
        one = location(self.put(DATA, DOOMED), DOOMED)
        assert backend.patient.size(one) == len(DATA)
        self.ceph.drop_pool(DOOMED)
        yield backend, one

    @contextmanager
    def stranger(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """A client that may use another pool."""
        self.ceph.add_client(STRANGER, "another")
        yield backend, location(self.put(DATA), STRANGER)

    @contextmanager
    def withdrawn(self, backend: Backend) -> Iterator[tuple[Backend, Location]]:
        """A client whose key was good, and is no more."""
        self.ceph.add_client(WITHDRAWN, self.ceph.pool)
        one = location(self.put(DATA), WITHDRAWN)
        assert backend.patient.size(one) == len(DATA)
        self.ceph.drop_client(WITHDRAWN)
        yield backend, one


@contextmanager
def rbd_backend(folder: Path, ceph: Ceph) -> Iterator[Backend]:
    blocks = Blocks(folder, ceph)
    own: dict[str, Own] = {
        "403": blocks.stranger,
        "404 for everything": blocks.gone,
        "reset": blocks.down,
        "hang": blocks.frozen,
        "hang in the middle": blocks.half,
        "slow drip": blocks.slow,
        "expired credential": blocks.withdrawn,
    }
    yield Backend(blocks.hold, blocks.patient, blocks.hasty, part=blocks.part, rot=blocks.rotten, own=own)
