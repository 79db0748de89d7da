"""Which locations are names of one copy, as far as that can be told from here."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from ..errors import SourceError, Unsupported
from ..location import place
from ..model import Location
from ..stores import kinds
from ..stores.identity import ObjectIdentity

if TYPE_CHECKING:
    from ..stores.sources import Sources

_KEPT = 10_000  # answers

Where = tuple[str | None, str]


class CopyIdentities:
    """What identifies copies, asked for once each. For many threads at once.

    What this machine sees itself is told by its kind of store (a file by device and inode), each time anew. An object
    in Swift is its account, container and name, by the account that Keystone names for whatever credentials; one in S3
    is server, bucket and key. `on_failure` is told once of each store whose places cannot be told now: to the end of
    this run its locations are not `known`, and no verification of them may prove anything.
    """

    def __init__(self, sources: "Sources", on_failure: Callable[[str], None] = lambda _: None) -> None:
        self._sources, self._on_failure = sources, on_failure
        self._known: dict[Where, ObjectIdentity] = {}
        self._failed: set[Where] = set()

    def identity(self, location: Location) -> Hashable:
        """Equal for two locations that may be names of one copy."""
        return self._place(location).key

    def is_known(self, location: Location) -> bool:
        """Whether its other names, if it has any, would be recognised."""
        self._place(location)
        return _where(location) not in self._failed

    def surely(self, location: Location, other: Location) -> bool:
        """Whether both are names of one copy beyond doubt."""
        return self._place(location).is_surely(self._place(other))

    def _place(self, location: Location) -> ObjectIdentity:
        seen = kinds.of(location.url).seen_here(location.url)
        if seen is not None:
            return seen
        key = location.store, location.url
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[key] = self._ask(location)
        return found

    def _ask(self, location: Location) -> ObjectIdentity:
        by_url = ObjectIdentity(place(location))
        if _where(location) in self._failed:
            return by_url
        try:
            return self._sources.identify(location)
        except Unsupported:  # whoever reads it says so
            return by_url
        except SourceError as error:
            self._failed.add(_where(location))
            self._on_failure(f"{error}: it is not known whether its copies have other names, too")
            return by_url


def _where(location: Location) -> Where:
    """What is asked together: one container of one account, with the same credentials."""
    return location.store, location.url.removesuffix(location.image_id)
