"""Asks the hosts of cached copies to read their own files, and waits for what they say."""

import collections
import time
from typing import TYPE_CHECKING

from ..caller import who
from ..errors import LedgerError
from ..ledger.host_registry import is_alive
from ..ledger.verify_requests import VerifyRequests
from ..location import is_replica_of
from ..model import Host, Result
from .work_queue import WorkItem

if TYPE_CHECKING:
    from ..ledger.ledger import Ledger
    from ..settings import Settings

POLL_SECONDS = 0.3
SILENT_SECONDS = 30.0  # neither taken up nor seen reading for so long: it will not answer
GIVEN_UP = 2  # requests in a row that a host did not answer; then it is not asked any more
_FRESH_SECONDS = 30.0  # how long a list of hosts is good for


class RemoteVerify:
    """For threads. `rate`: bytes per second that a host may read for us at most."""

    def __init__(self, settings: "Settings", ledger: "Ledger", rate: int | None) -> None:
        self._settings, self._ledger, self._rate = settings, ledger, rate
        self._requests = VerifyRequests(ledger.database)
        self._unanswered: collections.Counter[str] = collections.Counter()
        self._hosts: dict[str, Host] = {}
        self._until = 0.0

    def __call__(self, item: WorkItem) -> Result | None:
        """What the host of a cached copy found in its own file just now; None: there is nobody to answer."""
        host = self._host(item)
        if host is None or self._unanswered[host.name] >= GIVEN_UP:
            return None
        try:
            result = self._answer(item, host.name)
        except LedgerError:
            return None
        self._unanswered[host.name] = 0 if result else self._unanswered[host.name] + 1
        return result

    def _host(self, item: WorkItem) -> Host | None:
        if not item.location.is_cached:
            return None
        if time.monotonic() > self._until:
            try:
                self._hosts = {host.name: host for host in self._ledger.hosts()}
            except LedgerError:
                self._hosts = {}
            self._until = time.monotonic() + _FRESH_SECONDS
        host = self._hosts.get(item.location.host or "")
        if host is None or not is_alive(host, self._settings) or not is_replica_of(item.location, host.name, host.url):
            return None
        return host

    def _answer(self, item: WorkItem, host: str) -> Result | None:
        asked_at = self._requests.ask(item.image.id, host, who=who(), rate=self._rate)
        while (silence := self._requests.silence(item.image.id, host)) is not None:
            if silence > SILENT_SECONDS:
                self._requests.end(item.image.id, host)
                return None
            time.sleep(POLL_SECONDS)
        state = self._ledger.states([item.image.id]).get((item.image.id, item.place))
        if state is None or state.checked_at is None or state.checked_at < asked_at:
            return None
        return Result(item.location, state.verdict, state.evidence, state.detail, None, state.seconds, state.size)
