"""What the name of a stored object says of it."""

import re

from ..model import is_image_id

# An image's object as Glance names it, a segment of it, one as `replica repair` names it, and an upload of it.
_OBJECT = re.compile(r"([0-9a-fA-F-]{36})(?:(?:\.[ab])?-\d{5,}|\?uploadId=.*)?")
_SEGMENT = re.compile(r"(.+?)(?:\.[ab])?-\d{5,}")


def image_of(name: str) -> str | None:
    """The image whose bytes Glance would keep under such a name; None for any other name."""
    match = _OBJECT.fullmatch(name.rpartition("/")[2])
    return match[1] if match and is_image_id(match[1]) else None


def is_named_for(image_id: str, place: str) -> bool:
    """Whether the object at this place (`location.where`) bears the image's id in its name, as all of Glance's do.

    Users write rows whose URL is the object of another image; that one does not.
    """
    return image_id.casefold() in place.partition("?")[0].rpartition("/")[2].casefold()


def segment_of(name: str) -> str | None:
    """The object that a thing of this name would be a segment of, if there is one; None: no segment."""
    match = _SEGMENT.fullmatch(name)
    return match[1] if match else None
