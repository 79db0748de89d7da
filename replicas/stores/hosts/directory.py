"""This host's directory: the complete files in it.

What grows, what turned out wrong (`invalid/`) and requests (`queue/`) are the janitor's.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from ...cache import Cache
from ...errors import ConfigError
from ...location import is_replica_of, replica_url
from ...model import HOST_KEY, Location
from ...settings import Settings
from ..contract import Listed


class Listing:
    """The files of the host with these settings, named by their images. Names that are no image id are left alone."""

    parts = ("",)

    def __init__(self, settings: Settings) -> None:
        if settings.cache_dir is None:
            raise ConfigError("image_cache_dir is not set: nothing is cached on this host")
        self.place = f"host:{settings.host_name}"
        self._cache, self._name, self._url = Cache(settings.cache_dir), settings.host_name, settings.host_url

    def name_of(self, location: Location) -> str | None:
        """The image's id, for a registration of this host's own."""
        return location.image_id if self._url and is_replica_of(location, self._name, self._url) else None

    def location_of(self, entry: Listed) -> Location:
        """Under this host's URL, whether it is registered or not."""
        url = replica_url(self._url or "", entry.name)
        return Location(entry.name, url, {HOST_KEY: self._name})

    def entries(self) -> Iterator[Listed]:
        """Every complete file. Raises CacheError."""
        for entry in self._cache.complete.entries():
            yield Listed(entry.image_id, entry.size, datetime.fromtimestamp(entry.verified_at, UTC))

    def remove(self, entry: Listed) -> bool:
        """Nothing complete is kept of the image."""
        return bool(self._cache.complete.remove(entry.name))
