"""This process's part in a verification run that several share."""

import os
import socket
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..ledger.schema.rows import place_key
from ..model import Result
from .schedule import Schedule
from .work_queue import WorkItem

if TYPE_CHECKING:
    from ..ledger.shared_runs import Run, SharedRuns


class RunWorker:
    """Claims what is due before it is verified, and gives the claims back with the results."""

    def __init__(self, runs: "SharedRuns", run: "Run", schedule: Schedule) -> None:
        self._runs, self._run, self._schedule = runs, run, schedule
        self._owner = f"{socket.gethostname()[:200]}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self.asked = 0  # claims asked for since `begin_pass`

    def begin_pass(self) -> None:
        """Count anew."""
        self.asked = 0

    def claim(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Those of the items that are ours to verify; the others somebody else has, or has verified since."""
        wanted = {(item.image.id, item.place): item for item in items}
        self.asked += len(wanted)
        granted = self._runs.claim(self._owner, wanted)
        over = {key for key in granted.mine if self._schedule.is_fresh(granted.known.get(key))}
        if over:
            self._runs.record(self._owner, [], over)
        return [item for key, item in wanted.items() if key in granted.mine - over]

    def record(self, results: Sequence[Result], recorded: Sequence[Result]) -> None:
        """The results are in the ledger, as those are that somebody recorded before, and their claims given back."""
        done = {(result.location.image_id, place_key(result.location)) for result in (*results, *recorded)}
        if done:
            self._runs.record(self._owner, results, done)

    def renew(self) -> None:
        """The claims hold for another lease."""
        self._runs.renew(self._owner)

    def release(self) -> None:
        """What we have claimed and not verified is anybody's."""
        self._runs.release(self._owner)

    def finish(self) -> dict[str, int]:
        """Nothing is due any more: the run is over. How many places it found in which state, whoever verified them."""
        self._runs.finish(self._run)
        return self._runs.verdicts(self._run)
