"""Which cached copies of an image are locations in Glance's table, when there are more than a site wants. Rules only.

1. At most so many rows; rows that name no host of ours are nobody's to count.
2. While there is room, whoever comes is taken.
3. Where there is none, a copy in a zone without a row takes the newest row of the zone that has most, if it has two.
4. Of more than so many rows those stay that these rules would have taken, had they come in the order of their ids.

So as many zones as can be have a row, and no two copies take turns: each change by rule 3 adds a zone.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from ..location import is_ours
from ..model import Image, Location


def gives_way(image: Image, coming: Location, most: int) -> Location | None:
    """The row that a copy which is not registered would take the place of; None: there is room, or it stays out."""
    return _crowded(registered(image), coming) if is_full(image, most) else None


def is_full(image: Image, most: int) -> bool:
    """Whether Glance's table has as many of the image as are wanted."""
    return len(registered(image)) >= most


def is_wanted(image: Image, coming: Location, most: int) -> bool:
    """Whether a copy that is not registered is to be."""
    return not is_full(image, most) or gives_way(image, coming, most) is not None


def surplus(image: Image, most: int) -> set[int]:
    """The rows of cached copies that are too many."""
    kept: list[Location] = []
    for location in registered(image):
        if len(kept) < most:
            kept.append(location)
        elif crowded := _crowded(kept, location):
            kept[kept.index(crowded)] = location
    return _ids(registered(image)) - _ids(kept)


def registered(image: Image) -> Sequence[Location]:
    """The image's cached copies in Glance's table, oldest row first."""
    found = [location for location in image.cached if location.row is not None and is_ours(location)]
    return sorted(found, key=lambda location: location.row or 0)


def _crowded(rows: Sequence[Location], coming: Location) -> Location | None:
    of_zone = Counter(location.zone for location in rows)
    if not of_zone or coming.zone in of_zone or max(of_zone.values()) < 2:
        return None
    zone = max(of_zone, key=lambda name: (of_zone[name], name or ""))
    return [location for location in rows if location.zone == zone][-1]


def _ids(rows: Iterable[Location]) -> set[int]:
    return {location.row for location in rows if location.row is not None}
