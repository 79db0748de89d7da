"""What a verification found, in lines for people, each problem with its next step, and as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

from glance_replicas.verdict import Verdict
from glance_replicas.verify.summary import Summary

from . import advice, held_back
from .command import DAMAGED, INTACT, UNKNOWN
from .output.text import count


def status(found: Summary) -> int:
    """The exit status: damage before not known."""
    return DAMAGED if found.has_damage else UNKNOWN if found.has_unknown else INTACT


def lines(found: Summary, why_skipped: str) -> Iterator[str]:
    """Every image that no store has, every bad item, damage first, each with its next step; then the sum."""
    for image in sorted(found.only_cached.values(), key=lambda image: image.id):
        yield advice.only_cached(image)
        yield f"    next: {advice.put_back(image)}"
    for place in sorted(found.sick_places()):
        yield f"{place}: {_counts(found.unknown[place])} of {found.places[place]} locations"
        yield f"    next: fix {place} first; then, for what was not known: replica verify --all --max-age 1d"
    for store in sorted(found.losses.at_fault()):
        yield f"{found.losses[store]}: {held_back.WHY}"
        yield f"    next: {held_back.NEXT}"
    for image, first, other in found.differing.values():
        yield from advice.differing(image, first, other)
    for image, result in found.problems():
        yield advice.problem(image, result)
        yield f"    next: {advice.next_step(image, result, found.intact)}"
    yield total(found, why_skipped)
    if found.run is not None:
        yield f"the run is over; all of it: {_counts(found.run)}"


def total(found: Summary, why_skipped: str = "") -> str:
    """The sum, one line."""
    more = [
        f"{number} {what}"
        for number, what in (
            (found.undigested, "of images without a digest"),
            (found.empty, "empty, without a location"),
            (found.skipped, f"skipped, {why_skipped}"),
            (found.unsampled, "not in the sample"),
            (found.left, "not verified, time was up"),
        )
        if number
    ]
    if found.only_cached:
        more.append(f"{count(len(found.only_cached), 'image')} without a durable copy")
    return "; ".join([f"{count(found.checked, 'location')} verified: {_counts(found.verdicts)}", *more])


def as_dict(found: Summary) -> dict[str, Any]:
    """The sum as JSON can hold it."""
    names = ("checked", "skipped", "unsampled", "left", "bytes", "run")
    counts = {"undigested": found.undigested, "differing": len(found.differing)}
    more = {"verdicts": dict(found.verdicts), "images_without_durable_copy": sorted(found.only_cached)}
    return {name: getattr(found, name) for name in names} | counts | more


def _counts(verdicts: Mapping[str, int]) -> str:
    order = sorted(verdicts, key=lambda verdict: list(Verdict).index(Verdict(verdict)))
    return ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in order) or "none"
