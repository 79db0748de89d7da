"""The sum of a verification: how many of which verdict, what is bad, what it means for the exit status."""

import collections
from collections.abc import Iterator
from typing import Any

from glance_replicas.model import Image, Result, Verdict

from . import advice, report
from .command import DAMAGED, INTACT, UNKNOWN


class Tally:
    """Adds results up; keeps those that are not intact."""

    def __init__(self) -> None:
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.skipped = 0  # intact, and looked at recently enough
        self.bytes = 0  # bytes read, or said to be there
        self._bad: list[tuple[Image, Result]] = []
        self._good = advice.Good()

    def add(self, image: Image, result: Result) -> None:
        """One more."""
        self.verdicts[str(result.verdict)] += 1
        self.bytes += result.size or 0
        self._good.add(result)
        if result.verdict is not Verdict.INTACT:
            self._bad.append((image, result))

    @property
    def checked(self) -> int:
        """How many results there are."""
        return self.verdicts.total()

    @property
    def status(self) -> int:
        """The exit status: damage before not known; having looked at nothing is not known."""
        if any(result.verdict.is_damage for _, result in self._bad):
            return DAMAGED
        return UNKNOWN if self._bad or not self.checked + self.skipped else INTACT

    def lines(self) -> Iterator[str]:
        """Every bad item with its next step, damage first; then the sum."""
        for image, result in sorted(self._bad, key=lambda one: (gravity(one[1]), one[0].id)):
            yield advice.problem(image, result)
            yield f"    next: {advice.next_step(image, result, self._good)}"
        order = sorted(self.verdicts, key=lambda one: (list(Verdict).index(Verdict(one)), one))
        parts = [f"{self.verdicts[verdict]} {verdict}" for verdict in order]
        skipped = f"; {self.skipped} skipped, intact not long ago" if self.skipped else ""
        yield f"{report.count(self.checked, 'location')} verified: {', '.join(parts) or 'none'}{skipped}"

    def as_dict(self) -> dict[str, Any]:
        """The sum as JSON can hold it."""
        return {"checked": self.checked, "skipped": self.skipped, "bytes": self.bytes, "verdicts": dict(self.verdicts)}


def gravity(result: Result) -> int:
    """Sorts damage first, then what is not known, then intact."""
    return 0 if result.verdict.is_damage else 1 if result.verdict.is_unknown else 2
