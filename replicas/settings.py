"""One host's settings: `[replicas]` of glance-api.conf and the few options of Glance's own that we follow."""

import difflib
import importlib
import ipaddress
import logging
import math
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg

from . import options
from .errors import ConfigError
from .glance_options import peek
from .networks import Network
from .signing import Key, parse_keys

log = logging.getLogger(__name__)

LEDGER = "ledger"  # a `registrar`
Hours = tuple[time, time]  # local time; the second may be earlier: over midnight


@dataclass(frozen=True)
class Settings:
    """Everything a part of us may need to know about its host. Units are in the names."""

    host_name: str
    host_url: str | None
    cache_dir: Path | None
    database: str = field(repr=False)  # SQLAlchemy URL of Glance's catalogue
    ledger: str = field(repr=False)  # SQLAlchemy URL of our own tables
    host_zone: str | None = None
    http_store: str | None = None  # None in a single-store cloud, and where no http store is enabled
    multi_store: bool = False
    can_register: bool = False  # an http store is enabled and host_url is known
    encryption_key: str | None = field(default=None, repr=False)  # metadata_encryption_key
    signing_keys: tuple[Key, ...] = field(default=(), repr=False)
    signature_lifetime_seconds: int = 3600
    trusted_networks: tuple[Network, ...] = ()
    max_peer_streams: int | None = None  # in one process; 0: no limit; None: as many as fit its threads
    max_streams: int | None = None  # the same of downloads
    sendfile: str = "auto"
    sendfile_prefix: str = "/replica-files/"
    max_bytes: int = 0
    min_free_bytes: int = 0
    max_image_bytes: int = 0
    high_watermark_percent: int = 95
    low_watermark_percent: int = 85
    pin_property: str | None = None
    max_pinned_percent: int = 50
    fill_on_range: bool = False
    max_client_fills: int = 32  # on this host, as the next; 0: no limit
    max_client_fills_per_project: int = 16
    copies_at_once: int = 2
    copy_bytes_per_second: int = 0
    copy_hours: Hours | None = None  # None: always
    policies: tuple[str, ...] = ()
    rules_file: str | None = None
    connect_timeout_seconds: float = 3.0
    stall_timeout_seconds: float = 30.0
    peer_timeout_seconds: float = 5.0
    max_fill_seconds: float = 6 * 3600.0
    janitor: bool = True
    janitor_interval_seconds: float = 60.0
    scrub_bytes_per_second: int = 0
    scrub_after_seconds: int = 7 * 86400
    dead_after_seconds: int = 86400
    max_withdrawals_per_pass: int = 50
    doubt_seconds: int = 3600
    registrar: str = "catalogue"
    max_registered_per_image: int = 8
    catalogue_scan_seconds: int = 86400


def list_opts() -> list[tuple[str, list[Any]]]:
    """The option table for oslo-config-generator."""
    return [(options.GROUP, options.ALL)]


def load(config_files: Sequence[str] = ()) -> Settings:
    """Settings from glance-api.conf for a program (a filter calls `read` with Glance's own configuration).

    Without a file: where oslo.config looks, `/etc/glance/glance-api.conf` among others. Raises ConfigError.
    """
    for path in config_files:
        if not Path(path).is_file():
            raise ConfigError(f"configuration file {path} does not exist; name one with --config-file")
    files = list(config_files) or cfg.find_config_files(project="glance", prog="glance-api")
    if not files:
        raise ConfigError("no glance-api.conf found in /etc/glance; name one with --config-file")
    _import_glance(cfg.CONF)
    _register_stores(cfg.CONF)
    try:
        cfg.CONF([], project="glance", prog="glance-api", default_config_files=files)
    except cfg.Error as error:
        raise ConfigError(f"{', '.join(files)}: {error}") from error
    except PermissionError as error:
        raise ConfigError(f"{error.filename}: no permission to read it; run as root or as the glance user") from error
    return read(cfg.CONF)


def read(conf: cfg.ConfigOpts) -> Settings:
    """Settings from a parsed configuration. Raises ConfigError naming the option that is wrong."""
    _register(conf)
    _refuse_wrong(conf)
    try:
        return _settings(conf)
    except (cfg.Error, ValueError) as error:  # of Glance's own options
        raise ConfigError(f"{', '.join(_files(conf))}: {error}") from error


def _settings(conf: cfg.ConfigOpts) -> Settings:
    ours = conf[options.GROUP]
    found = {
        option.name: ours[option.name] for option in fields(Settings) if option.name in ours
    }  # as they are, unless below
    database = conf.database.connection
    if not database:
        raise ConfigError("[database] connection is not set: Glance's catalogue is needed")
    cache_dir, cache_max_size = _cache_options(conf)
    host_url = _base_url(ours.host_url or conf.worker_self_reference_url)
    http_store, has_http = _http_store(conf)
    found |= {
        "host_name": ours.host_name or socket.gethostname(),
        "host_url": host_url,
        "host_zone": ours.host_zone,
        "cache_dir": Path(cache_dir) if cache_dir else None,
        "database": database,
        "ledger": ours.connection or default_ledger(database),
        "http_store": http_store,
        "multi_store": bool(conf.enabled_backends),
        "can_register": has_http and host_url is not None,
        "encryption_key": conf.metadata_encryption_key,
        "signing_keys": parse_keys(ours.signing_keys),
        "policies": tuple(ours.policies),
        "copy_hours": _hours(ours.copy_hours),
        "trusted_networks": tuple(_network(text) for text in ours.trusted_networks),
        "max_bytes": cache_max_size if ours.max_bytes is None else ours.max_bytes,
    }
    return Settings(**found)


