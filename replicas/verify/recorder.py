"""Writes results into the ledger beside the work, at least every two seconds."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import LedgerError
from ..model import Result

Save = Callable[
    [Sequence[Result], Sequence[Result]], None
]  # what is to be recorded, and what somebody else has recorded

RECORD_SECONDS = 1.0  # results lost at most when the program is killed; "every two seconds" leaves room


class Recorder:
    """Use as a context: at its end everything given to `add` is kept. `renew` is called as often, for leases."""

    def __init__(self, save: Save, renew: Callable[[], None] = lambda: None) -> None:
        self._save, self._renew = save, renew
        self._unsaved: list[Result] = []
        self._recorded: list[Result] = []
        self._error: LedgerError | None = None
        self._lock, self._saving = threading.Lock(), threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def add(self, result: Result, *, is_recorded: bool = False) -> None:
        """Kept soon, as of the ledger's time: hosts need not agree on the time. Raises what `save` raised before.

        With `is_recorded` somebody else has recorded it.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            (self._recorded if is_recorded else self._unsaved).append(dataclasses.replace(result, checked_at=None))

    def flush(self) -> None:
        """Everything added so far is kept. Raises LedgerError."""
        with self._saving:
            with self._lock:
                results, self._unsaved = self._unsaved, []
                recorded, self._recorded = self._recorded, []
            self._save(results, recorded)

    def _run(self) -> None:
        while not self._end.wait(RECORD_SECONDS):
            try:
                self.flush()
                self._renew()
            except LedgerError as error:
                self._error = error
                return

    def __enter__(self) -> "Recorder":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if kind is None:
            self.flush()
            return
        with suppress(LedgerError):  # what ended the work is what matters
            self.flush()
