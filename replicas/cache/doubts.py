"""Files whose image the catalogue does not know, or not yet: how often, and for how long, that was its answer.

One answer may be wrong: a database that is behind (a replica, a node of a cluster that has not heard of the change yet)
has "no such image", or "queued", for an image that is active. What only the last answers said is kept in a file of the
directory, so that a restart, and `replica janitor --once`, go on counting.
"""

import time
from collections.abc import Collection

from . import own_file
from .directory import Directory

_FILE = "doubts"
_SIGHTINGS = 2  # answers that a removal rests on at least, whatever a clock that was set says of the time between


class Doubts:
    """One directory's."""

    def __init__(self, directory: Directory, grace_seconds: float) -> None:
        self._directory, self._grace = directory, grace_seconds

    def overdue(self, doubted: Collection[str]) -> set[str]:
        """Of the images in doubt in this pass those that were so for the whole time of grace; others are forgotten.

        Raises CacheError when that cannot be remembered: then nothing is overdue.
        """
        before, now = self._read(), time.time()
        after = {
            image_id: (min(before[image_id][0], now), before[image_id][1] + 1) if image_id in before else (now, 1)
            for image_id in doubted
        }
        if before or after:
            own_file.write(self._directory, _FILE, after)
        return {
            image_id
            for image_id, (since, sightings) in after.items()
            if now - since >= self._grace and sightings >= _SIGHTINGS
        }

    def _read(self) -> dict[str, tuple[float, int]]:
        """What the last pass left; a file that is none counts as the first sight of everything."""
        try:
            found = own_file.read(self._directory, _FILE) or {}
            return {str(image_id): (float(since), int(sightings)) for image_id, (since, sightings) in found.items()}
        except (ValueError, TypeError, AttributeError):
            return {}
