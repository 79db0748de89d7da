"""The sum of a verification: how many of which verdict, what is bad, what it means for the exit status."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from glance_replicas.model import Image, Result, Verdict
from glance_replicas.store_loss import Losses

from . import advice, held_back, report
from .command import DAMAGED, INTACT, UNKNOWN
from .looking import backend

SICK = 5  # locations that could not be asked at one place, and half of them all: the place is at fault
LISTED = 1000  # unknown locations of one place that are kept; that many are its fault
_PLACE_FAULTS = (Verdict.UNREACHABLE, Verdict.STALLED, Verdict.DENIED)


class Tally:
    """Adds results up; keeps those that are not intact."""

    def __init__(self, why_skipped: str = "intact not long ago") -> None:
        self.why_skipped = why_skipped
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.due = 0
        self.skipped = 0  # seen recently enough
        self.unsampled = 0  # due, and not in the sample
        self.left = 0  # due, and not looked at because time was up
        self.run: dict[str, int] | None = None  # places by verdict, once the run is over, whoever looked
        self.is_noted = False
        self.bytes = 0  # bytes read, or said to be there
        self.only_cached: dict[str, Image] = {}  # images that no store has
        self._bad: list[tuple[Image, Result]] = []
        self._places: collections.Counter[str] = collections.Counter()  # results by host or store
        self._unknown: dict[str, collections.Counter[str]] = {}  # of these, what is not known, by verdict
        self._losses = Losses()
        self._good = advice.Good()

    def add(self, image: Image, result: Result) -> None:
        """One more."""
        self.verdicts[str(result.verdict)] += 1
        self.bytes += result.size or 0
        self._good.add(result)
        place = backend(result.location)
        self._places[place] += 1
        if not result.location.is_cached:
            self._losses.add(place, result.verdict)
        if result.verdict.is_unknown:
            self._unknown.setdefault(place, collections.Counter())[str(result.verdict)] += 1
        if result.verdict.is_damage or (result.verdict.is_unknown and self._unknown[place].total() <= LISTED):
            self._bad.append((image, result))

    def note(self, due: int, skipped: int, unsampled: int) -> None:
        """How many were due, and how many were not looked at, and why; the first call counts."""
        if not self.is_noted:
            self.due, self.skipped, self.unsampled, self.is_noted = due, skipped, unsampled, True

    @property
    def is_empty(self) -> bool:
        """There is no location to speak of."""
        return not self.due + self.skipped + self.unsampled

    @property
    def checked(self) -> int:
        """How many results there are."""
        return self.verdicts.total()

    @property
    def status(self) -> int:
        """The exit status: damage before not known; having looked at nothing is not known."""
        found = {Verdict(one) for one in (*self.verdicts, *(self.run or ()))}
        if self.only_cached or any(one.is_damage for one in found):
            return DAMAGED
        unknown = any(one.is_unknown for one in found) or self.left
        return UNKNOWN if unknown or not self.checked + self.skipped else INTACT

    def lines(self) -> Iterator[str]:
        """Every image that no store has, every bad item, damage first, each with its next step; then the sum."""
        for one in sorted(self.only_cached.values(), key=lambda one: one.id):
            yield advice.only_cached(one)
            yield f"    next: {advice.put_back(one)}"
        sick = {place for place in self._unknown if self._is_sick(place)}
        for place in sorted(sick):
            yield f"{place}: {_counts(self._unknown[place])} of {self._places[place]} locations"
            yield f"    next: see that {place} first; then, for what was not known: replica verify --all --max-age 1d"
        lost = self._losses.at_fault()
        for store in sorted(lost):
            yield f"{self._losses[store]}: {held_back.WHY}"
            yield f"    next: {held_back.NEXT}"
        for image, result in sorted(self._bad, key=lambda one: (gravity(one[1]), one[0].id)):
            if result.verdict.is_unknown and backend(result.location) in sick:
                continue
            if result.verdict is Verdict.MISSING and not result.location.is_cached and backend(result.location) in lost:
                continue
            yield advice.problem(image, result)
            yield f"    next: {advice.next_step(image, result, self._good)}"
        more = [
            f"{number} {what}"
            for number, what in (
                (self.skipped, f"skipped, {self.why_skipped}"),
                (self.unsampled, "not in the sample"),
                (self.left, "not looked at, time was up"),
            )
            if number
        ]
        if self.only_cached:
            more.append(f"{report.count(len(self.only_cached), 'image')} without a durable copy")
        yield "; ".join([f"{report.count(self.checked, 'location')} verified: {_counts(self.verdicts)}", *more])
        if self.run is not None:
            yield f"the run is over; all of it: {_counts(self.run)}"

    def _is_sick(self, place: str) -> bool:
        """Whether so much is not known there that the place is at fault, and not one location or another."""
        number = sum(self._unknown[place][str(one)] for one in _PLACE_FAULTS)
        return number >= SICK and number * 2 >= self._places[place]

    def as_dict(self) -> dict[str, Any]:
        """The sum as JSON can hold it."""
        names = ("checked", "skipped", "unsampled", "left", "bytes", "run")
        more = {"verdicts": dict(self.verdicts), "images_without_durable_copy": sorted(self.only_cached)}
        return {name: getattr(self, name) for name in names} | more


def _counts(verdicts: Mapping[str, int]) -> str:
    order = sorted(verdicts, key=lambda one: list(Verdict).index(Verdict(one)))
    return ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in order) or "none"


def gravity(result: Result) -> int:
    """Sorts damage first, then what is not known, then intact."""
    return 0 if result.verdict.is_damage else 1 if result.verdict.is_unknown else 2
