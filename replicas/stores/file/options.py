"""The options of a file store, written here again: glance_store's driver, which has them, brings eventlet with it."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from oslo_config import cfg

from ...errors import ConfigError
from ...glance_options import peek
from ..configured import RESERVED, groups

_FOLDER, _FOLDERS = "filesystem_store_datadir", "filesystem_store_datadirs"
_MODE, _THIN = "filesystem_store_file_perm", "filesystem_thin_provisioning"
_DEFAULT_FOLDER = "/var/lib/glance/images"


@dataclass(frozen=True)
class FileHabits:
    """How Glance writes files into a store: their mode, None: as its umask has it; with holes for zeros, or without."""

    mode: int | None = None
    is_thin: bool = False


def file_roots(conf: cfg.ConfigOpts, store_id: str | None) -> tuple[Path, ...]:
    """The folders of a file store; a priority behind a colon is cut off as the driver does."""
    wanted = [cfg.StrOpt(_FOLDER, default=_DEFAULT_FOLDER), cfg.MultiStrOpt(_FOLDERS, default=[])]
    said = peek(conf, wanted, *groups(store_id))
    several = [text.rsplit(":", 1)[0].strip() for text in said[_FOLDERS]]
    return tuple(Path(text) for text in several or [said[_FOLDER]] if text)


def file_habits(conf: cfg.ConfigOpts, store_id: str | None) -> FileHabits:
    """The habits of a file store. Raises ConfigError."""
    said = peek(conf, [cfg.IntOpt(_MODE, default=0), cfg.BoolOpt(_THIN, default=False)], *groups(store_id))
    try:
        mode = int(str(said[_MODE]), 8)  # the digits are octal ones (glance_store's filesystem driver)
    except ValueError as error:
        raise ConfigError(f"{_MODE} = {said[_MODE]}: not an octal mode such as 640") from error
    return FileHabits(mode if mode > 0 else None, said[_THIN])


def reserved_folders(conf: cfg.ConfigOpts) -> tuple[Path, ...]:
    """Where Glance keeps what is no image yet: its staging and tasks stores, as far as they are folders."""
    stores = [f"{RESERVED}{name}_store" for name in ("staging", "tasks")]
    found = [peek(conf, [cfg.StrOpt(_FOLDER)], store)[_FOLDER] for store in stores]
    uri = cfg.StrOpt("node_staging_uri", default="file:///tmp/staging/")
    staging = urlsplit(peek(conf, [uri])[uri.dest])
    found += [staging.path] if staging.scheme == "file" else []
    return tuple(Path(folder) for folder in found if folder)
