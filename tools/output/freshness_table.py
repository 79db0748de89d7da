"""`replica verify --freshness`: how long ago locations were verified, as a table."""

from typing import Any

from glance_replicas.verify.freshness import Freshness

from .cells import Bytes
from .text import age, count

COLUMNS = ("Last Verified", "Locations", "Size")


def rows(found: Freshness) -> list[tuple[Any, ...]]:
    """One for each band."""
    return [(band.name, band.locations, Bytes(band.bytes)) for band in found.bands()]


def line(found: Freshness, overdue_seconds: float) -> str:
    """What is overdue, and what to do."""
    if not found.overdue:
        return f"nothing is overdue: all were verified in the last {age(overdue_seconds)}"
    what = count(found.overdue, "location is", "locations are")
    return (
        f"{what} overdue, not verified in the last {age(overdue_seconds)}\n"
        f"    next: replica verify --all --max-age {int(overdue_seconds / 3600)}h"
    )
