"""Which of several stores a location is in, when its row does not name one that there is.

Rows from before multi-store name none, and those of a store that was renamed another. Glance goes by the URL then, and
writes what it finds into the row when an owner or an admin looks at the image (`update_store_in_locations`). Asking the
wrong store would turn "not in that one" into "missing".
"""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from ..errors import Unsupported
from ..location import redact
from ..model import Location
from .contract import Owns

ASK_GLANCE = "let its owner or an admin GET"


class OfStore(Protocol):
    """What reads or writes for one store."""

    @property
    def store(self) -> str | None:
        """The one store, by Glance's id; None: a URL says all there is to know."""


T = TypeVar("T", bound=OfStore)


def owner(fitting: Sequence[T], location: Location, enabled: Collection[str]) -> T | None:
    """Of those that know the URL's scheme the one whose store the location is in.

    None when it names a store of another kind, or nothing knows the scheme. `enabled` are the ids of all stores there
    are. Raises Unsupported when it cannot be told which store is meant.
    """
    named = next(
        (candidate for candidate in fitting if location.store and candidate.store in (None, location.store)), None
    )
    if named is not None or not fitting or location.store in enabled:
        return named
    if location.store is None and len(fitting) == 1:
        return fitting[0]
    owners = [
        candidate
        for candidate in fitting
        if candidate.store is None or (isinstance(candidate, Owns) and candidate.owns(location.url))
    ]
    if len(owners) == 1:
        return owners[0]
    raise Unsupported(f"{redact(location.url)}: {why_unknown(location, len(owners) or len(fitting))}")


def why_unknown(location: Location, number: int) -> str:
    """Why it is not known which of so many stores is meant, and what may help."""
    names = f"the location names store {location.store}, which is not enabled here," if location.store else ""
    several = f"{names or 'the location names no store'} and {number} could hold it"
    return f"{several}; {ASK_GLANCE} /v2/images/{location.image_id}: Glance then writes the store into it, if it knows"
