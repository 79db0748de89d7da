"""A program in a cache directory: as the user that runs Glance, or as root, who gives away what is root's there."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ..cache import Cache
from ..cache.directory import OWN
from ..disk import ownership
from ..errors import CacheError
from ..model import is_image_id

log = logging.getLogger(__name__)

_FOLDERS = ("incomplete", "invalid", "queue", OWN, f"{OWN}/partial", f"{OWN}/known")


def give_away(cache: Cache) -> None:
    """What root made in the directory belongs to who uses it. Raises CacheError for any third user.

    Files of such a user would be closed to Glance. Killed in between: the next program run as root does the rest.
    """
    with cache.errors("owner"):
        user = ownership.user_of(cache.folder, *_FOLDERS)
        if user is None or user.uid == os.geteuid():
            return
        if os.geteuid():
            raise CacheError(
                f"cache directory {cache.folder} belongs to user {user.name}: run this with sudo -u {user.name}"
            )
        if given := ownership.give_all(_ours(cache.folder), user):
            log.warning("cache directory %s: %d files of root belong to %s now", cache.folder, given, user.name)


def closed(cache: Cache) -> list[str]:
    """Names in the directory that who uses it cannot read. Raises CacheError."""
    user = cache.user()
    groups = user.groups
    with cache.errors("owner"):
        found = []
        for path in _ours(cache.folder):
            try:
                if not ownership.may_read(path.lstat(), user, groups):
                    found.append(str(path.relative_to(cache.folder)))
            except FileNotFoundError:
                continue
        return found


def _ours(folder: Path) -> Iterator[Path]:
    """Images, and all that is in the folders of a cache, those themselves first."""
    for name in ("", *_FOLDERS):
        try:
            items = list(os.scandir(folder / name))
        except (FileNotFoundError, PermissionError):
            items = []
        if name:
            yield folder / name
        for item in items:
            if item.is_file(follow_symlinks=False) and (name or is_image_id(item.name)):
                yield Path(item.path)
