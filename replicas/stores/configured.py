"""The stores of glance-api.conf: which there are, and the options of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg

from ..errors import ConfigError
from ..settings import peek
from .http.wire import Tls

_NAMES = _FOLDER, _FOLDERS = "filesystem_store_datadir", "filesystem_store_datadirs"
_MODE, _THIN = "filesystem_store_file_perm", "filesystem_thin_provisioning"
_DEFAULT_FOLDER = "/var/lib/glance/images"
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
    """The folders of a file store; a priority behind a colon is cut off as the driver does.

    The driver's options are written here again, because the driver brings eventlet with it.
    """
    groups = ("glance_store",) if store_id is None else (store_id, "backend_defaults")
    own = peek(conf, [cfg.StrOpt(_FOLDER), cfg.MultiStrOpt(_FOLDERS)], *groups)
    said = {name: [own[group][name] for group in groups if own[group][name] is not None] for name in _NAMES}
    several = [text.rsplit(":", 1)[0].strip() for text in next(iter(said[_FOLDERS]), ())]
    return tuple(Path(text) for text in several or [next(iter(said[_FOLDER]), _DEFAULT_FOLDER)] if text)


@dataclass(frozen=True)
class FileHabits:
    """How Glance writes files into a store: their mode, None: as its umask has it; with holes for zeros, or without."""

    mode: int | None = None
    is_thin: bool = False


def file_habits(conf: cfg.ConfigOpts, store_id: str | None) -> FileHabits:
    """The habits of a file store. Raises ConfigError."""
    groups = ("glance_store",) if store_id is None else (store_id, "backend_defaults")
    own = peek(conf, [cfg.IntOpt(_MODE), cfg.BoolOpt(_THIN)], *groups)
    modes = [own[group][_MODE] for group in groups if own[group][_MODE] is not None]
    thin = [own[group][_THIN] for group in groups if own[group][_THIN] is not None]
    try:
        mode = int(str(modes[0]), 8) if modes else 0  # the digits are octal ones (glance_store's filesystem driver)
    except ValueError as error:
        raise ConfigError(f"{_MODE} = {modes[0]}: not an octal mode such as 640") from error
    return FileHabits(mode if mode > 0 else None, bool(thin and thin[0]))


def http_tls(conf: cfg.ConfigOpts) -> Tls:
    """Which certificates of other hosts and of http locations are believed, by the options of the http store.

    The store's driver believes any unless told otherwise; a URL of ours is a permission, so that is taken only where
    somebody has written `https_insecure = True`.
    """
    store = next((one for one in stores(conf) if one.kind == "http"), None)
    groups = ("glance_store",) if store is None or store.id is None else (store.id, "backend_defaults")
    own = peek(conf, [cfg.StrOpt("https_ca_certificates_file"), cfg.BoolOpt("https_insecure")], *groups)
    ca_files = [own[group].https_ca_certificates_file for group in groups if own[group].https_ca_certificates_file]
    said = [own[group].https_insecure for group in groups if own[group].https_insecure is not None]
    return Tls(ca_files[0]) if ca_files else Tls(insecure=bool(said and said[0]))


def reserved_folders(conf: cfg.ConfigOpts) -> tuple[Path, ...]:
    """Where Glance keeps what is no image yet: its staging and tasks stores, as far as they are folders."""
    groups = [f"{RESERVED}{name}_store" for name in ("staging", "tasks")]
    own = peek(conf, [cfg.StrOpt(_FOLDER)], *groups)
    uri = peek(conf, [cfg.StrOpt("node_staging_uri", default="file:///tmp/staging/")]).node_staging_uri
    staging = urlsplit(uri)
    found = [own[group][_FOLDER] for group in groups]
    found += [staging.path] if staging.scheme == "file" else []
    return tuple(Path(one) for one in found if one)


def group_options(conf: cfg.ConfigOpts, store_id: str | None, options: list[Any]) -> Any:
    """A store's options as attributes, those of `[backend_defaults]` where its own group says nothing."""
    from glance_store import driver

    if store_id is None:
        conf.register_opts(options, "glance_store")  # a glance-api has done it, a program only now
        return conf.glance_store
    return driver.BackendGroupConfiguration(options, store_id, conf=conf)
