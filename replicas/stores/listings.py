"""What places really hold: one listing per kind of place, which says all or raises."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from ..model import Location
from .entry import Entry

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["Listing", "from_settings"]


class Listing(Protocol):
    """One place: a store, or the directory of a host."""

    @property
    def place(self) -> str:
        """`store:ID` or `host:NAME`."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What the names of its things begin with: each part may be missing by itself."""

    def name_of(self, location: Location) -> str | None:
        """The name its thing would have here; None: it is elsewhere. Asks nobody over a network."""

    def location_of(self, entry: Entry) -> Location:
        """Where a thing with an image id in its name is, for the record."""

    def entries(self) -> Iterator[Entry]:
        """Everything that is there, finished or not. Any trouble raises (children of SourceError, CacheError)."""

    def remove(self, entry: Entry) -> bool:
        """It is gone; False: it is not what was listed any more, and was left. Raises as `entries`, and Unwritable."""


def from_settings(settings: "Settings") -> list[Listing]:
    """This host's directory and every store of glance-api.conf that can be listed; its options are parsed already."""
    from oslo_config import cfg

    from . import configured
    from .file import listing as file_listing
    from .hosts import directory
    from .s3 import listing as s3_listing
    from .sources import Limits
    from .swift import listing as swift_listing

    conf = cfg.CONF
    enabled = configured.stores(conf)
    roots = {one: configured.file_roots(conf, one.id) for one in enabled if one.kind == "file"}
    reserved = configured.reserved_folders(conf)
    if settings.cache_dir is not None:
        reserved = (*reserved, settings.cache_dir)
    found: list[Listing] = []
    for store, own in roots.items():
        others = [folder for one, folders in roots.items() if one != store for folder in folders]
        found.append(file_listing.Listing(f"store:{store.id or store.kind}", store.id, own, [*others, *reserved]))
    limits = Limits(settings.connect_timeout_seconds, settings.stall_timeout_seconds)
    found += [swift_listing.Listing(conf, one.id, limits) for one in enabled if one.kind == "swift"]
    found += [s3_listing.Listing(conf, one.id, limits) for one in enabled if one.kind == "s3"]
    if settings.cache_dir is not None:
        found.append(directory.Listing(settings))
    return found
