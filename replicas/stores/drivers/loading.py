"""The drivers of the enabled stores, loaded when a location asks for them."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from oslo_config import cfg

from ...errors import ConfigError, Unsupported
from ...location import redact, scheme
from ...model import Location
from .. import kinds
from ..contract import Store
from ..owner import why_unknown

log = logging.getLogger(__name__)

Load = Callable[[cfg.ConfigOpts, str | None, str], Any]


class Driver:
    """A loaded driver; configured before its first use, and again after a failure to."""

    def __init__(self, store: str | None, driver: Any) -> None:
        self.store, self.driver = store, driver
        self._lock, self._configured = threading.Lock(), False

    def configure(self) -> None:
        """Raises whatever the driver does."""
        with self._lock:
            if not self._configured:
                self.driver.configure()
                self._configured = True

    def owns(self, url: str) -> bool:
        """Whether the URL begins as those that the driver makes, with more than the scheme. Raises as `configure`."""
        self.configure()
        begins = self.driver.url_prefix
        return bool(begins) and not begins.endswith("://") and url.startswith(f"{begins.rstrip('/')}/")


class Drivers:
    """The drivers of these stores, given as (id or None, name of the driver); `seconds` is what a call may take.

    They are loaded without glance_store's registry: that would create every store at once, and with it the folders of
    file systems that are not mounted.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, stores: Sequence[tuple[str | None, str]], load: Load | None, seconds: float
    ) -> None:
        self._conf, self._stores = conf, tuple(stores)
        self._new_driver = load or partial(installed, seconds=seconds)
        self._drivers: dict[tuple[str | None, str], Driver | None] = {}
        self._lock = threading.Lock()

    def find(self, location: Location) -> Driver:
        """The one driver that reads it. Raises Unsupported when there is none, or more than one."""
        name = scheme(location.url)
        is_named = location.store is not None and any(store[0] in (None, location.store) for store in self._stores)
        keys = [store for store in self._stores if not is_named or store[0] in (None, location.store)]
        fitting: list[Driver] = []
        why = "no enabled store reads it"
        # Drivers named like the scheme first: then the others need not be loaded to say no.
        for key in sorted(keys, key=lambda item: not name.startswith(item[1])):
            if fitting and not name.startswith(key[1]):
                break
            loaded = self._load(*key)
            if loaded and name in loaded.driver.get_schemes():
                fitting.append(loaded)
            elif loaded is None and name.startswith(key[1]):
                why = f"the {key[1]} driver cannot be loaded here: is the library it needs installed?"
        if len(fitting) > 1 or (fitting and location.store is not None and not is_named):
            owners = [candidate for candidate in fitting if candidate.owns(location.url)]
            why, fitting = why_unknown(location, len(owners) or len(fitting)), owners
        if len(fitting) == 1:
            return fitting[0]
        raise Unsupported(f"{redact(location.url)}: {name or 'no'} URL: {why}")

    def _load(self, store: str | None, kind: str) -> Driver | None:
        """None when the driver or its libraries are not installed here; asked once."""
        from glance_store import capabilities

        with self._lock:
            if (store, kind) in self._drivers:
                return self._drivers[store, kind]
            driver = self._new_driver(self._conf, store, kind)
            made = Driver(store, driver) if driver else None
            if made is None or driver.is_capable(capabilities.BitMasks.DRIVER_REUSABLE):
                self._drivers[store, kind] = made
            return made


def installed(conf: cfg.ConfigOpts, store: str | None, kind: str, *, seconds: float) -> Any:
    """A new driver as glance_store's entry points name it, or None; a call lasts `seconds`, where it can be told so."""
    from stevedore import driver

    arguments = (conf,) if store is None else (conf, store)
    try:
        found: Any = driver.DriverManager("glance_store.drivers", kind).driver
        return kinds.load(kind).bounded(found, seconds)(*arguments)
    except Exception as error:  # whatever its libraries raise
        log.info("store %s: the %s driver cannot be loaded here: %s", store, kind, type(error).__name__)
        log.debug("store %s", store, exc_info=error)
        return None


def ready_to_write(conf: cfg.ConfigOpts, store: Store) -> Any:
    """A store's driver that says how it would name an image; its options are those that Glance itself registers.

    Raises Unsupported, ConfigError.
    """
    from glance_store import backend, multi_backend

    (backend.register_opts if store.id is None else multi_backend.register_store_opts)(conf)
    found = installed(conf, store.id, store.kind, seconds=60.0)
    if found is None:
        raise Unsupported(f"store {store.name}: the {store.kind} driver cannot be loaded here")
    try:
        found.configure()
        found.configure_add()
    except Exception as error:  # whatever its libraries raise
        raise ConfigError(f"store {store.name}: {error}") from error
    return found
