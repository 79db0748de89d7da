"""The stores of glance-api.conf: which there are, and the options of each."""

from typing import TYPE_CHECKING, Any

from oslo_config import cfg

from .body import Limits
from .contract import Configuration, Store

if TYPE_CHECKING:
    from ..settings import Settings

RESERVED = "os_glance_"  # Glance's own staging and tasks stores: never locations of an image


def read(settings: "Settings", *, limits: Limits | None = None, from_disk: bool = False) -> Configuration:
    """What kinds of store are told on this host; its options are parsed already (`settings.load`)."""
    kept = limits or Limits(settings.connect_timeout_seconds, settings.stall_timeout_seconds)
    return Configuration(cfg.CONF, stores(cfg.CONF), kept, from_disk, settings.cache_dir)


def stores(conf: cfg.ConfigOpts) -> tuple[Store, ...]:
    """The enabled stores in the order of the options, without Glance's reserved ones."""
    if conf.enabled_backends:
        named = conf.enabled_backends.items()
        return tuple(Store(name, kind) for name, kind in named if not name.startswith(RESERVED))
    return tuple(Store(None, kind) for kind in dict.fromkeys(conf.glance_store.stores))


def groups(store_id: str | None) -> tuple[str, ...]:
    """Where the options of a store are, the first that has one counts."""
    return ("glance_store",) if store_id is None else (store_id, "backend_defaults")


def group_options(conf: cfg.ConfigOpts, store_id: str | None, options: list[Any]) -> Any:
    """A store's options as attributes, those of `[backend_defaults]` where its own group says nothing."""
    from glance_store import driver

    if store_id is None:
        conf.register_opts(options, "glance_store")  # a glance-api has done it, a program only now
        return conf.glance_store
    return driver.BackendGroupConfiguration(options, store_id, conf=conf)
