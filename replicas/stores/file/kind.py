"""File stores as a kind. A file's URL says all there is to know, so one reader and one writer serve all of them."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ...location import where
from ...model import Image
from ..contract import Configuration, Kind, Store
from ..identity import ObjectIdentity
from . import options
from .listing import Listing
from .reader import Reader
from .writer import Writer


class File(Kind):
    """Regular files below the folders of the stores' options."""

    schemes = Reader.schemes
    cost = 0
    denies_for_good = True  # nor do owners and modes, and the file was perhaps read to its end

    def readers(self, stores: Sequence[Store], config: Configuration) -> Iterator[Reader]:
        """One, unless no store has a folder."""
        if roots := [root for store in stores for root in _roots(store, config)]:
            yield Reader(roots, from_disk=config.from_disk)

    def writers(self, stores: Sequence[Store], config: Configuration) -> Iterator[Writer]:
        """One, which writes into each folder as Glance would."""
        habits = {
            root: options.file_habits(config.conf, store.id) for store in stores for root in _roots(store, config)
        }
        if habits:
            yield Writer(list(habits), habits)

    def listings(self, stores: Sequence[Store], config: Configuration) -> Iterator[Listing]:
        """One for each store; of its folders without those of anybody else below them."""
        roots = {store: _roots(store, config) for store in stores}
        reserved = options.reserved_folders(config.conf)
        if config.cache_dir is not None:
            reserved = (*reserved, config.cache_dir)
        for store, own in roots.items():
            others = [folder for other, folders in roots.items() if other != store for folder in folders]
            yield Listing(f"store:{store.name}", store.id, own, [*others, *reserved])

    def url(self, store: Store, image: Image, config: Configuration) -> str:
        """Of several folders the one with most room, as Glance takes among those of one priority."""
        return f"file://{max(_roots(store, config), key=lambda root: shutil.disk_usage(root).free)}/{image.id}"

    def seen_here(self, url: str) -> ObjectIdentity:
        """Device and inode: two mounts of one folder, a hard link or a symbolic link are one file."""
        try:
            parts = urlsplit(url)
            found = os.stat(parts.netloc + parts.path)
        except (OSError, ValueError):
            return ObjectIdentity(where(url))
        return ObjectIdentity(("file", found.st_dev, found.st_ino))


def _roots(store: Store, config: Configuration) -> tuple[Path, ...]:
    return options.file_roots(config.conf, store.id)
