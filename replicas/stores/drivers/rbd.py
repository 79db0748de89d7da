"""glance_store's RBD driver, with what it leaves out: limits, offsets, and whether it was the cluster that was meant.

Seen on Ceph 16.2 with glance_store 5.7.0: librados waits for ever for an OSD that does not answer, and 300 s for a
monitor; the driver ignores the cluster that a URL names, so that the images of another one are "not found" in this.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from ..contract import Kind

TIMEOUTS = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")


class Rbd(Kind):
    """RBD stores as a kind: glance_store's driver reads them, within limits."""

    schemes = ("rbd",)
    cost = 1

    def bounded(self, driver: Any, seconds: float) -> Callable[..., Any]:
        """A call into librados lasts `seconds` at most."""
        from glance_store import capabilities

        can = driver._CAPABILITIES | capabilities.BitMasks.READ_OFFSET
        # __module__: where glance_store looks for the class of locations
        more = {"seconds": seconds, "__module__": driver.__module__}
        return type("Store", (_Bounded, driver), {"_CAPABILITIES": can, **more})


class _Bounded:
    """Every call into librados ends in time, a read begins where it is told to, and a size of 0 is one."""

    conf_file: str
    user: str
    pool: str
    READ_CHUNKSIZE: int  # bytes
    store_conf: Any
    seconds: float
    knows_empty = True

    def _set_url_prefix(self) -> None:
        """Nothing: what is only read needs none, and the driver would connect for it."""

    @contextlib.contextmanager
    def get_connection(self, conffile: str, rados_id: str) -> Iterator[Any]:
        """As the driver's, but errors come as librados raises them."""
        from glance_store._drivers import rbd as its

        cluster = its.rados.Rados(conffile=conffile, rados_id=rados_id)
        own = self.store_conf.rados_connect_timeout
        for name in TIMEOUTS:
            cluster.conf_set(name, str(own if own > 0 else math.ceil(self.seconds)))
        cluster.connect()
        try:
            yield cluster
        finally:
            cluster.shutdown()

    def get_size(self, location: Any, context: Any = None) -> int:
        """The length of the snapshot in bytes."""
        with self._image(location.store_location) as image:
            return int(image.size())

    def get(self, location: Any, offset: int = 0, chunk_size: Any = None, context: Any = None) -> tuple[Any, int]:
        """The bytes from `offset` on, over one connection, and the length of the whole."""
        pieces = self._read(location.store_location, offset)
        return pieces, next(pieces)

    def _read(self, place: Any, offset: int) -> Iterator[Any]:
        """First the size, then the bytes."""
        with self._image(place) as image:
            size = image.size()
            yield size
            while offset < size and (piece := image.read(offset, min(self.READ_CHUNKSIZE, size - offset))):
                offset += len(piece)
                yield piece

    @contextlib.contextmanager
    def _image(self, place: Any) -> Iterator[Any]:
        """An rbd.Image. "Not found" is this cluster's word on itself; a pool that is gone says nothing of images."""
        from glance_store import exceptions
        from glance_store._drivers import rbd as its

        with self.get_connection(self.conf_file, self.user) as cluster, contextlib.ExitStack() as opened:
            pool = opened.enter_context(cluster.open_ioctx(place.pool or self.pool))
            try:
                image = its.rbd.Image(pool, place.image, snapshot=place.snapshot, read_only=True)
            except its.rbd.ImageNotFound as error:
                if place.fsid not in (None, cluster.get_fsid()):
                    raise exceptions.RemoteServiceUnavailable from error
                raise exceptions.NotFound(image=place.image) from error
            yield opened.enter_context(image)
