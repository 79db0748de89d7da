"""Writes results into the ledger beside the work, at least every two seconds."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import LedgerError
from ..model import Result

Save = Callable[[Sequence[Result], Sequence[Result]], None]  # what is to be recorded, and what somebody has

RECORD_SECONDS = 1.0  # results lost at most when the program is killed; "every two seconds" leaves room


class Recorder:
    """Use as a context: at its end everything given to `add` is kept. `beat` is called as often, for leases."""

    def __init__(self, save: Save, beat: Callable[[], None] = lambda: None) -> None:
        self._save, self._beat = save, beat
        self._unsaved: list[Result] = []
        self._kept: list[Result] = []
        self._error: LedgerError | None = None
        self._lock, self._saving = threading.Lock(), threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def add(self, result: Result, *, is_kept: bool = False) -> None:
        """Kept soon, as of the ledger's time: hosts need not agree on the time. Raises what `save` raised before.

        With `is_kept` somebody else has recorded it.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            (self._kept if is_kept else self._unsaved).append(dataclasses.replace(result, checked_at=None))

    def flush(self) -> None:
        """Everything added so far is kept. Raises LedgerError."""
        with self._saving:
            with self._lock:
                results, self._unsaved = self._unsaved, []
                kept, self._kept = self._kept, []
            self._save(results, kept)

    def _run(self) -> None:
        while not self._end.wait(RECORD_SECONDS):
            try:
                self.flush()
                self._beat()
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
