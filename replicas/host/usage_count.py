"""What this process has served, counted, and told to the ledger from time to time."""

from ..cache import Cache
from ..cache.statistics import Statistics
from ..ledger.host_registry import HostRegistry
from ..ledger.usage import Usage


class UsageCount:
    """One host's; thread-safe."""

    def __init__(self, here: str, cache: Cache, statistics: Statistics, hosts: HostRegistry, usage: Usage) -> None:
        self._here, self._cache, self._hosts, self._usage = here, cache, hosts, usage
        self._statistics = statistics

    def served(self, image_id: str, sent: int, *, hit: bool, is_use: bool = True) -> None:
        """So many bytes went out. Only what is sent to clients counts when it is decided what goes first."""
        self._statistics.served(image_id, sent, hit=hit)
        if sent and is_use:
            self._cache.complete.used(image_id)

    def flush_usage(self) -> int:
        """What this process served since the last time is in the ledger; returns its bytes.

        Without a ledger they wait for the next time. A process that is killed takes with it what it has not told.
        """

        def add() -> bool:
            self._usage.add(self._here, taken)
            return True

        taken = self._statistics.take()
        if taken and not self._hosts.ask("usage", add, False):
            self._statistics.give_back(taken)
            return 0
        return sum(use.bytes for use in taken.values())
