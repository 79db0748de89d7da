"""Reader of every other kind of URL, through the driver that Glance itself uses (rbd, s3, cinder, vmware, ...).

A driver reads inside this process and knows no limits of ours. Its calls are made in a thread of their own, for which
we wait no longer than for any other source; the thread of a cluster that never answers is left behind.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from oslo_config import cfg

from ..checksum import BLOCK
from ..errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported, WrongAnswer
from ..location import redact, scheme
from ..model import Location
from .body import Body, Limits
from .waiting import Worker

log = logging.getLogger(__name__)

T = TypeVar("T")
_UNUSABLE = (ImportError, AttributeError, NameError)  # of a driver whose library is not there
_OPENING = 10  # times the limit for a single read: a volume has to be attached first
Load = Callable[[cfg.ConfigOpts, str | None, str], Any]


class Reader:
    """Reads through the drivers of the enabled stores, given as (id or None, name of the driver).

    A driver is loaded and configured when the first location asks for it, without glance_store's registry: that
    would create every store at once, and with it the folders of file systems that are not mounted.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        stores: Sequence[tuple[str | None, str]],
        load: Load | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._conf, self._stores, self._limits = conf, tuple(stores), limits or Limits()
        self._new_driver = load or installed
        self._drivers: dict[tuple[str | None, str], _Driver | None] = {}
        self._lock = threading.Lock()

    def size(self, location: Location) -> int | None:
        """What the driver says, in bytes; None for 0, which drivers also say when they do not know."""
        worker = Worker(redact(location.url))
        try:
            return worker.call(lambda: self._size(location), self._limits.stall * _OPENING)
        finally:
            worker.close()

    def _size(self, location: Location) -> int | None:
        driver, parsed = self._prepare(location)
        return _asking(location, lambda: int(driver.get_size(parsed))) or None

    def open(self, location: Location, offset: int = 0) -> Body:
        """The bytes from `offset` on; a driver that cannot start there reads from 0 and the beginning is dropped."""
        worker = Worker(redact(location.url))
        try:
            return worker.call(lambda: self._open(location, offset, worker), self._limits.stall * _OPENING)
        except SourceError:
            worker.close()
            raise

    def _open(self, location: Location, offset: int, worker: Worker) -> Body:
        from glance_store import capabilities

        driver, parsed = self._prepare(location)
        skip = 0 if driver.is_capable(capabilities.BitMasks.READ_OFFSET) else offset
        data, size = _asking(location, lambda: driver.get(parsed, offset=offset - skip))
        known = int(size) if size else None
        if known is not None and known < offset:
            _closer(data)()
            raise WrongAnswer(f"{redact(location.url)}: {known} bytes, shorter than the offset {offset}")
        pieces = iter(data)

        def read() -> bytes:
            return worker.call(lambda: _next(location, pieces), self._limits.stall)

        chunks = _chunks(read, location, skip, offset, known)
        return Body(chunks, known, lambda: worker.close(_closer(data)))

    def _prepare(self, location: Location) -> tuple[Any, Any]:
        """The driver, configured, and the location as it wants it."""
        from glance_store.location import Location as StoreLocation

        found = self._find(location)
        _asking(location, found.configure)
        name, kind = scheme(location.url), found.driver.get_store_location_class()
        made = partial(StoreLocation, name, kind, self._conf, uri=location.url, backend=found.store)
        return found.driver, _asking(location, made)

    def _find(self, location: Location) -> "_Driver":
        name = scheme(location.url)
        keys = [one for one in self._stores if location.store is None or one[0] in (None, location.store)]
        fitting: list[_Driver] = []
        why = "no enabled store reads it"
        # Drivers named like the scheme first: then the others need not be loaded to say no.
        for key in sorted(keys, key=lambda one: not name.startswith(one[1])):
            if fitting and not name.startswith(key[1]):
                break
            loaded = self._load(*key)
            if loaded and name in loaded.driver.get_schemes():
                fitting.append(loaded)
            elif loaded is None and name.startswith(key[1]):
                why = f"the {key[1]} driver cannot be loaded here: is the library it needs installed?"
        if len(fitting) == 1:
            return fitting[0]
        why = f"{len(fitting)} stores could hold it and it names none" if fitting else why
        raise Unsupported(f"{redact(location.url)}: {name or 'no'} URL: {why}")

    def _load(self, store: str | None, kind: str) -> "_Driver | None":
        """None when the driver or its libraries are not installed here; asked once."""
        from glance_store import capabilities

        with self._lock:
            if (store, kind) in self._drivers:
                return self._drivers[store, kind]
            driver = self._new_driver(self._conf, store, kind)
            made = _Driver(store, driver) if driver else None
            if made is None or driver.is_capable(capabilities.BitMasks.DRIVER_REUSABLE):
                self._drivers[store, kind] = made
            return made


class _Driver:
    """A loaded driver; configured before its first use, and again after a failure to."""

    def __init__(self, store: str | None, driver: Any) -> None:
        self.store, self.driver = store, driver
        self._lock, self._configured = threading.Lock(), False

    def configure(self) -> None:
        with self._lock:
            if not self._configured:
                self.driver.configure()
                self._configured = True


def installed(conf: cfg.ConfigOpts, store: str | None, kind: str) -> Any:
    """A new driver as glance_store's entry points name it, or None."""
    from stevedore import driver

    try:
        arguments = (conf,) if store is None else (conf, store)
        manager: Any = driver.DriverManager("glance_store.drivers", kind, invoke_on_load=True, invoke_args=arguments)
    except Exception as error:  # whatever its libraries raise
        log.info("store %s: the %s driver cannot be loaded here: %s", store, kind, type(error).__name__)
        log.debug("store %s", store, exc_info=error)
        return None
    return manager.driver


def _asking(location: Location, do: Callable[[], T]) -> T:
    """What `do` returns; whatever a driver raises becomes a child of SourceError."""
    try:
        return do()
    except Exception as error:  # drivers raise what their libraries raise
        raise _failure(location, error) from error


def _failure(location: Location, error: Exception) -> SourceError:
    """Only "not found" is Absent. The text is the error's kind: its own words may hold credentials."""
    from glance_store import exceptions

    kinds: tuple[tuple[type[SourceError], tuple[type[Exception], ...]], ...] = (
        (Absent, (exceptions.NotFound,)),
        (Denied, (exceptions.Forbidden, exceptions.NotAuthenticated, exceptions.AuthorizationFailure, PermissionError)),
        (Unsupported, (exceptions.UnknownScheme, exceptions.StoreGetNotSupported, exceptions.BadStoreUri)),
        (Unsupported, (exceptions.BadStoreConfiguration, *_UNUSABLE)),
        (Stalled, (exceptions.TimeoutError,)),
    )
    text = f"{redact(location.url)}: {type(error).__name__}"
    if isinstance(error, _UNUSABLE):
        text += f", the driver of {scheme(location.url)} cannot work here: is the library it needs installed?"
    log.debug("image %s: %s", location.image_id, text, exc_info=error)
    return next((kind(text) for kind, causes in kinds if isinstance(error, causes)), Unreachable(text))


def _next(location: Location, pieces: Iterator[bytes]) -> bytes:
    """The next piece that is not empty; none at the end."""
    return _asking(location, lambda: next((one for one in pieces if one), b""))


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


def _closer(data: Any) -> Callable[[], None]:
    def close() -> None:
        stop = getattr(data, "close", None) or getattr(getattr(data, "wrapped", None), "close", None)
        if stop:
            stop()

    return close
