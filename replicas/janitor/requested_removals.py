"""Removals that `replica prune`, an audit or another host asked for: decided once more, then row, then file."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from ..cache import Cache
from ..catalogue.images import Catalogue
from ..crash_points import crash_points
from ..errors import CacheError, Unreadable
from ..host.registration import Registration
from ..ledger.host_registry import HostRegistry
from ..ledger.ledger import Ledger, Withdrawal
from ..ledger.orphans import DARK
from ..ledger.prefetch_requests import HIGH, PrefetchRequests
from ..model import Pass, is_image_id
from ..removal.orders import RemovalOrders
from ..settings import Settings

log = logging.getLogger(__name__)


class RequestedRemovals:
    """One host's; each step may be killed anywhere and done again. `is_fetched` says whether a copy is coming now."""

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        catalogue: Catalogue,
        ledger: Ledger,
        hosts: HostRegistry,
        removals: RemovalOrders,
        registration: Registration,
        is_fetched: Callable[[str], bool],
    ) -> None:
        self._settings, self._cache, self._catalogue = settings, cache, catalogue
        self._ledger, self._hosts, self._removals = ledger, hosts, removals
        self._registration, self._is_fetched = registration, is_fetched
        self._requests = PrefetchRequests(ledger.database)

    @crash_points
    def run(self, done: Pass) -> None:
        """All that is asked. Raises CatalogueError, LedgerError: what is left is done by the next pass."""
        for request in self._ledger.pending_withdrawals(self._settings.host_name):
            try:
                self._remove(request, done)
            except CacheError as error:  # no crash test: a fault, perhaps of this file alone
                done.problems.append(f"removals: image {request.image_id}: {error}")

    def look(self) -> None:
        """The same between two passes, where a ledger that is away is not asked at once again."""
        asked = partial(self._ledger.pending_withdrawals, self._settings.host_name)
        for request in self._hosts.ask("removals", asked, ()):
            try:
                self._remove(request, Pass())
            except CacheError as error:
                log.warning("image %s: not removed as asked: %s", request.image_id, error)

    @crash_points
    def _remove(self, request: Withdrawal, done: Pass) -> None:
        if not is_image_id(request.image_id):  # no crash test: a row that is none of ours
            log.error("removal %d in the ledger is of no image id: %r; it is closed", request.id, request.image_id)
            self._ledger.finish_withdrawal(request.id)
            return
        if self._is_fetched(request.image_id):  # a copy that was cancelled ends first, or its file would come after
            return
        if request.reason == DARK and not self._is_dark(request):
            log.info("image %s: not removed as asked by %s: it is not dark any more", request.image_id, request.who)
            self._ledger.finish_withdrawal(request.id)
            return
        if request.reason != DARK and self._is_refused(request):
            return
        self._registration.withdraw(request.image_id)
        done.removed += bool(self._cache.complete.remove(request.image_id))
        log.info("image %s: removed as asked by %s: %s", request.image_id, request.who, request.reason)
        if (request.proof or {}).get("refill"):  # `replica repair`; killed before the next line, both are done again
            self._requests.request([request.image_id], [self._settings.host_name], who=request.who, priority=HIGH)
        self._ledger.finish_withdrawal(request.id)

    def _is_refused(self, request: Withdrawal) -> bool:
        """Whether the file stays, being the last one. Raises CatalogueError, LedgerError, CacheError: not known."""
        try:
            copy = self._cache.complete.hold(request.image_id)
        except Unreadable:
            return self._removals.is_refused(request, time.time())  # whatever was known of it may be of another
        if copy is None:
            return False
        with closing(copy):
            verified_at = copy.entry.verified_at if copy.entry.verified else None
        return self._removals.is_refused(request, verified_at)

    def _is_dark(self, request: Withdrawal) -> bool:
        """Whether the file is the one that an audit saw, and still nobody's. Raises CatalogueError, CacheError."""
        status = self._catalogue.statuses([request.image_id]).get(request.image_id)
        copy = self._cache.complete.hold(request.image_id)
        if copy is None:
            return False
        with closing(copy):
            return status in (None, "deleted") and copy.entry.size == (request.proof or {}).get("bytes")
