"""The hosts the ledger knows, kept for some seconds; every question to a ledger that may be away.

A question that failed is not asked again for a while, and nobody who waits for bytes waits long for an answer: waiting
for the ledger costs a request its time (promise 3). Each question has a breaker of its own: one that cannot be
answered now (a locked table, a column of another version) says nothing about the others.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from .. import signing
from ..bounded_wait import within
from ..errors import CatalogueError, LedgerError
from ..model import Host, Location, Result
from ..settings import Settings
from .ledger import Ledger

log = logging.getLogger(__name__)

T = TypeVar("T")
D = TypeVar("D")

_KEEP_SECONDS = 5.0  # how long a list of hosts is good for
_AGAIN_SECONDS = 1.0  # how long after a list was asked for early no other is
_REST_SECONDS = 15.0  # how long a question that failed is not asked again
_WAIT_SECONDS = 1.5  # how long somebody who waits for bytes waits for an answer
_HASTE_SECONDS = 0.25  # the same while another question found the ledger slow


def is_alive(host: Host, settings: Settings) -> bool:
    """Whether it has missed fewer than three heartbeats."""
    return host.age_seconds < silent_after_seconds(settings)


def silent_after_seconds(settings: Settings) -> float:
    """How old the last heartbeat of a host that lives may be."""
    return 3 * max(settings.janitor_interval_seconds, 60)


class HostRegistry:
    """Thread-safe. This host is always one of them."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._found: dict[str, Host] = {}
        self._listed: list[Host] = []  # what the ledger said last,
        self._listed_at = 0.0  # and when, by the monotonic clock
        self._until = self._again_at = self._slow_until = 0.0
        self._rests_until: dict[str, float] = {}
        self._asking = threading.Lock()

    def all(self) -> dict[str, Host]:
        """By name, some seconds old. One thread asks, the others take the list before.

        While the ledger is away its last list stands, and grows old: a host of it is dead in its time.
        """
        if time.monotonic() >= self._until:
            self._renew(wait=not self._until)
        return self._found

    def knowing(self, names: Iterable[str | None]) -> dict[str, Host]:
        """The same; asked again when it lacks one of these, which may have come since.

        Users write such names, too: so it is at most once a second, and nobody waits for another's question.
        """
        began, found = time.monotonic(), self.all()
        lacks = any(name is not None and name not in found for name in names)
        return self.anew() if lacks and self._listed_at < began else found

    def anew(self) -> dict[str, Host]:
        """By name, a second old at most, while the ledger answers and nobody else is asking."""
        if time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + _AGAIN_SECONDS
            self._renew(wait=False)
        return self._found

    def _renew(self, *, wait: bool) -> None:
        """One thread asks; who does not `wait` for it goes on with the list before."""
        if self._asking.acquire(blocking=wait):
            try:
                is_new = self.ask_soon("hosts", self._ask_ledger, False)
                self._found = self._list()
                self._until = time.monotonic() + (_KEEP_SECONDS if is_new else min(_KEEP_SECONDS, _AGAIN_SECONDS))
            finally:
                self._asking.release()

    def _ask_ledger(self) -> bool:
        """An answer that came too late for who asked is good for the next."""
        began, listed = time.monotonic(), self._ledger.hosts()
        if began > self._listed_at:
            self._listed, self._listed_at = listed, began
        return True

    def _list(self) -> dict[str, Host]:
        listed, older = self._listed, time.monotonic() - self._listed_at
        name, zone, url = self._settings.host_name, self._settings.host_zone, self._settings.host_url
        own = {name: Host(name, zone, url)} if url else {}
        return own | {host.name: replace(host, age_seconds=host.age_seconds + older) for host in listed}

    def living(self, names: Iterable[str | None] = ()) -> dict[str, Host]:
        """This one, and those of them, `knowing` these names, that have missed fewer than three heartbeats."""
        here, found = self._settings.host_name, self.knowing(names)
        return {name: host for name, host in found.items() if name == here or is_alive(host, self._settings)}

    def sign(self, copy: Location) -> str:
        """Its URL, signed if a living host of ours serves that very copy there (`signing.sign_copy`), else as it is."""
        return signing.sign_copy(copy, self.living([copy.host]), self._settings)

    def now(self) -> datetime:
        """The ledger's time, as its list of hosts told it; this machine's without one."""
        told = [host.heartbeat + timedelta(seconds=host.age_seconds) for host in self.all().values() if host.heartbeat]
        return max(told, default=datetime.now(UTC))

    def states(self, image_id: str) -> dict[tuple[str, str], Result]:
        """The last verdicts on an image's locations (`Ledger.states`); none without a ledger."""
        return self.ask_soon("states", lambda: self._ledger.states([image_id]), {})

    def ask(self, name: str, question: Callable[[], T], otherwise: D, *, rests: bool = True) -> T | D:
        """What the ledger answers to the question of this name, however long that takes, or `otherwise`.

        What failed a moment ago is not asked; without `rests` it is, for who is about to do what cannot be undone.
        """
        if rests and time.monotonic() < self._rests_until.get(name, 0.0):
            return otherwise
        try:
            return question()
        except (LedgerError, CatalogueError) as error:
            self._rests_until[name] = time.monotonic() + _REST_SECONDS
            log.warning("host %s: continues without %s for now: %s", self._settings.host_name, name, error)
            return otherwise

    def ask_soon(self, name: str, question: Callable[[], T], otherwise: D, *, rests: bool = True) -> T | D:
        """The same for somebody who waits for bytes: what takes too long is left to itself, and may yet be done."""

        def asked() -> T:
            began = time.monotonic()
            seconds = _HASTE_SECONDS if began < self._slow_until else _WAIT_SECONDS
            try:
                return within(seconds, question)
            except TimeoutError as error:
                self._slow_until = time.monotonic() + _REST_SECONDS
                raise LedgerError(
                    f"no answer within {seconds:g} s; is its database locked, or a backup of it running?"
                ) from error

        return self.ask(name, asked, otherwise, rests=rests)
