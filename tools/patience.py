"""Suspicion before condemnation: where the fault may be the path, several tries and another way, never for a digest."""

import collections
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from glance_replicas import location
from glance_replicas.model import Result, Verdict

from ..verify.worker_pool import backend
from .due import Due

log = logging.getLogger(__name__)

PAUSES = (0.3, 1.0)  # seconds before another try
GIVEN_UP = 5  # failures in a row at one place, each after all tries; from then on one try is enough
_PATH = (Verdict.UNREACHABLE, Verdict.STALLED, Verdict.DENIED)
_HTTP = (Verdict.MISSING, Verdict.WRONG_SIZE)  # a proxy or an error page, too, can say so


class Found(NamedTuple):
    """A result, and whether it is in the ledger already."""

    result: Result
    is_kept: bool = False


class Patience:
    """`look` reads from here; `ask` has the host of a cached copy read it, None: it does not answer. For threads."""

    def __init__(
        self, look: Callable[[Due], Result], ask: Callable[[Due], Result | None], *, ask_first: bool = True
    ) -> None:
        self._look, self._ask, self._ask_first = look, ask, ask_first
        self._failures: collections.Counter[str] = collections.Counter()

    def see(self, due: Due) -> Found:
        """The result that stands after all ways were tried."""
        asked = self._ask(due) if self._ask_first else None
        if asked is not None and not asked.verdict.is_unknown:
            return Found(asked, is_kept=True)
        result = self._try(due)
        if is_suspect(result) and not self._ask_first:
            asked = self._ask(due)
            if asked is not None and not asked.verdict.is_unknown:
                return Found(asked, is_kept=True)
        return Found(result)

    def _try(self, due: Due) -> Result:
        place, tries = backend(due.location), 1
        result = self._look(due)
        for pause in PAUSES if self._failures[place] < GIVEN_UP else ():
            if not is_suspect(result):
                break
            time.sleep(pause)
            result, tries = self._look(due), tries + 1
        self._failures[place] = self._failures[place] + 1 if is_suspect(result) else 0
        if tries == 1 or not is_suspect(result):
            return result
        return replace(result, detail=f"{result.detail} ({tries} tries)")


def is_suspect(result: Result) -> bool:
    """Whether the path may be at fault and not the bytes."""
    if result.verdict in _HTTP:
        return location.scheme(result.location.url) in ("http", "https")
    if result.verdict is Verdict.DENIED and location.scheme(result.location.url) in ("file", "filesystem"):
        return False  # owners and modes do not change by themselves, and the file was perhaps read to its end
    return result.verdict in _PATH
