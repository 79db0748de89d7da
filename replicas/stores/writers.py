"""`Writers` puts right bytes back where damaged ones, or none, are: it picks the writer of the URL's kind of store.

Nothing is written to an object that may be another image's: a row says only where bytes are to be read.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..errors import Unsupported
from ..location import redact, scheme, where
from ..model import Location
from . import object_names
from .contract import Writer
from .owner import owner

if TYPE_CHECKING:
    from ..settings import Settings


class Writers:
    """Every place this host can write. For many threads at once."""

    def __init__(self, writers: Sequence[Writer], enabled: Collection[str] = ()) -> None:
        self._writers, self._enabled = tuple(writers), frozenset(enabled)

    def of(self, location: Location) -> Writer:
        """The one that writes there. Raises Unsupported when there is none, or it is not known which.

        Also where the object does not bear the image's id in its name.
        """
        kind = scheme(location.url)
        fitting = [writer for writer in self._writers if kind in writer.schemes]
        if (found := owner(fitting, location, self._enabled)) is not None:
            if object_names.is_named_for(location.image_id, where(location.url)):
                return found
            raise Unsupported(
                f"{redact(location.url)} does not bear the image's id in its name: it may be the object of another "
                "image, and is not written to; add a copy in another store, then remove this location"
            )
        raise Unsupported(f"nothing here writes {kind or 'such'} URLs")


def from_settings(settings: "Settings") -> Writers:
    """A writer for each store of glance-api.conf that can be written in place; its options are parsed already."""
    from . import configured, kinds

    config = configured.read(settings)
    return Writers(kinds.writers(config), [store.id for store in config.stores if store.id])
