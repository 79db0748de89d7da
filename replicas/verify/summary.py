"""What a verification found: how many of which verdict, what is bad, and which place is at fault and not its copies."""

import collections
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..model import Image, Location, Result
from ..verdict import Evidence, Verdict
from .store_loss import Losses
from .worker_pool import backend

SICK = 5  # locations that could not be asked at one place, and half of them all: the place is at fault
LISTED = 1000  # unknown locations of one place that are kept; that many are its fault


@dataclass
class IntactCopies:
    """What was found intact: images with a durable copy read in full, and one cached copy of the others."""

    durable: set[str] = field(default_factory=set)
    cached: dict[str, Location] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take note of an intact result; of others nothing."""
        if result.verdict is not Verdict.INTACT or result.evidence is not Evidence.FULL:
            return
        if result.location.is_cached:
            self.cached[result.location.image_id] = result.location
        else:
            self.durable.add(result.location.image_id)


class Summary:
    """Adds results up; keeps those that are not intact."""

    def __init__(self, *, allow_unverifiable: bool = False) -> None:
        self._allows = allow_unverifiable
        self.verdicts: collections.Counter[str] = collections.Counter()
        self.due = 0
        self.skipped = 0  # fresh
        self.unsampled = 0  # due, and not in the sample
        self.empty = 0  # images without any byte that need no location
        self.nowhere = 0  # images without any location that nobody can download
        self.absent = 0  # ids that were named and are no images with copies
        self.left = 0  # due, and not verified because time was up
        self.run: dict[str, int] | None = None  # places by verdict, once the run is over, whoever verified them
        self.is_noted = False
        self.bytes = 0  # bytes read, or said to be there
        self.only_cached: dict[str, Image] = {}  # images that no store has
        self.unknown: dict[str, collections.Counter[str]] = {}  # by host or store: what is not known, by verdict
        self.places: collections.Counter[str] = collections.Counter()  # results by host or store
        self.losses = Losses()
        self.intact = IntactCopies()
        self.undigested = 0  # results of images without a digest that say no more than that
        self.differing: dict[str, tuple[Image, Result, Result]] = {}  # images without a digest, and two unlike copies
        self._bad: list[tuple[Image, Result]] = []
        self._first_read: dict[str, Result] = {}  # the first copy read of each image without a digest

    def add(self, image: Image, result: Result) -> None:
        """One more."""
        self.verdicts[str(result.verdict)] += 1
        self.bytes += result.size or 0
        self.intact.add(result)
        self._compare(image, result)
        place = backend(result.location)
        self.places[place] += 1
        if not result.location.is_cached:
            self.losses.add(place, result.verdict)
        if result.verdict.is_unknown:
            self.unknown.setdefault(place, collections.Counter())[str(result.verdict)] += 1
        if self.allows(image, result):
            return
        if result.verdict.is_damage or (result.verdict.is_unknown and self.unknown[place].total() <= LISTED):
            self._bad.append((image, result))

    def allows(self, image: Image, result: Result) -> bool:
        """Whether it is unverifiable for want of a digest, and that is accepted."""
        return self._allows and _is_undigested(image, result)

    def _compare(self, image: Image, result: Result) -> None:
        """Copies of an image that has no digest of its own are held against each other."""
        self.undigested += _is_undigested(image, result)
        if image.digest is None and result.digest is not None:
            first = self._first_read.setdefault(image.id, result)
            if first.digest != result.digest:
                self.differing.setdefault(image.id, (image, first, result))

    def note(self, due: int, skipped: int, unsampled: int) -> None:
        """How many were due, and how many were not verified, and why; the first call counts."""
        if not self.is_noted:
            self.due, self.skipped, self.unsampled, self.is_noted = due, skipped, unsampled, True

    def bare(self, image: Image, *, is_first: bool) -> bool:
        """An image without a location in any store; counted by the first pass. Whether nobody can download it."""
        if image.locations:
            self.only_cached[image.id] = image
        elif is_first and not image.has_no_copy:
            self.empty += 1
        elif is_first:
            self.nowhere += 1
            return True
        return False

    @property
    def is_empty(self) -> bool:
        """There is no location to speak of."""
        return not self.due + self.skipped + self.unsampled + self.empty

    @property
    def checked(self) -> int:
        """How many results there are."""
        return self.verdicts.total()

    @property
    def has_damage(self) -> bool:
        """Something is damaged, or only cached."""
        found = {Verdict(word) for word in (*self.verdicts, *(self.run or ()))}
        return bool(self.only_cached or self.differing or self.nowhere) or any(verdict.is_damage for verdict in found)

    @property
    def has_unknown(self) -> bool:
        """Something could not be verified, or nothing was: having verified nothing is not known."""
        found = {Verdict(word) for word in (*self.verdicts, *(self.run or ()))}
        if self._allows and self.verdicts[str(Verdict.UNVERIFIABLE)] == self.undigested:
            found.discard(Verdict.UNVERIFIABLE)
        unknown = any(verdict.is_unknown for verdict in found) or self.left or self.absent
        return bool(unknown) or not self.checked + self.skipped + self.empty

    def sick_places(self) -> set[str]:
        """Hosts and stores of which so much is not known that they are at fault, and not one location or another."""
        return {place for place in self.unknown if self._is_sick(place)}

    def _is_sick(self, place: str) -> bool:
        number = sum(number for word, number in self.unknown[place].items() if Verdict(word).is_path_fault)
        return number >= SICK and number * 2 >= self.places[place]

    def problems(self) -> Iterator[tuple[Image, Result]]:
        """Every bad result that is a matter of its own, damage first."""
        sick, lost = self.sick_places(), self.losses.at_fault()
        for image, result in sorted(self._bad, key=lambda item: (item[1].verdict.gravity, item[0].id)):
            place, is_durable = backend(result.location), not result.location.is_cached
            if result.verdict.is_unknown and place in sick:
                continue
            if result.verdict is Verdict.MISSING and is_durable and place in lost:
                continue
            yield image, result


def _is_undigested(image: Image, result: Result) -> bool:
    """Whether nothing but the image's lack of a digest keeps the copy from being called intact."""
    says_more = result.evidence is Evidence.SAMPLE or image.size is None or result.size != image.size
    return result.verdict is Verdict.UNVERIFIABLE and image.digest is None and not says_more
