"""The complete file that this host has of an image: opened if it may be served, removed with its row if not."""

import logging
from contextlib import closing

from ..cache import Cache, OpenFile
from ..errors import Unreadable
from ..ledger.ledger import Ledger
from ..location import replica_url
from ..model import Image, Location
from ..removal.orders import RemovalOrders
from ..settings import Settings
from .registration import Registration

log = logging.getLogger(__name__)


class OwnCopies:
    """One host's; thread-safe."""

    def __init__(
        self, settings: Settings, cache: Cache, registration: Registration, ledger: Ledger, removals: RemovalOrders
    ) -> None:
        self._settings, self._cache, self._registration = settings, cache, registration
        self._ledger, self._removals = ledger, removals

    def open(self, image: Image) -> OpenFile | None:
        """This host's complete file, open, read or not (the caller looks); one that is another image's goes.

        Raises CacheError, its child Unreadable for one that is withheld; CatalogueError when the registration of such
        a file cannot be withdrawn.
        """
        copy = self._cache.complete.open(image.id)
        if copy is None:
            return None
        if not copy.entry.is_anothers(image):
            if copy.entry.fault:
                copy.close()
                raise Unreadable(f"its cached file is withheld until it can be read: {copy.entry.fault}")
            return copy
        with closing(copy):
            self.remove_wrong(image, copy)
        return None

    def remove_wrong(self, image: Image, copy: OpenFile) -> None:
        """A complete file that cannot be the image's is gone, its row first. Raises CatalogueError, CacheError."""
        path = self._cache.path(image.id)
        log.error(
            "image %s: %s is truncated, or belongs to another image of the same id: its row and file are removed",
            image.id,
            path,
        )
        self._registration.withdraw(image.id)
        self._cache.complete.remove_copy(image.id, copy)

    def set_aside(self, image: Image, copy: OpenFile) -> None:
        """The complete file turned out wrong: its row goes, then the file. Raises CatalogueError, CacheError.

        Killed in between: a file without a row, read again by the next pass before it is registered.
        """
        log.error("image %s: cached file is damaged; withdrawn and set aside", image.id)
        self._registration.withdraw(image.id)
        self._cache.complete.set_aside(image.id, copy)

    def remove_deleted(self, image_id: str) -> None:
        """The file of an image that Glance has deleted is gone. Raises CatalogueError, CacheError."""
        self._registration.end(image_id)
        self._cache.complete.remove(image_id)

    def remove_as_asked(self, image_id: str, *, who: str, reason: str) -> int:
        """This host's copy is gone, its row first; bytes freed. Noted in the ledger as an order of `who`.

        Raises LastCopy when it is the last intact copy that is known of, and CatalogueError, LedgerError when that
        cannot be known: then nothing has changed. Killed in between: the janitor does the rest.
        """
        base = self._settings.host_url or f"http://{self._settings.host_name}"  # registered or not
        copy = Location(image_id, replica_url(base, image_id), self._registration.metadata())
        line = self._removals.order(copy, reason=reason, who=who)
        self._registration.withdraw(image_id)
        freed = self._cache.complete.remove(image_id)
        if not self._cache.complete.exists(image_id):  # else a fill has brought it again, and its row
            self._registration.withdraw(image_id)  # of a registration that was under way
        self._ledger.finish_withdrawal(line)
        log.info("image %s: removed as asked by %s: %s", image_id, who, reason)
        return freed
