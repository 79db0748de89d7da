"""Which of a host's copies are to be locations in Glance's table, beside their rows in ours; a few at a time.

Each pass looks at the next few hundred images, so that it costs the same with ten hosts and with a thousand: a place
that another host leaves is taken within some passes. A fill that ends does not wait for that (`host.registration`).
"""

import uuid
from collections.abc import Collection, Iterator, Mapping

from .. import location
from ..catalogue import spread
from ..catalogue.images import Catalogue
from ..database.chunks import CHUNK
from ..model import HOST_KEY, ZONE_KEY, Image, Location
from ..settings import LEDGER, Settings


class ListedCopies:
    """One host's. Every method raises CatalogueError when Glance's tables cannot be asked."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._last = str(uuid.uuid4())  # a program's passes begin anywhere, or the last would wait for ever

    def turn(self, image_ids: Collection[str]) -> list[str]:
        """The next few of these, so that all have their turn."""
        order = sorted(image_ids)
        found = ([one for one in order if one > self._last] + [one for one in order if one <= self._last])[:CHUNK]
        self._last = found[-1] if found else ""
        return found

    def missing(self, image_ids: Collection[str]) -> set[str]:
        """Of these images, which have no row of this host, those that are to have one."""
        most = self._settings.max_registered_per_image
        if self._settings.registrar == LEDGER or not self._settings.can_register:
            return set()
        return {one.id for one in self._catalogue.listed(image_ids) if spread.is_wanted(one, self._own(one), most)}

    def surplus(self, rows: Mapping[str, Location]) -> Iterator[Location]:
        """Of these rows of the host, by image, those that Glance's table is to have no longer: the file stays."""
        if self._settings.registrar == LEDGER:
            yield from rows.values()
            return
        for image in self._catalogue.listed(rows):
            if rows[image.id].row in spread.surplus(image, self._settings.max_registered_per_image):
                yield rows[image.id]

    def _own(self, image: Image) -> Location:
        metadata = {HOST_KEY: self._settings.host_name}
        if self._settings.host_zone is not None:
            metadata[ZONE_KEY] = self._settings.host_zone
        return Location(image.id, location.replica_url(self._settings.host_url or "", image.id), metadata)
