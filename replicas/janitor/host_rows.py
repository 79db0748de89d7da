"""Glance's rows of a host, and the count that makes our tables an index of them.

Glance's table has no index by host. So a pass asks it for the images that our tables know of the host, or knew until a
day ago. Once in `catalogue_scan_seconds` it reads the whole table, for rows that our tables never had: of an earlier
version, or of a time without a ledger. What it finds there our tables have from then on.
"""

import logging
from collections.abc import Iterator

from .. import location
from ..catalogue.images import Catalogue
from ..errors import LedgerError
from ..ledger.cached_copies import CachedCopies
from ..model import Host, Location

log = logging.getLogger(__name__)


class HostRows:
    """Every method raises CatalogueError when Glance's tables cannot be asked. Thread-safe."""

    def __init__(self, catalogue: Catalogue, copies: CachedCopies, scan_seconds: float) -> None:
        self._catalogue, self._copies, self._scan_seconds = catalogue, copies, scan_seconds

    def count(self, host: Host) -> None:
        """Our tables have every row of the host, if it is time to count them."""
        try:
            age = self._copies.counted_seconds(host.name).get(host.name)
            if age is None or age >= self._scan_seconds:
                found = {row.image_id for row in self._own(host, self._catalogue.of_host(host.name, whole=True))}
                self._copies.add(host.name, found - self._copies.ever_of_host(host.name))
                self._copies.forget_ended(host.name)
                self._copies.counted(host.name)
        except LedgerError as error:
            log.warning("host %s: its registrations are not counted: %s", host.name, error)

    def of(self, host: Host, *, pending: bool = False) -> Iterator[Location]:
        """Glance's active rows of the host, at its URL; with `pending` those that wait for Glance's scrubber."""
        return self._own(host, self._catalogue.of_host(host.name, pending=pending))

    @staticmethod
    def _own(host: Host, rows: Iterator[Location]) -> Iterator[Location]:
        return (row for row in rows if location.is_replica_of(row, host.name, host.url))
