"""How many fills the downloads of one process may begin at a time, all together and for one project."""

import threading
from collections import Counter
from dataclasses import replace

from .cache.partial_file import Growing
from .errors import CacheError
from .fill import Plan


class TooManyFills(CacheError):
    """Clients have begun enough fills here; this download passes through uncached."""


class FillLimits:
    """`total` fills begun by clients and `each` of one project; 0: no limit. Thread-safe."""

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def limited(self, plan: Plan, project: str) -> Plan:
        """The plan of a client's download: a fill that it begins counts until it ends, or raises TooManyFills."""

        def reserve(growing: Growing, size: int) -> None:
            self._begin(project)
            try:
                plan.reserve(growing, size)
            except BaseException:
                self._end(project)
                raise

        def ended() -> None:
            self._end(project)
            plan.ended()

        return replace(plan, reserve=reserve, ended=ended)

    def _begin(self, project: str) -> None:
        with self._lock:
            if self._total and self._running.total() >= self._total:
                raise TooManyFills(f"{self._total} fills of clients run in this process: max_client_fills")
            if self._each and self._running[project] >= self._each:
                raise TooManyFills(f"{self._each} fills of project {project} run: max_client_fills_per_project")
            self._running[project] += 1

    def _end(self, project: str) -> None:
        with self._lock:
            self._running[project] -= 1
            if not self._running[project]:
                del self._running[project]
