"""Reader of every other kind of URL, through the driver that Glance itself uses (rbd, cinder, vmware, ...).

A driver reads inside this process and knows no limits of ours. Its calls are made in a thread of their own, for which
we wait no longer than for any other source; the thread of a cluster that never answers is left behind.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from oslo_config import cfg

from ...checksum import BLOCK
from ...errors import SourceError, Unreachable, WrongAnswer
from ...location import redact, scheme
from ...model import Location
from .. import kinds
from ..body import Body, Limits
from .failure import asking
from .loading import Drivers, Load
from .waiting import Worker


class Reader:
    """Reads through the drivers of the enabled stores, given as (id or None, name of the driver)."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        stores: Sequence[tuple[str | None, str]],
        load: Load | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._conf, self._limits = conf, limits or Limits()
        self._drivers = Drivers(conf, stores, load, self._limits.stall)
        kind_of = [kinds.load(kind) for _, kind in stores]
        self._opening = {name: kind.opening for kind in kind_of for name in kind.schemes}

    def size(self, location: Location) -> int | None:
        """What the driver says, in bytes; None for 0 of a driver that also says 0 when it does not know."""
        worker = Worker(redact(location.url))
        try:
            return worker.call(lambda: self._size(location), self._patience(location))
        finally:
            worker.close()

    def _patience(self, location: Location) -> float:
        return self._limits.stall * self._opening.get(scheme(location.url), 1)

    def _size(self, location: Location) -> int | None:
        driver, parsed = self._prepare(location)
        return _known(driver, asking(location, lambda: driver.get_size(parsed)))

    def open(self, location: Location, offset: int = 0, _stop: int | None = None) -> Body:
        """The bytes from `offset` on; a driver that cannot start there reads from 0 and the beginning is dropped."""
        worker = Worker(redact(location.url))
        try:
            return worker.call(lambda: self._open(location, offset, worker), self._patience(location))
        except SourceError:
            worker.close()
            raise

    def _open(self, location: Location, offset: int, worker: Worker) -> Body:
        from glance_store import capabilities

        driver, parsed = self._prepare(location)
        skip = 0 if driver.is_capable(capabilities.BitMasks.READ_OFFSET) else offset
        data, size = asking(location, lambda: driver.get(parsed, offset=offset - skip))
        known, pieces = _known(driver, size), iter(data)
        close = partial(_close, data, pieces)
        if known is not None and known < offset:
            close()
            raise WrongAnswer(f"{redact(location.url)}: {known} bytes, shorter than the offset {offset}")

        def read() -> bytes:
            return worker.call(lambda: _next(location, pieces), self._limits.stall)

        return Body(_chunks(read, location, skip, offset, known), known, lambda: worker.close(close), skip)

    def _prepare(self, location: Location) -> tuple[Any, Any]:
        """The driver, configured, and the location as it wants it."""
        from glance_store.location import Location as StoreLocation

        found = self._drivers.find(location)
        asking(location, found.configure)
        name, kind = scheme(location.url), found.driver.get_store_location_class()
        made = partial(StoreLocation, name, kind, self._conf, uri=location.url, backend=found.store)
        return found.driver, asking(location, made)


def _known(driver: Any, size: Any) -> int | None:
    """The size that a driver states, if it is one."""
    return int(size) if size or (size == 0 and getattr(driver, "knows_empty", False)) else None


def _next(location: Location, pieces: Iterator[bytes]) -> bytes:
    """The next piece that is not empty; none at the end."""
    return asking(location, lambda: next((piece for piece in pieces if piece), b""))


def _chunks(read: Callable[[], bytes], location: Location, skip: int, offset: int, size: int | None) -> Iterator[bytes]:
    """What a driver gives, without the first `skip` bytes and in pieces of ours; `offset` is where that begins."""
    shown, at = redact(location.url), offset - skip
    while piece := read():
        at += len(piece)
        kept = memoryview(piece)[skip:]
        skip -= len(piece) - len(kept)
        for start in range(0, len(kept), BLOCK):
            yield bytes(kept[start : start + BLOCK])
    if size is not None and at < size:
        raise Unreachable(f"{shown}: broke off at {at} of {size} bytes")
    if at < offset:
        raise WrongAnswer(f"{shown}: {at} bytes, shorter than the offset {offset}")


def _close(data: Any, pieces: Iterator[bytes]) -> None:
    """What the driver opened is closed, here and now: else whoever drops a generator last would wait for that."""
    for holder in (pieces, data, getattr(data, "wrapped", None)):
        stop = getattr(holder, "close", None)
        if stop:
            stop()
