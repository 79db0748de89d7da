"""How long ago locations were verified, by number and by bytes. No I/O."""

from datetime import datetime
from typing import NamedTuple

_HOUR, _DAY = 3600, 86400
BANDS = (("hour", _HOUR), ("day", _DAY), ("week", 7 * _DAY), ("4 weeks", 28 * _DAY))  # name, and seconds at most
OLDER, NEVER = "older", "never"


class Band(NamedTuple):
    """Locations whose last verification is about so old, none of them in a younger band."""

    name: str  # of BANDS, OLDER or NEVER
    locations: int
    bytes: int  # what these images have, together


class Freshness:
    """A histogram, as of `now`: `add` every location, with `schedule.judged_at` of what the ledger says of it."""

    def __init__(self, now: datetime, overdue_seconds: float | None = None) -> None:
        self._now, self._overdue_seconds = now, overdue_seconds
        self._found = {name: [0, 0] for name in (*(name for name, _ in BANDS), OLDER, NEVER)}
        self.overdue = 0  # locations never verified, or longer ago than `overdue_seconds`

    def add(self, judged_at: datetime | None, size: int | None) -> None:
        """One more location, of an image of `size` bytes."""
        age = None if judged_at is None else (self._now - judged_at).total_seconds()
        found = self._found[_band(age)]
        found[0] += 1
        found[1] += size or 0
        if self._overdue_seconds is not None:
            self.overdue += age is None or age > self._overdue_seconds

    def bands(self) -> list[Band]:
        """The youngest first; all of them, also those without a location."""
        return [Band(name, locations, size) for name, (locations, size) in self._found.items()]


def _band(age: float | None) -> str:
    if age is None:
        return NEVER
    return next((name for name, limit in BANDS if age <= limit), OLDER)
