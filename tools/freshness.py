"""`replica verify --freshness`: how long ago locations were verified, from catalogue and ledger alone."""

from typing import Any

from glance_replicas.catalogue.selection import Selection
from glance_replicas.ledger.ledger import place_key
from glance_replicas.model import Evidence
from glance_replicas.verify.freshness import Freshness
from glance_replicas.verify.schedule import judged_at

from .command import OnHost
from .report import Bytes, age, count

COLUMNS = ("Last Verified", "Locations", "Size")


def freshness(command: OnHost, wanted: Selection, evidence: Evidence, overdue_seconds: float | None) -> Freshness:
    """The histogram of the locations of a selection, by looks so deep. Raises LedgerError, CatalogueError."""
    found = Freshness(command.ledger.now(), overdue_seconds)
    for image, lasts in command.with_lasts(wanted, early=True):
        for one in wanted.of(image):
            last = lasts.get((image.id, place_key(one)))
            if wanted.has_state(last):
                found.add(judged_at(last, evidence), image.size)
    return found


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
