"""What a host must not evict: its copies of images that have no durable copy known to be good.

Of such an image no host evicts anything, whatever others hold: so two hosts that evict at the same time cannot take the
last two copies, and need not ask each other. It is asked of the ledger before each batch of evictions, and once more
when the rows of the batch are gone, because by then whoever orders another copy away can see that. That question is put
even where the ledger did not answer a moment ago: by now a host elsewhere may have found the copy in the store damaged.

Without the ledger its last answer holds, beside what the catalogue says by itself: each pass of the janitor keeps it in
the directory, so that a process that starts meanwhile has it too. An image that was not known to be damaged then may be
evicted.
"""

import logging
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..cache import Cache, own_file
from ..database import several_writers
from ..errors import CacheError, CatalogueError
from ..ledger.host_registry import HostRegistry
from ..ledger.ledger import Ledger
from ..model import is_image_id
from .known import KnownCopies
from .last_copy import has_durable, has_store

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue

log = logging.getLogger(__name__)

NAME = "last_copies"  # in our own folder of the host's directory: a JSON list of image ids


class Keeping:
    """One host's; thread-safe."""

    def __init__(self, catalogue: "Catalogue", ledger: Ledger, hosts: HostRegistry, cache: Cache) -> None:
        self._catalogue, self._known, self._hosts = catalogue, KnownCopies(ledger.database), hosts
        self._cache = cache

    def kept(self, image_ids: Collection[str]) -> set[str]:
        """Those of these images of which nothing may be evicted. Somebody waits for bytes: it takes seconds at most."""
        return self._kept(image_ids, rests=True)

    def kept_now(self, image_ids: Collection[str]) -> set[str]:
        """The same, asked in any case, for who has withdrawn the rows and is about to remove the files."""
        return self._kept(image_ids, rests=False)

    def _kept(self, image_ids: Collection[str], *, rests: bool) -> set[str]:
        remembered = self._remembered() & set(image_ids)
        ask = partial(self._hosts.ask_soon, rests=rests)
        try:
            found = ask("last copies", lambda: self._asked(image_ids), None)
            if found is not None:
                return found
            return remembered | ask("stores", lambda: self._without_store(image_ids), set())
        except CatalogueError as error:
            log.warning("eviction goes by the damage in stores that was known last: %s", error)
            return remembered

    def refresh(self, image_ids: Collection[str]) -> set[str]:
        """The same of all images of the host, written down for the time without a ledger.

        Raises CatalogueError, LedgerError, CacheError.
        Killed before the rename: what was known before stays, and a file beside it that the next one replaces.
        """
        with several_writers.causal_reads():
            doubtful = {image_id for image_id, _ in self._known.doubtful_stores(image_ids)}
        found = self._asked(doubtful) if doubtful else set()
        if found != self._remembered():
            self._remember(found)
        return found

    def _asked(self, image_ids: Collection[str]) -> set[str]:
        with several_writers.causal_reads():
            lasts = self._known.doubtful_stores(image_ids)
            return {image.id for image in self._catalogue.images(image_ids) if not has_durable(image, lasts)}

    def _without_store(self, image_ids: Collection[str]) -> set[str]:
        """Those that need no ledger to be known: nothing but cached rows is left of them."""
        with several_writers.causal_reads():
            return {image.id for image in self._catalogue.images(image_ids) if not has_store(image)}

    def _remember(self, image_ids: Collection[str]) -> None:
        own_file.write(self._cache, NAME, sorted(image_ids))

    def _remembered(self) -> set[str]:
        with suppress(CacheError):
            found = own_file.read(self._cache, NAME)
            listed = found if isinstance(found, list) else ()
            return {item for item in listed if isinstance(item, str) and is_image_id(item)}
        return set()
