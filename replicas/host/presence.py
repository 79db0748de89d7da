"""How others hear of this host: its heartbeat, its new URL, its new name; and what a guest in a directory may do."""

import logging
import time
from collections.abc import Callable

from ..cache import Cache
from ..cache.eviction import Eviction
from ..crash_points import crash_points
from ..ledger.cached_copies import CachedCopies
from ..ledger.host_registry import silent_after_seconds
from ..ledger.ledger import Ledger
from ..ledger.prefetch_requests import OPEN, PrefetchRequests
from ..model import Host, Pass
from ..settings import Settings
from . import store_names
from .registration import Registration
from .rename import rename
from .standing import Standing

log = logging.getLogger(__name__)


class Presence:
    """One host's; each step may be killed anywhere and done again. `withdraw_all` takes the rows of a host away."""

    def __init__(
        self,
        *,
        settings: Settings,
        cache: Cache,
        eviction: Eviction,
        ledger: Ledger,
        standing: Standing,
        registration: Registration,
        withdraw_all: Callable[[Host], int],
    ) -> None:
        self._settings, self._cache, self._eviction, self._ledger = settings, cache, eviction, ledger
        self._standing, self._registration, self._withdraw_all = standing, registration, withdraw_all
        self._beaten = 0.0

    def claim(self) -> bool:
        """The directory is this host's; False: it is a guest there. Under the janitor's lock. Raises CacheError."""
        return self._standing.claim(silent_after_seconds(self._settings))

    @crash_points
    def announce(self, done: Pass) -> None:
        """The ledger knows this host, and under a new name what it kept under the old one.

        Rows under a URL the host had before go first, while that is still known. Raises LedgerError, CatalogueError.
        """
        url, name = self._settings.host_url, self._settings.host_name
        if url is None:  # no crash test: a host without a URL
            done.problems.append(f"heartbeat: {self._registration.why_unregistered()}")
            return
        if (problem := self._standing.problem()) is not None:  # no crash test: two hosts in one place
            done.problems.append(f"heartbeat: {problem}")
        for host in self._ledger.hosts():
            if host.name == name and host.url != url:
                log.warning("host %s moved from %s to %s", name, host.url, url)
                done.withdrawn += self._withdraw_all(host)
            elif self._is_former(host):  # no crash test: a host with a new name
                log.warning("host %s is called %s now", host.name, name)
                rename(self._ledger.database, host.name, name)
        self.beat()
        store_names.tell(self._ledger.database, name, self._settings.http_store)

    def forget_former(self, done: Pass) -> None:
        """What is left of the names this host had before, once its files are registered under the one it has."""
        for host in self._ledger.hosts() if self._standing.former() else ():
            if self._is_former(host):
                done.withdrawn += self._withdraw_all(host)
                CachedCopies(self._ledger.database).forget(host.name)
                self._ledger.forget_host(host.name)

    @crash_points
    def beat(self) -> None:
        """This host lives, as of now. Not under another's URL: that one would be taken for the guest then."""
        self._beaten = time.monotonic()
        if self._settings.host_url is None or self._standing.rival() is not None:
            return
        is_guest = self._standing.owner() is not None
        sizes = [] if is_guest else [entry.size for entry in self._cache.complete.entries()]
        self._ledger.heartbeat(
            Host(
                name=self._settings.host_name,
                zone=self._settings.host_zone,
                url=self._settings.host_url,
                files=len(sizes),
                bytes_used=sum(sizes),
                bytes_free=self._eviction.free(),
            )
        )

    def keep_alive(self) -> None:
        """Called often in long work: the heartbeat does not stop meanwhile."""
        if time.monotonic() - self._beaten > self._settings.janitor_interval_seconds:
            self.beat()

    def visit(self, done: Pass) -> None:
        """The pass of a guest: it lives, has no row, and what it was asked to remove is removed with that.

        The files are the owner's, whose janitor registers them.
        """
        self.announce(done)
        here = Host(self._settings.host_name, self._settings.host_zone, self._settings.host_url or "")
        done.withdrawn += self._withdraw_all(here)
        CachedCopies(self._ledger.database).forget(here.name)
        for request in self._ledger.pending_withdrawals(self._settings.host_name):
            self._ledger.finish_withdrawal(request.id)
        self._refuse_copies()

    def _refuse_copies(self) -> None:
        """What a guest was asked to fetch has failed: whoever asked learns why, and what to do."""
        why = f"host {self._settings.host_name} keeps no copies: {self._standing.problem()}"
        requests = PrefetchRequests(self._ledger.database)
        for request in requests.list(hosts=[self._settings.host_name], states=OPEN):
            if requests.failed(request.image_id, request.host, why):
                log.warning("image %s: its copy is given up: %s", request.image_id, why)

    def _is_former(self, host: Host) -> bool:
        return host.url == self._settings.host_url and host.name in self._standing.former()
