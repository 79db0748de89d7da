"""Where a host reads an image: other hosts that have it or are filling it, then its stores; and whom it avoids."""

import itertools
import logging
import random
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import CatalogueError, Stalled, Unreachable
from ..ledger.host_registry import HostRegistry, is_alive
from ..ledger.ledger import FillClaim, Ledger, place_key
from ..location import replica_url
from ..model import HOST_KEY, Image, Location, Result
from ..settings import Settings
from ..stores import sources
from ..stores.body import Body

log = logging.getLogger(__name__)

_WRONG_SECONDS = 600.0  # how long a source that gave wrong bytes is not asked again while there is another
_SILENT_SECONDS = 30.0  # the same for a host that did not answer
_MOST_PEERS = 16  # a reader asks before it turns to the stores, should they all refuse or be silent
LEASE_SECONDS = 30.0  # a claim on a fill that is not renewed for so long is void


class SourceSelection:
    """One host's; thread-safe."""

    def __init__(self, settings: Settings, hosts: HostRegistry, ledger: Ledger, catalogue: Catalogue) -> None:
        self._settings = settings
        self._hosts = hosts
        self._ledger = ledger
        self._catalogue = catalogue
        self._claimed: set[str] = set()  # images that the ledger may believe this process is filling
        self._avoided: dict[str, float] = {}  # a URL or a host's name -> until when, by the monotonic clock
        self._sources = {
            False: sources.from_settings(settings, signer=hosts.sign),
            True: sources.from_settings(settings, signer=hosts.sign, headers=sources.BACKGROUND),
        }

    def order(self, image: Image, fills: bool) -> Sequence[Location]:
        """Where to read an image: hosts that have it, hosts that are filling it, then its stores.

        Who `fills` claims it, and asks only those who began before (no loops). A peer whose copy is known to be
        damaged, or gave wrong bytes here, is not asked; a store that did is last.
        """
        found = list(image.durable)
        if not self._is_alone(image):  # else there is nobody to ask, nor to tell before the first bytes are there
            filling = self._claim(image) if fills else self._filling(image)
            image = self._again(image)  # a fill that ended before our claim has left a row by now
            found = [*self._peers(image), *filling, *image.durable]
        if len(found) > 1:
            states = self._hosts.states(image.id)
            suspects = [location for location in found if self._is_suspect(location, states)]
            found = [location for location in found if location not in suspects] + [
                suspect for suspect in suspects if not suspect.is_cached
            ]
        peers = [location for location in found if location.is_cached]
        return [*peers[:_MOST_PEERS], *(location for location in found if not location.is_cached)]

    def open(self, background: bool, location: Location, offset: int, stop: int | None = None) -> Body:
        """A host that does not answer is left alone for a while, for all images."""
        try:
            return self._sources[background].open(location, offset, stop)
        except (Unreachable, Stalled):
            if location.host:
                self._avoided[location.host] = time.monotonic() + _SILENT_SECONDS
            raise

    def avoid(self, wrong: Sequence[Location]) -> None:
        """These gave wrong bytes."""
        self._avoided |= {location.url: time.monotonic() + _WRONG_SECONDS for location in wrong}

    def held_elsewhere(self, image_ids: Collection[str]) -> set[str]:
        """Of these images those that another living host of ours has; none when that cannot be asked."""
        try:
            return {image.id for image in self._catalogue.images(image_ids) if self._elsewhere(image)}
        except CatalogueError as error:
            log.warning("eviction does not know what other hosts have: %s", error)
            return set()

    @crash_points
    def renew(self, image: Image, done: int) -> Sequence[FillClaim]:
        """The ledger knows that this host goes on; who fills the image by now."""
        if self._settings.host_url is None:
            return ()
        own = replica_url(self._settings.host_url, image.id)
        self._claimed.add(image.id)
        return self._hosts.ask_soon(
            "claims",
            lambda: self._ledger.claim_fill(image.id, self._settings.host_name, own, LEASE_SECONDS, done=done),
            (),
        )

    @crash_points
    def release(self, image: Image) -> None:
        """This host fills the image no longer: the ledger is told so if it was told that it does."""
        if image.id in self._claimed:
            self._claimed.discard(image.id)
            self._hosts.ask("releases", lambda: self._ledger.release_fill(image.id, self._settings.host_name), None)

    def _claim(self, image: Image) -> list[Location]:
        """Say that we fill this image; the hosts that said so before us."""
        before_us = itertools.takewhile(
            lambda fill_claim: fill_claim.host != self._settings.host_name, self.renew(image, 0)
        )
        return self._others(image, before_us)

    def _filling(self, image: Image) -> list[Location]:
        """The other hosts that say they are filling the image."""
        fills = self._hosts.ask_soon("fills", lambda: self._ledger.fills(image.id, LEASE_SECONDS), ())
        return self._others(image, (fill for fill in fills if fill.host != self._settings.host_name))

    def _is_alone(self, image: Image) -> bool:
        """Whether there is no other host, nor has one come just now."""
        return (
            len(self._hosts.knowing(location.host for location in image.cached)) <= 1 and len(self._hosts.anew()) <= 1
        )

    def _others(self, image: Image, fills: Iterable[FillClaim]) -> list[Location]:
        fills = list(fills)
        hosts = self._hosts.knowing(fill.host for fill in fills)
        found = [
            Location(image.id, replica_url(hosts[fill_claim.host].url, image.id), {HOST_KEY: fill_claim.host})
            for fill_claim in fills
            if fill_claim.host in hosts
        ]
        random.shuffle(found)  # so that the first one does not serve them all
        return found

    def _again(self, image: Image) -> Image:
        """The image as the catalogue has it now, or as it was when that cannot be asked."""
        try:
            return self._catalogue.image(image.id) or image
        except CatalogueError as error:
            log.warning("image %s: its locations may be out of date: %s", image.id, error)
            return image

    def _is_suspect(self, location: Location, states: Mapping[tuple[str, str], Result]) -> bool:
        known = states.get((location.image_id, place_key(location)))
        until = max(self._avoided.get(key, 0.0) for key in (location.url, location.host or location.url))
        return until > time.monotonic() or (known is not None and known.verdict.is_damage)

    def _peers(self, image: Image) -> list[Location]:
        """Copies on other living hosts of ours, own zone first, else at random so that none serves all."""
        found = self._elsewhere(image)
        random.shuffle(found)
        return sorted(found, key=lambda location: location.zone != self._settings.host_zone)

    def _elsewhere(self, image: Image) -> list[Location]:
        """Its copies on other living hosts of ours."""
        hosts = self._hosts.knowing(location.host for location in image.cached)
        return [
            location
            for location in image.cached
            if location.host != self._settings.host_name
            and location.host in hosts
            and location.url == replica_url(hosts[location.host].url, image.id)
            and is_alive(hosts[location.host], self._settings)
        ]
