"""The workers of one host's janitor, each made of the parts of the host that it needs."""

from collections.abc import Callable
from functools import partial

from ..host.local_host import LocalHost
from ..host.presence import Presence
from ..ledger.prefetch_requests import PrefetchRequests
from ..ledger.verify_requests import VerifyRequests
from ..prefetch.worker import PrefetchWorker
from .reconcile import Reconciler
from .requested_removals import RequestedRemovals
from .scrub import Scrubber
from .verify_worker import VerifyWorker


def reconciler(host: LocalHost) -> Reconciler:
    """Keeps disk and catalogue in agreement."""
    return Reconciler(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        ledger=host.ledger,
        copies=host.copies,
        hosts=host.host_registry,
        removals=host.removals,
        registration=host.registration,
        own_copies=host.own_copies,
    )


def presence(host: LocalHost, withdraws: Reconciler) -> Presence:
    """Tells others of this host."""
    return Presence(
        settings=host.settings,
        cache=host.cache,
        eviction=host.eviction,
        ledger=host.ledger,
        standing=host.standing,
        registration=host.registration,
        withdraw_all=withdraws.withdraw_all,
    )


def requested_removals(host: LocalHost, is_fetched: Callable[[str], bool]) -> RequestedRemovals:
    """Removes what others asked to go."""
    return RequestedRemovals(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        ledger=host.ledger,
        hosts=host.host_registry,
        removals=host.removals,
        registration=host.registration,
        is_fetched=is_fetched,
    )


def scrubber(host: LocalHost, keep_alive: Callable[[], None]) -> Scrubber:
    """Reads files again."""
    return Scrubber(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        own_copies=host.own_copies,
        full_reads=host.full_reads,
        keep_alive=keep_alive,
    )


def verify_worker(host: LocalHost, keep_alive: Callable[[], None]) -> VerifyWorker:
    """Reads files when it is asked to."""
    return VerifyWorker(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        hosts=host.host_registry,
        requests=VerifyRequests(host.ledger.database),
        scrubber=partial(scrubber, host),
        keep_alive=keep_alive,
    )


def prefetch_worker(host: LocalHost, wake: Callable[[], None] = lambda: None) -> PrefetchWorker:
    """Fetches what this host is to have."""
    return PrefetchWorker(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        requests=PrefetchRequests(host.ledger.database),
        registration=host.registration,
        own_copies=host.own_copies,
        pin_sync=host.pin_sync,
        fill_setup=host.fill_setup,
        wake=wake,
    )
