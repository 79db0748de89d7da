"""Whether this host may register copies: directory and URL are its own, and no other living host's.

A host that shares either goes on serving and filling, and says what is wrong in its log, in `replica check` and in each
pass of its janitor. Two hosts that register in one directory, or under one URL, would undo each other's rows for ever.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from ..cache import Cache
from ..errors import CacheError
from ..model import Host
from ..settings import Settings
from . import mark
from .mark import Mark

if TYPE_CHECKING:
    from ..ledger.host_registry import HostRegistry

log = logging.getLogger(__name__)

_KEEP_SECONDS = 5.0  # how long an answer is good for


def rival(own: Mark, hosts: Iterable[Host], is_alive: Callable[[Host], bool]) -> Host | None:
    """The living host that has this host's URL, and had it first; None: the URL is this host's.

    Of two that report at one time the one whose name comes first has it. A name that this host had before is itself.
    """
    living = [host for host in hosts if host.url == own.url and host.heartbeat is not None and is_alive(host)]
    others = [host for host in living if host.name != own.host and host.name not in own.before]
    first = min(others, key=lambda other: other.name, default=None)
    is_known = any(host.name == own.host for host in living)
    return None if first is None or (is_known and own.host < first.name) else first


class Standing:
    """One host's; thread-safe. Without an answer of directory or ledger it is as it should be."""

    def __init__(
        self, settings: Settings, cache: Cache, hosts: "HostRegistry", is_alive: Callable[[Host], bool]
    ) -> None:
        self._settings, self._cache, self._hosts, self._is_alive = settings, cache, hosts, is_alive
        self._own = Mark(settings.host_name, settings.host_url, mark.machine())
        self._lock, self._until, self._said = threading.Lock(), 0.0, ""
        self._there: Mark | None = None

    def claim(self, silent_after_seconds: float) -> bool:
        """The directory is this host's; False: it is another's. Under the janitor's lock. Raises CacheError."""
        there = mark.claim(self._cache, self._own, silent_after_seconds)
        with self._lock:
            self._there, self._until = there, time.monotonic() + _KEEP_SECONDS
        return there.host == self._own.host

    def owner(self) -> Mark | None:
        """The other host that the directory belongs to; None: it is this host's, or nobody's yet."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._there, self._until = self._read(), time.monotonic() + _KEEP_SECONDS
            there = self._there
        return there if there is not None and not there.is_of(self._own) else None

    def former(self) -> Collection[str]:
        """The names that this host had before under the same URL."""
        self.owner()
        return self._there.names_before(self._own) if self._there is not None else ()

    def rival(self) -> Host | None:
        """The other living host that has this host's URL."""
        own = Mark(self._own.host, self._own.url, self._own.machine, tuple(self.former()))
        return rival(own, self._hosts.all().values(), self._is_alive) if own.url else None

    def problem(self) -> str | None:
        """Why this host registers nothing, and what to do; None: nothing speaks against it. Said once in the log."""
        text = self._problem()
        if (text or "") != self._said:
            self._said = text or ""
            if text:
                log.error("host %s registers no copies: %s", self._settings.host_name, text)
            else:
                log.info("host %s registers its copies", self._settings.host_name)
        return text

    def _problem(self) -> str | None:
        owner = self.owner()
        if owner is not None:
            return (
                f"image_cache_dir {self._cache.folder} is that of host {owner.host} ({owner.url}): "
                "give each host a directory of its own"
            )
        other = self.rival()
        if other is not None:
            return (
                f"host_url {other.url} is that of host {other.name}, which lives: "
                "give each host the address of its own machine, never a load balancer's"
            )
        return None

    def _read(self) -> Mark | None:
        try:
            return mark.read(self._cache)
        except CacheError as error:
            log.debug("the owner of the cache directory cannot be read: %s", error)
            return None
