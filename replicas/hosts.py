"""The hosts the ledger knows, kept for some seconds; every question to a ledger that may be away.

A ledger that failed is left alone for a while: waiting for it costs every request its time (promise 3).
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from . import signing
from .errors import LedgerError
from .ledger import Ledger
from .model import Host, Result
from .settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")
D = TypeVar("D")

_KEEP_SECONDS = 5.0  # how long a list of hosts is good for
_REST_SECONDS = 15.0  # how long a ledger that failed is not asked again


def is_alive(host: Host, settings: Settings) -> bool:
    """Whether it has missed fewer than three heartbeats."""
    return host.age_seconds < silent_after_seconds(settings)


def silent_after_seconds(settings: Settings) -> float:
    """How old the last heartbeat of a host that lives may be."""
    return 3 * max(settings.janitor_interval_seconds, 60)


class Hosts:
    """Thread-safe. This host is always one of them."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._found: dict[str, Host] = {}
        self._until = self._rests_until = 0.0
        self._asking = threading.Lock()

    def all(self) -> dict[str, Host]:
        """By name, some seconds old; without a ledger this host only. One thread asks, the others do not wait."""
        if time.monotonic() >= self._until and self._asking.acquire(blocking=not self._until):
            try:
                own = self._settings.host_name, self._settings.host_zone, self._settings.host_url
                self._found = {own[0]: Host(own[0], own[1], own[2])} if own[2] else {}
                self._found |= {host.name: host for host in self.ask(self._ledger.hosts, ())}
                self._until = time.monotonic() + _KEEP_SECONDS
            finally:
                self._asking.release()
        return self._found

    def sign(self, url: str) -> str:
        """The URL signed if it is the per-host URL of one of these hosts, else as it is."""
        bases = {host.url for host in self.all().values()}
        return signing.sign_known(url, bases, self._settings.signing_keys, self._settings.signature_lifetime_seconds)

    def states(self, image_id: str) -> dict[tuple[str, str], Result]:
        """The last verdicts on an image's locations (`Ledger.states`); none without a ledger."""
        return self.ask(lambda: self._ledger.states([image_id]), {})

    def ask(self, question: Callable[[], T], otherwise: D) -> T | D:
        """What the ledger answers, or `otherwise`."""
        if time.monotonic() < self._rests_until:
            return otherwise
        try:
            return question()
        except LedgerError as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            log.warning("host %s: no peers, no verdicts, no claims for now: %s", self._settings.host_name, error)
            return otherwise
