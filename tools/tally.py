"""The sum of a verification: how many of which verdict, what is bad, what it means for the exit status."""

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from glance_replicas.model import Evidence, Image, Result, Verdict
from glance_replicas.verify.store_loss import Losses

from ..verify.worker_pool import backend
from . import advice, held_back, report
from .command import DAMAGED, INTACT, UNKNOWN

SICK = 5  # locations that could not be asked at one place, and half of them all: the place is at fault
LISTED = 1000  # unknown locations of one place that are kept; that many are its fault
_PLACE_FAULTS = (Verdict.UNREACHABLE, Verdict.STALLED, Verdict.DENIED)


class Tally:
    """Adds results up; keeps those that are not intact."""

    def __init__(self, why_skipped: str = "intact not long ago", *, allow_unverifiable: bool = False) -> None:
        self.why_skipped, self._allows = why_skipped, allow_unverifiable
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.due = 0
        self.skipped = 0  # seen recently enough
        self.unsampled = 0  # due, and not in the sample
        self.empty = 0  # images without any byte that need no location
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
        self.undigested = 0  # results of images without a digest that say no more than that
        self._digests: dict[str, Result] = {}  # the first copy of each such image that was read
        self._differing: dict[str, tuple[Image, Result, Result]] = {}

    def add(self, image: Image, result: Result) -> None:
        """One more."""
        self.verdicts[str(result.verdict)] += 1
        self.bytes += result.size or 0
        self._good.add(result)
        self._compare(image, result)
        place = backend(result.location)
        self._places[place] += 1
        if not result.location.is_cached:
            self._losses.add(place, result.verdict)
        if result.verdict.is_unknown:
            self._unknown.setdefault(place, collections.Counter())[str(result.verdict)] += 1
        if self.allows(image, result):
            return
        if result.verdict.is_damage or (result.verdict.is_unknown and self._unknown[place].total() <= LISTED):
            self._bad.append((image, result))

    def allows(self, image: Image, result: Result) -> bool:
        """Whether it is unverifiable for want of a digest, and that is accepted."""
        return self._allows and _is_undigested(image, result)

    def _compare(self, image: Image, result: Result) -> None:
        """Copies of an image that has no digest of its own are held against each other."""
        self.undigested += _is_undigested(image, result)
        if image.digest is None and result.digest is not None:
            first = self._digests.setdefault(image.id, result)
            if first.digest != result.digest:
                self._differing.setdefault(image.id, (image, first, result))

    def note(self, due: int, skipped: int, unsampled: int) -> None:
        """How many were due, and how many were not looked at, and why; the first call counts."""
        if not self.is_noted:
            self.due, self.skipped, self.unsampled, self.is_noted = due, skipped, unsampled, True

    @property
    def is_empty(self) -> bool:
        """There is no location to speak of."""
        return not self.due + self.skipped + self.unsampled + self.empty

    @property
    def checked(self) -> int:
        """How many results there are."""
        return self.verdicts.total()

    @property
    def status(self) -> int:
        """The exit status: damage before not known; having looked at nothing is not known."""
        found = {Verdict(one) for one in (*self.verdicts, *(self.run or ()))}
        if self.only_cached or self._differing or any(one.is_damage for one in found):
            return DAMAGED
        if self._allows and self.verdicts[str(Verdict.UNVERIFIABLE)] == self.undigested:
            found.discard(Verdict.UNVERIFIABLE)
        unknown = any(one.is_unknown for one in found) or self.left
        return UNKNOWN if unknown or not self.checked + self.skipped + self.empty else INTACT

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
        for image, first, other in self._differing.values():
            yield from advice.differing(image, first, other)
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
                (self.empty, "empty, without a location"),
                (self.skipped, f"skipped, {self.why_skipped}"),
                (self.unsampled, "not in the sample"),
                (self.left, "not looked at, time was up"),
            )
            if number
        ]
        if self.only_cached:
            more.append(f"{report.count(len(self.only_cached), 'image')} without a durable copy")
        more = [f"{self.undigested} of images without a digest", *more] if self.undigested else more
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
        counts = {"undigested": self.undigested, "differing": len(self._differing)}
        more = {"verdicts": dict(self.verdicts), "images_without_durable_copy": sorted(self.only_cached)}
        return {name: getattr(self, name) for name in names} | counts | more


def _is_undigested(image: Image, result: Result) -> bool:
    """Whether nothing but the image's lack of a digest keeps the copy from being called intact."""
    says_more = result.evidence is Evidence.SAMPLE or image.size is None or result.size != image.size
    return result.verdict is Verdict.UNVERIFIABLE and image.digest is None and not says_more


def _counts(verdicts: Mapping[str, int]) -> str:
    order = sorted(verdicts, key=lambda one: list(Verdict).index(Verdict(one)))
    return ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in order) or "none"


def gravity(result: Result) -> int:
    """Sorts damage first, then what is not known, then intact."""
    return 0 if result.verdict.is_damage else 1 if result.verdict.is_unknown else 2
