"""The rule that says at which locations a look is due, and which of them comes first. No I/O."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ..ledger.tables import states
from ..model import Evidence, Last, Verdict


@dataclass(frozen=True)
class Need:
    """Looks of this depth are due, but for what was seen `since` then; None: all are.

    With `run` anything seen since the run began counts, whatever it was. Without, only what is intact is spared, and
    only if the look was as deep: damage, and what is not known, is always looked at again. With `unverifiable` so is
    what was read so lately and could be compared with nothing: another look would find no more.
    """

    evidence: Evidence
    now: datetime  # by the ledger's clock, as all moments here
    since: datetime | None = None
    run: bool = False
    unverifiable: bool = False

    def spares(self, last: Last | None) -> bool:
        """No look is due at a place of which the ledger says this."""
        if last is None or self.since is None:
            return False
        if self.run:
            at = self.tried_at(last)
            return at is not None and at >= self.since
        is_deep = last.evidence.depth >= self.evidence.depth
        at = last.checked_at if is_deep else last.full_checked_at
        differs = last.verdict is Verdict.UNVERIFIABLE and last.evidence is Evidence.SAMPLE
        is_good = not differs and last.standing in self._good and (is_deep or last.full_verdict in self._good)
        return is_good and at is not None and self.since <= at <= self.now  # a moment to come is a clock that was wrong

    @property
    def _good(self) -> tuple[Verdict, ...]:
        return (Verdict.INTACT, Verdict.UNVERIFIABLE) if self.unverifiable else (Verdict.INTACT,)

    @property
    def spared(self) -> sa.ColumnElement[bool]:
        """What `spares` says, as a condition on rows of `replica_states`."""
        row, is_intact = states.c, states.c.verdict == str(Verdict.INTACT)
        if self.since is None:
            return sa.false()
        if self.run:
            counts = sa.or_(row.evidence == str(Evidence.FULL), sa.not_(is_intact))
            is_deep = sa.true() if self.evidence is not Evidence.FULL else counts
            return sa.case((is_deep, row.checked_at), else_=row.full_checked_at) >= self.since
        deep = row.evidence.in_([str(one) for one in Evidence if one.depth >= self.evidence.depth])
        good = [str(one) for one in self._good]
        differs = sa.and_(row.verdict == str(Verdict.UNVERIFIABLE), row.evidence == str(Evidence.SAMPLE))
        hidden = sa.and_(is_intact, row.evidence != str(Evidence.FULL), row.full_verdict == str(Verdict.CORRUPT))
        stands = sa.and_(row.verdict.in_(good), sa.not_(differs), sa.or_(row.full_verdict.is_(None), sa.not_(hidden)))
        at = sa.case((deep, row.checked_at), (row.full_verdict.in_(good), row.full_checked_at), else_=sa.null())
        return sa.and_(stands, at.between(self.since, self.now))

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
