"""The stores of glance-api.conf: which there are, and the options of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg

RESERVED = "os_glance_"  # Glance's own staging and tasks stores: never locations of an image


@dataclass(frozen=True)
class Store:
    """One enabled store: Glance's id for it (None in a single-store cloud) and the name of its driver."""

    id: str | None
    kind: str


def stores(conf: cfg.ConfigOpts) -> tuple[Store, ...]:
    """The enabled stores in the order of the options, without Glance's reserved ones."""
    if conf.enabled_backends:
        named = conf.enabled_backends.items()
        return tuple(Store(name, kind) for name, kind in named if not name.startswith(RESERVED))
    return tuple(Store(None, kind) for kind in dict.fromkeys(conf.glance_store.stores))


def file_roots(conf: cfg.ConfigOpts, store_id: str | None) -> tuple[Path, ...]:
    """The folders of a file store; a priority behind a colon is cut off as the driver does."""
    from glance_store._drivers import filesystem

    options = group_options(conf, store_id, filesystem.Store.OPTIONS)
    several = [one.rsplit(":", 1)[0].strip() for one in options.filesystem_store_datadirs or ()]
    return tuple(Path(one) for one in several or [options.filesystem_store_datadir] if one)


def reserved_folders(conf: cfg.ConfigOpts) -> tuple[Path, ...]:
    """Where Glance keeps what is no image yet: its staging and tasks stores, as far as they are folders."""
    own = cfg.ConfigOpts()
    groups = [f"{RESERVED}{name}_store" for name in ("staging", "tasks")]
    for group in groups:
        own.register_opt(cfg.StrOpt("filesystem_store_datadir"), group)
    own.register_opt(cfg.StrOpt("node_staging_uri", default="file:///tmp/staging/"))
    own([], default_config_files=conf.config_file or [], default_config_dirs=conf.config_dir or [])
    staging = urlsplit(own.node_staging_uri)
    found = [own[group].filesystem_store_datadir for group in groups]
    found += [staging.path] if staging.scheme == "file" else []
    return tuple(Path(one) for one in found if one)


def group_options(conf: cfg.ConfigOpts, store_id: str | None, options: list[Any]) -> Any:
    """A store's options as attributes, those of `[backend_defaults]` where its own group says nothing."""
    from glance_store import driver

    if store_id is None:
        return conf.glance_store
    return driver.BackendGroupConfiguration(options, store_id, conf=conf)