def default_ledger(database: str) -> str:
    """Where our own tables are unless told otherwise: in Glance's database, except that of SQLite, beside it.

    Glance reads and then writes in one transaction, and SQLite refuses that at once, without waiting, while any other
    process writes: our heartbeats in the same file would make Glance answer 500.
    """
    scheme, _, path = database.partition(":///")
    if not scheme.startswith("sqlite") or not path or path.startswith((":memory:", "?")):
        return database
    file, mark, query = path.partition("?")
    plain = Path(file)
    return f"{scheme}:///{plain.with_name(f'{plain.stem}-replicas{plain.suffix}')}{mark}{query}"


def _import_glance(conf: cfg.ConfigOpts) -> None:
    """Register Glance's options; before the files are parsed, because some of them are command line options."""
    try:
        with warnings.catch_warnings(action="ignore"):  # eventlet's word of its end, not the operator's business
            from oslo_db import options as db_options  # absent on a laptop, as the others

            importlib.import_module("glance.common.config")
    except ImportError as error:
        raise ConfigError(
            "this needs Glance's own code to read glance-api.conf: pip install 'glance-replicas[glance]'"
        ) from error
    conf.register_opts(db_options.database_opts, "database")


def _register_stores(conf: cfg.ConfigOpts) -> None:
    """What `[glance_store]` says of stores as such; in a glance-api Glance has done it.

    Not `register_opts` of glance_store, which loads the driver of every store there is, boto3 and eventlet with them.
    """
    conf.register_opts(importlib.import_module("glance_store.backend")._STORE_OPTS, "glance_store")


def _register(conf: cfg.ConfigOpts) -> None:
    _import_glance(conf)
    conf.register_opts(options.ALL, options.GROUP)


def _cache_options(conf: cfg.ConfigOpts) -> tuple[str | None, int]:
    """`image_cache_dir` and `image_cache_max_size` (bytes) as `glance.image_cache` defines them."""
    said = peek(conf, [cfg.StrOpt("image_cache_dir"), cfg.IntOpt("image_cache_max_size", default=10 << 30, min=0)])
    return said["image_cache_dir"], said["image_cache_max_size"]


def _files(conf: cfg.ConfigOpts) -> list[str]:
    """Every configuration file, those of `glance-api.conf.d` and its like too."""
    inside = [str(path) for folder in conf.config_dir or () for path in sorted(Path(folder).glob("*.conf"))]
    return [*(conf.config_file or ()), *inside]


def _refuse_wrong(conf: cfg.ConfigOpts) -> None:
    """oslo.config passes over names it does not know; a typing error in ours must stop the start.

    Of a value it does not take it tells in its own words; ours name the file, the option, the value, what is allowed.
    """
    known = {option.dest for option in options.ALL}
    written = {}
    for path in _files(conf):
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(path, sections).parse()
        for name, values in sections.get(options.GROUP, {}).items():
            written[name] = f"{path}: [{options.GROUP}] {name} = {values[-1]}"
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(f"{path}: [{options.GROUP}] {name} is no option of glance-replicas{hint}")
    for option in options.ALL:
        try:
            value = getattr(conf[options.GROUP], option.dest)
            if isinstance(value, float) and not math.isfinite(value):  # no bound of oslo.config's refuses nan
                raise ValueError(value)
        except (cfg.Error, ValueError) as error:
            found = written.get(option.dest, f"environment: [{options.GROUP}] {option.dest}")
            raise ConfigError(f"{found}: this must be {options.allowed(option)}") from error


def _base_url(url: str | None) -> str | None:
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(
            "[replicas] host_url (or worker_self_reference_url) must be a plain http(s) URL such as "
            "http://10.0.0.11:9292, without user, query or fragment"
        )
    return url.rstrip("/")


def _http_store(conf: cfg.ConfigOpts) -> tuple[str | None, bool]:
    """The http store's id (multi-store only) and whether there is one at all."""
    wanted = conf[options.GROUP].http_store
    if not conf.enabled_backends:
        return None, "http" in conf.glance_store.stores
    found = [name for name, kind in conf.enabled_backends.items() if kind == "http"]
    if wanted and wanted not in found:
        raise ConfigError(f"[replicas] http_store = {wanted}: enabled_backends has no http store of that name")
    return (wanted or (found[0] if found else None)), bool(found)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"[replicas] trusted_networks: {error}") from error


def _hours(text: str | None) -> Hours | None:
    if not text:
        return None
    try:
        first, last = (time.fromisoformat(part.strip()) for part in text.split("-"))
    except ValueError as error:
        raise ConfigError(f"[replicas] copy_hours = {text}: write two times of day, such as 22:00-06:00") from error
    return first, last
