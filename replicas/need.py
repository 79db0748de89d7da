"""The rule that says at which locations a look is due, and which of them comes first. No I/O."""

from dataclasses import dataclass
from datetime import datetime

from .model import Evidence, Last, Verdict


@dataclass(frozen=True)
class Need:
    """Looks of this depth are due, but for what was seen `since` then; None: all are.

    With `run` anything seen since the run began counts, whatever it was. Without, only what is intact is spared, and
    only if the look was as deep: damage, and what is not known, is always looked at again.
    """

    evidence: Evidence
    now: datetime  # by the ledger's clock, as all moments here
    since: datetime | None = None
    run: bool = False

    def spares(self, last: Last | None) -> bool:
        """No look is due at a place of which the ledger says this."""
        if last is None or self.since is None:
            return False
        if self.run:
            at = self.tried_at(last)
            return at is not None and at >= self.since
        intact_at = last.checked_at if last.evidence.depth >= self.evidence.depth else last.full_checked_at
        if last.standing is not Verdict.INTACT or intact_at is None:
            return False
        return self.since <= intact_at <= self.now  # a moment still to come is a clock that was wrong

    def tried_at(self, last: Last | None) -> datetime | None:
        """When a look as deep was last made, whatever came of it; None: never.

        Only a look in full leaves a mark of its own. Of the other depths any look counts, since a place that cannot
        say more is asked for its length.
        """
        if last is None:
            return None
        if self.evidence is not Evidence.FULL or last.evidence is Evidence.FULL or last.verdict is not Verdict.INTACT:
            return last.checked_at
        return last.full_checked_at


def judged_at(last: Last | None, evidence: Evidence) -> datetime | None:
    """When a look at least so deep last told whether the bytes are right; None: never. Damage is told by any look."""
    if last is None:
        return None
    if last.verdict.is_damage or (last.verdict is Verdict.INTACT and last.evidence.depth >= evidence.depth):
        return last.checked_at
    return last.full_checked_at
