"""How many fills the downloads of a host may begin at a time, all together and for one project."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ..cache import Cache
from ..cache.fill_slots import FillSlots
from ..cache.partial_file import PartialFile
from ..errors import CacheError
from ..model import Location
from .plan import FillHooks, Plan

_FILE = "client-fills"


class TooManyFills(CacheError):
    """Clients have begun enough fills here; this download passes through uncached."""


class FillLimits:
    """`total` fills begun by clients and `each` of one project, over all processes of a host; 0: no limit.

    Thread-safe. Nothing is looked at before a fill begins.
    """

    def __init__(self, cache: Cache, total: int, each: int) -> None:
        self._cache, self._total, self._each = cache, total, each

    def limited(self, plan: Plan, project: str) -> Plan:
        """The plan of a client's download: a fill that it begins counts until it ends, or raises TooManyFills."""
        return replace(plan, hooks=_Counted(plan.hooks, partial(self._take, project)))

    def _take(self, project: str) -> FillSlots:
        places = FillSlots(self._cache, _FILE)
        try:
            if self._total and not places.take("all", self._total):
                raise TooManyFills(f"all {self._total} fills of clients that max_client_fills allows run already")
            if self._each and not places.take(f"project {project}", self._each):
                raise TooManyFills(f"project {project} has all {self._each} fills of max_client_fills_per_project")
        except BaseException:
            places.free()
            raise
        return places


class _Counted:
    """The hooks of a client's fill, which has its places from its reservation to its end."""

    def __init__(self, hooks: FillHooks, take: Callable[[], FillSlots]) -> None:
        self._hooks, self._take = hooks, take
        self._held: list[FillSlots] = []  # of its fills, one after the other; which is whose makes no difference

    def reserve(self, partial_file: PartialFile, size: int) -> None:
        self._held.append(self._take())
        try:
            self._hooks.reserve(partial_file, size)
        except BaseException:
            self._held.pop().free()
            raise

    def renew(self, length: int) -> None:
        self._hooks.renew(length)

    def committed(self) -> None:
        self._hooks.committed()

    def condemned(self, used: Sequence[Location]) -> None:
        self._hooks.condemned(used)

    def ended(self) -> None:
        self._held.pop().free()
        self._hooks.ended()
