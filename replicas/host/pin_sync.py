"""Applies pins to the files of one host: what the ledger asks for, and images with the property `pin_property`.

A pin is on the file itself, so that eviction asks nobody. When the ledger or the catalogue cannot be asked, every
pin stays as it is: unknown is not absent.
"""

import logging
from collections.abc import Collection, Iterable, Iterator

from ..cache import Cache, CachedFile
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import CacheError, CatalogueError
from ..ledger.host_registry import HostRegistry
from ..ledger.pins import Pins
from ..model import Pass
from ..settings import Settings

log = logging.getLogger(__name__)

_NAMED = 3  # images a problem names


class PinSync:
    """One host's. Its methods raise LedgerError or CatalogueError, and then nothing has changed; and CacheError."""

    def __init__(self, settings: Settings, cache: Cache, pins: Pins, catalogue: Catalogue, hosts: HostRegistry) -> None:
        self._settings, self._cache, self._pins = settings, cache, pins
        self._catalogue, self._hosts = catalogue, hosts

    @crash_points
    def apply_pins(self, done: Pass) -> None:
        """The files that are to stay have a pin, as many as `max_pinned_percent` lets; no other has one."""
        entries = list(self._cache.complete.entries())
        asked = self._pins.of_host(self._settings.host_name) | self._by_property([file.image_id for file in entries])
        wanted = [file for file in entries if file.image_id in asked]
        kept = {file.image_id for file in self._within_bound(wanted)}
        for entry in entries:
            if entry.readable and entry.pinned != (entry.image_id in kept):
                self._change(entry, asked)
        self._complain([file.image_id for file in wanted if file.image_id not in kept], done)

    @crash_points
    def apply_pin(self, image_id: str) -> None:
        """The file that came just now has a pin if it is to stay and the bound lets it; the next pass looks again."""
        if not self._pins.all([image_id], self._settings.host_name) and not self._by_property([image_id]):
            return
        entries = [entry for entry in self._cache.complete.entries() if entry.pinned or entry.image_id == image_id]
        if len(list(self._within_bound(entries))) == len(entries) and self._cache.complete.pin(image_id, True):
            log.info("image %s: pinned", image_id)

    def try_pin(self, image_id: str) -> None:
        """As `apply_pin`, raising nothing: what cannot be asked now the janitor finds out."""
        try:
            self._hosts.ask("pins", lambda: self.apply_pin(image_id), None)
        except (CatalogueError, CacheError) as error:
            log.warning("image %s: the janitor will find out whether it is pinned: %s", image_id, error)

    @crash_points
    def _change(self, entry: CachedFile, asked: Collection[str]) -> None:
        if not self._cache.complete.pin(entry.image_id, not entry.pinned):
            return
        if entry.image_id in asked and entry.pinned:
            log.warning("image %s: its pin is lifted, %s", entry.image_id, self._option())  # no crash test: words
        else:
            log.info("image %s: %s", entry.image_id, "no longer pinned" if entry.pinned else "pinned")

    def _complain(self, beyond: list[str], done: Pass) -> None:
        if beyond:
            more = f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else ""
            names = ", ".join(sorted(beyond)[:_NAMED]) + more
            done.problems.append(f"pins: pinned copies may be evicted, because {self._option()}: images {names}")

    def _by_property(self, image_ids: Collection[str]) -> set[str]:
        name = self._settings.pin_property
        return self._catalogue.with_property(name, image_ids) if name else set()

    def _within_bound(self, wanted: Iterable[CachedFile]) -> Iterator[CachedFile]:
        """Those that may have a pin: the ones used last first, as long as they fit. Without a quota all may."""
        left = self._settings.max_bytes * self._settings.max_pinned_percent // 100
        for entry in sorted(wanted, key=lambda file: file.used_at, reverse=True):
            if not self._settings.max_bytes or entry.size <= left:
                left -= entry.size
                yield entry

    def _option(self) -> str:
        return f"pinned copies take at most max_pinned_percent = {self._settings.max_pinned_percent} of max_bytes"
