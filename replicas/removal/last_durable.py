"""The last durable copy of an image is not removed while the image lives. Rule only, no I/O.

1. A durable location goes only while another durable one stays, in another place: two rows of one file are one copy.
2. Where all those that would stay were found damaged, it goes only if it was found damaged itself.
3. What is durable the URL decides alone (`model.is_on_host`), for users may write metadata: a copy on a host is never
   durable, and what has another URL is, whatever else its row says.
"""

from collections.abc import Callable, Collection, Hashable

from ..location import object_of, place
from ..model import Image, Location


def why_kept(
    image: Image, target: Location, going: Collection[Location], is_damaged: Callable[[Location], bool]
) -> str | None:
    """Why `target` must stay in `image`, as the catalogue has it now; None: it may go, for this rule.

    `going` are locations that leave in the same step, `target` among them or not.
    """
    if target.is_cached:
        return None
    rows = {location.row for location in going} | {target.row}
    left = [location for location in image.locations if location.row not in rows]
    places = {_object(location) for location in (target, *going)}
    stays = [location for location in left if not location.is_cached and _object(location) not in places]
    if not stays:
        alone = " and leave only copies in host caches, which may vanish at any time" if left else ""
        return (
            f"This would remove the last durable copy of image {image.id}{alone}. "
            "Copy the image to another store first, or delete the image."
        )
    if all(is_damaged(location) for location in stays) and not is_damaged(target):
        return (
            f"This would remove the last intact durable copy of image {image.id}: those in other stores were found "
            f"damaged. Repair them first: replica repair {image.id} --yes"
        )
    return None


def _object(location: Location) -> Hashable:
    """What tells two copies apart, where a doubt means that they are one."""
    return object_of(place(location))
