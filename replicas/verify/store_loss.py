"""Whether so much of a store is missing at once that the store, as seen from here, is at fault. No I/O.

A folder that other hosts do not share, or another one mounted in its place, is there and holds files: each that it has
not is missing, with authority. So does another account or bucket. What is lost by itself is seldom half of a store.
"""

import collections
from fractions import Fraction

from ..verdict import Verdict

LEAST = 5  # objects missing in one store; fewer are each a matter of their own
SHARE = Fraction(1, 2)  # of those that were verified there


def is_at_fault(missing: int, seen: int) -> bool:
    """Whether so many missing of so many that were verified are one problem of the place."""
    return missing >= LEAST and missing >= SHARE * seen


class Losses:
    """Counts the last verdicts of durable copies by store."""

    def __init__(self) -> None:
        self.missing: collections.Counter[str] = collections.Counter()
        self.seen: collections.Counter[str] = collections.Counter()

    def add(self, store: str, verdict: Verdict) -> None:
        """One more copy in this store."""
        self.seen[store] += 1
        self.missing[store] += verdict is Verdict.MISSING

    def at_fault(self, share: Fraction | None = None) -> set[str]:
        """The stores of which half is missing; with `share` those of which more than this part is."""
        return {store for store, number in self.missing.items() if self._is_at_fault(store, number, share)}

    def _is_at_fault(self, store: str, number: int, share: Fraction | None) -> bool:
        seen = self.seen[store]
        return is_at_fault(number, seen) if share is None else number >= LEAST and number > share * seen

    def __getitem__(self, store: str) -> str:
        """How many, in words."""
        return f"{store}: {self.missing[store]} missing of {self.seen[store]} locations"
