"""What places really hold: one listing for each, which says all or raises."""

from typing import TYPE_CHECKING

from .contract import Listing

if TYPE_CHECKING:
    from ..settings import Settings


def from_settings(settings: "Settings") -> list[Listing]:
    """Every store of glance-api.conf that can be listed, and this host's directory; its options are parsed already."""
    from . import configured, kinds
    from .hosts import directory

    found = kinds.listings(configured.read(settings))
    return found if settings.cache_dir is None else [*found, directory.Listing(settings)]
