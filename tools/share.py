"""This process's part in a verification run that several share."""

import os
import socket
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glance_replicas.model import Result
from glance_replicas.verify.schedule import Need

from .due import Due

if TYPE_CHECKING:
    from glance_replicas.ledger.runs import Run, Runs


class Share:
    """Claims what is due before it is looked at, and gives the claims back with the results."""

    def __init__(self, runs: "Runs", run: "Run", need: Need) -> None:
        self._runs, self._run, self._need = runs, run, need
        self._owner = f"{socket.gethostname()[:200]}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self.asked = 0  # claims asked for since `begin_pass`

    def begin_pass(self) -> None:
        """Count anew."""
        self.asked = 0

    def claim(self, items: Sequence[Due]) -> list[Due]:
        """Those of the items that are ours to look at; the others somebody else has, or has looked at since."""
        wanted = {(one.image.id, one.place): one for one in items}
        self.asked += len(wanted)
        granted = self._runs.claim(self._owner, wanted)
        over = {key for key in granted.mine if self._need.spares(granted.known.get(key))}
        if over:
            self._runs.record(self._owner, [], over)
        return [one for key, one in wanted.items() if key in granted.mine - over]

    def save(self, results: Sequence[Result], kept: Sequence[Result]) -> None:
        """The results are in the ledger, as those are that somebody recorded before, and their claims given back."""
        from glance_replicas.ledger.ledger import place_key

        done = {(one.location.image_id, place_key(one.location)) for one in (*results, *kept)}
        if done:
            self._runs.record(self._owner, results, done)

    def beat(self) -> None:
        """The claims hold for another lease."""
        self._runs.renew(self._owner)

    def leave(self) -> None:
        """What we have claimed and not looked at is anybody's."""
        self._runs.release(self._owner)

    def finish(self) -> dict[str, int]:
        """Nothing is due any more: the run is over. How many places it found in which state, whoever looked."""
        self._runs.finish(self._run)
        return self._runs.verdicts(self._run)
