"""What a place holds against what the catalogue says it holds. Rules only, no I/O.

    dark = listed - catalogue before - catalogue after
    lost = in both catalogues, and not listed

The catalogue is read before and after the listing, so that what comes or goes meanwhile is neither. A listing that
broke off anywhere is no listing: nothing is concluded from it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from urllib.parse import unquote

from ..model import Location
from ..stores.contract import Listed
from ..stores.object_names import segment_of


@dataclass
class Rows:
    """What the catalogue says of one place at one moment, by the names of things there."""

    named: dict[str, Location] = field(default_factory=dict)  # active rows
    claimed: set[str] = field(default_factory=set)  # folded names of all rows that are not deleted
    odd: list[Location] = field(default_factory=list)  # active rows of the place that name nothing that can be in it

    def add(self, name: str, location: Location, is_active: bool) -> None:
        """One row, or a copy that may have no row of Glance's."""
        self.claimed.add(fold(name))
        if is_active and (location.row is not None or name not in self.named):
            self.named[name] = location

    def claims(self, name: str) -> bool:
        """Whether a row may mean this name, or the object that it is a segment of."""
        folded = fold(name)
        return folded in self.claimed or segment_of(folded) in self.claimed


def fold(name: str) -> str:
    """The name without what spellings of one name differ in: case, percent-encoding, doubled slashes.

    Two things may fold to one name; then a row that means either spares both.
    """
    return re.sub(r"/{2,}", "/", unquote(name)).casefold()


def dark(before: Rows, listed: Iterable[Listed], after: Rows) -> list[Listed]:
    """What is listed and no row means: neither as it is named, nor through the object that it is a segment of."""
    return [entry for entry in listed if entry.spare or not (before.claims(entry.name) or after.claims(entry.name))]


def lost(before: Rows, listed: Mapping[str, Listed], after: Rows) -> dict[str, Location]:
    """What the same row means before and after, and is not listed, by name."""
    both = {name: location for name, location in after.named.items() if before.named.get(name) == location}
    return {name: location for name, location in both.items() if name not in listed}


def empty_part(parts: Iterable[str], rows: Rows, listed: Iterable[str]) -> str | None:
    """The first part of a place (a folder, a container) that holds nothing though the catalogue names something in it.

    A file system that is not mounted, or the container of another account, looks like that.
    """
    names = list(listed)
    for part in parts:
        if any(named.startswith(part) for named in rows.named) and not any(name.startswith(part) for name in names):
            return part
    return None


def is_young(entry: Listed, now: datetime, grace_seconds: float) -> bool:
    """Whether it may still be on its way into the catalogue; what has no time, or one to come, is."""
    return entry.modified is None or now - entry.modified < timedelta(seconds=grace_seconds)


def exceeds(part: int, whole: int, share: Fraction) -> bool:
    """Whether `part` is more than this share of `whole`; exactly as much is not."""
    return part > share * whole
