"""The options of a file store, written here again: glance_store's driver, which has them, brings eventlet with it."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oslo_config import cfg

from ...errors import ConfigError
from ...settings import peek
from ..configured import RESERVED, groups

_NAMES = _FOLDER, _FOLDERS = "filesystem_store_datadir", "filesystem_store_datadirs"
_MODE, _THIN = "filesystem_store_file_perm", "filesystem_thin_provisioning"
_DEFAULT_FOLDER = "/var/lib/glance/images"


@dataclass(frozen=True)
class FileHabits:
    """How Glance writes files into a store: their mode, None: as its umask has it; with holes for zeros, or without."""

    mode: int | None = None
    is_thin: bool = False


def file_roots(conf: cfg.ConfigOpts, store_id: str | None) -> tuple[Path, ...]:
    """The folders of a file store; a priority behind a colon is cut off as the driver does."""
    where = groups(store_id)
    own = peek(conf, [cfg.StrOpt(_FOLDER), cfg.MultiStrOpt(_FOLDERS)], *where)
    said = {name: [own[group][name] for group in where if own[group][name] is not None] for name in _NAMES}
    several = [text.rsplit(":", 1)[0].strip() for text in next(iter(said[_FOLDERS]), ())]
    return tuple(Path(text) for text in several or [next(iter(said[_FOLDER]), _DEFAULT_FOLDER)] if text)


def file_habits(conf: cfg.ConfigOpts, store_id: str | None) -> FileHabits:
    """The habits of a file store. Raises ConfigError."""
    where = groups(store_id)
    own = peek(conf, [cfg.IntOpt(_MODE), cfg.BoolOpt(_THIN)], *where)
    modes = [own[group][_MODE] for group in where if own[group][_MODE] is not None]
    thin = [own[group][_THIN] for group in where if own[group][_THIN] is not None]
    try:
        mode = int(str(modes[0]), 8) if modes else 0  # the digits are octal ones (glance_store's filesystem driver)
    except ValueError as error:
        raise ConfigError(f"{_MODE} = {modes[0]}: not an octal mode such as 640") from error
    return FileHabits(mode if mode > 0 else None, bool(thin and thin[0]))


def reserved_folders(conf: cfg.ConfigOpts) -> tuple[Path, ...]:
    """Where Glance keeps what is no image yet: its staging and tasks stores, as far as they are folders."""
    groups = [f"{RESERVED}{name}_store" for name in ("staging", "tasks")]
    own = peek(conf, [cfg.StrOpt(_FOLDER)], *groups)
    uri = peek(conf, [cfg.StrOpt("node_staging_uri", default="file:///tmp/staging/")]).node_staging_uri
    staging = urlsplit(uri)
    found = [own[group][_FOLDER] for group in groups]
    found += [staging.path] if staging.scheme == "file" else []
    return tuple(Path(one) for one in found if one)
