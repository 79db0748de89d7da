"""This host's registrations, one for each verified complete file, under a URL that is the host's own.

Each is a row of our own tables, and while Glance's have few of the image (`catalogue.spread`), or the site does not say
`registrar = ledger`, a location there. Our row is the first to come and the last to go, so that ours are an index of
Glance's: killed in between, a file has our row only, and the next pass settles it.
"""

import logging
from contextlib import closing

from ..cache import Cache
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import CatalogueError, Gone, Refused
from ..ledger.cached_copies import CachedCopies
from ..ledger.host_registry import HostRegistry
from ..ledger.ledger import Ledger
from ..location import replica_url
from ..model import HOST_KEY, STORE_KEY, ZONE_KEY, Image
from ..settings import LEDGER, Settings
from .standing import Standing

log = logging.getLogger(__name__)


class Registration:
    """One host's; thread-safe."""

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        ledger: Ledger,
        hosts: HostRegistry,
        standing: Standing,
    ) -> None:
        self._settings, self._cache, self._catalogue = settings, cache, catalogue
        self._ledger, self._copies = ledger, CachedCopies(ledger.database)
        self._hosts, self._standing = hosts, standing

    def own_url(self, image_id: str) -> str | None:
        """The URL to register, None when this host may not register."""
        may = self._settings.can_register or self._settings.registrar == LEDGER
        if not may or self._settings.host_url is None or self._standing.problem() is not None:
            return None
        return replica_url(self._settings.host_url, image_id)

    def why_unregistered(self) -> str:
        """The reason `own_url` is None, with the remedy."""
        if self._settings.host_url is None:
            return (
                "neither [replicas] host_url nor worker_self_reference_url is set; set one to the URL of this very "
                "host, such as http://10.0.0.11:9292, and restart glance-api"
            )
        if self._settings.can_register and (problem := self._standing.problem()) is not None:
            return problem
        return "no http store is enabled; add one (enabled_backends = ..., web:http) and restart glance-api"

    def metadata(self) -> dict[str, object]:
        """The metadata of every row of this host: static, because Glance compares it (docs/glance.md, duplicates)."""
        found = {
            HOST_KEY: self._settings.host_name,
            ZONE_KEY: self._settings.host_zone,
            STORE_KEY: self._settings.http_store,
        }
        return {key: value for key, value in found.items() if value is not None}

    @crash_points
    def register(self, image: Image) -> bool:
        """The complete file of this host is a location of the image; what cannot be done now the janitor does later.

        Whether it was none, or one that named another host, until now.
        """
        url = self.own_url(image.id)
        if url is None:  # no crash test: this host may not register
            log.warning("image %s: cached but not registered: %s", image.id, self.why_unregistered())
            return False
        held = self._cache.complete.hold(image.id)  # so that no eviction comes between the look at the file and the row
        if held is None:
            log.info("image %s: not registered, its file has gone", image.id)  # no crash test: evicted just now
            return False
        try:
            with closing(held):
                if held.entry.fault or not held.entry.is_file_of(image):
                    log.info("image %s: not registered before its file was read", image.id)  # no crash test: a race
                elif self._write(image, url):
                    if not self._cache.complete.exists(image.id):  # no crash test: an order took it just now
                        self.withdraw(image.id)
                        return False
                    log.info("image %s: registered on host %s", image.id, self._settings.host_name)
                    return True
        except Gone as error:  # deleted while it was filled
            log.info("image %s: not registered, its file goes: %s", image.id, error)
            self._cache.complete.remove(image.id)
        except Refused as error:  # no crash test: a database that is behind; the janitor asks again, more than once
            log.warning("image %s: not registered yet: %s", image.id, error)
        except CatalogueError as error:
            log.warning("image %s: not registered yet: %s", image.id, error)
        return False

    @crash_points
    def _write(self, image: Image, url: str) -> bool:
        """The rows are there; whether any of them is new. Without the ledger the next pass writes the one of ours."""
        name, most = self._settings.host_name, self._settings.max_registered_per_image
        is_new = bool(self._hosts.ask_soon("copies", lambda: self._copies.add(name, [image.id]), 0))
        if self._settings.registrar == LEDGER:
            return is_new  # no crash test: our tables are all there is
        try:
            return self._catalogue.add(image.id, url, self.metadata(), digest=image.digest, most=most) or is_new
        except Refused:
            self.end(image.id)
            raise

    @crash_points
    def withdraw(self, image_id: str) -> None:
        """This host's registration of an image is gone. Raises CatalogueError, and then its file must stay.

        What the ledger knew of the copy goes first: a row that a stale save brings back, or a user writes, stands for
        no copy that is known to be intact. Killed in between: a registered copy that nothing is known of.
        """
        self.forget(image_id)
        self._withdraw_row(image_id)

    @crash_points
    def _withdraw_row(self, image_id: str) -> None:
        base, name, owner = self._settings.host_url, self._settings.host_name, self._standing.owner()
        if base is not None:
            only = name if self._standing.rival() else None  # else the row is that of the host that has the URL
            if self._catalogue.withdraw_url(image_id, replica_url(base, image_id), host=only):
                log.info("image %s: withdrawn from host %s", image_id, name)
        if owner is not None and owner.url is not None:  # no crash test: two hosts in one directory
            self._catalogue.withdraw_url(image_id, replica_url(owner.url, image_id))
        self.end(image_id)

    def end(self, image_id: str) -> None:
        """Our row has ended. Raises CatalogueError where it is the only one; else the next pass sees to it."""

        def ended() -> bool:
            self._copies.end(self._settings.host_name, [image_id])
            return True

        if not self._hosts.ask("ended copies", ended, False) and self._settings.registrar == LEDGER:
            raise CatalogueError(f"image {image_id}: its registration, in our own tables alone, could not be withdrawn")

    def forget(self, image_id: str) -> None:
        """The ledger says nothing of this host's copy any more. One that is away is not waited for."""
        base = self._settings.host_url
        if base is not None:
            url = replica_url(base, image_id)
            self._hosts.ask_soon("results", lambda: self._ledger.forget_state(image_id, url), None)

    def withdraw_soon(self, image_id: str) -> None:
        """As `withdraw`, for somebody who waits for bytes. A row that goes later, its file still here, comes back."""

        def withdrawn() -> bool:
            self._withdraw_row(image_id)
            return True

        self.forget(image_id)
        if not self._hosts.ask_soon("evictions", withdrawn, False):
            raise CatalogueError(f"image {image_id}: not evicted, its row could not be withdrawn in time")
