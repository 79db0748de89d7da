"""Retries failures that the network may have caused, here and by another way; never a digest that differs."""

import collections
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..model import Result
from ..stores import kinds
from ..verdict import Verdict
from .work_queue import WorkItem
from .worker_pool import backend

PAUSES = (0.3, 1.0)  # seconds before another try
GIVEN_UP = 5  # failures in a row at one place, each after all tries; from then on one try is enough
_BY_WEB = (Verdict.MISSING, Verdict.WRONG_SIZE)  # a proxy or an error page, too, can say so


class Outcome(NamedTuple):
    """A result, and whether it is in the ledger already."""

    result: Result
    is_recorded: bool = False


class Retry:
    """`probe` reads from here; `ask` has the host of a cached copy read it, None: it does not answer. For threads."""

    def __init__(
        self, probe: Callable[[WorkItem], Result], ask: Callable[[WorkItem], Result | None], *, ask_first: bool = True
    ) -> None:
        self._probe, self._ask, self._ask_first = probe, ask, ask_first
        self._failures: collections.Counter[str] = collections.Counter()

    def verify(self, item: WorkItem) -> Outcome:
        """The result that stands after all ways were tried."""
        asked = self._ask(item) if self._ask_first else None
        if asked is not None and not asked.verdict.is_unknown:
            return Outcome(asked, is_recorded=True)
        result = self._try(item)
        if is_suspect(result) and not self._ask_first:
            asked = self._ask(item)
            if asked is not None and not asked.verdict.is_unknown:
                return Outcome(asked, is_recorded=True)
        return Outcome(result)

    def _try(self, item: WorkItem) -> Result:
        place, tries = backend(item.location), 1
        result = self._probe(item)
        for pause in PAUSES if self._failures[place] < GIVEN_UP else ():
            if not is_suspect(result):
                break
            time.sleep(pause)
            result, tries = self._probe(item), tries + 1
        self._failures[place] = self._failures[place] + 1 if is_suspect(result) else 0
        if tries == 1 or not is_suspect(result):
            return result
        return replace(result, detail=f"{result.detail} ({tries} tries)")


def is_suspect(result: Result) -> bool:
    """Whether the path may be at fault and not the bytes."""
    kind = kinds.of(result.location.url)
    if result.verdict in _BY_WEB:
        return kind.is_web
    if result.verdict is Verdict.DENIED and kind.denies_for_good:
        return False
    return result.verdict.is_path_fault
