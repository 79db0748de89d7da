"""What the page shows, as words and lengths; `page.html` makes tiles, bars and marks of it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from glance_replicas.model import Host, Result
from glance_replicas.verdict import Verdict

from ..output.text import size
from .condition import Condition
from .report_model import ReportModel, Sum

SHALLOW, NEVER = "≈", "○"  # beside the symbols of verdicts, for whom colours say little
MEANING = {
    Condition.INTACT: "intact, every byte read",
    Condition.SHALLOW: "intact as far as verified",
    Condition.DAMAGED: "damaged",
    Condition.UNKNOWN: "could not be checked",
    Condition.NEVER: "never verified",
}
_BANDS = {"hour": "1 hour", "day": "1 day", "week": "1 week"}


class Tile(NamedTuple):
    """A sum and what it is of."""

    kind: str
    number: int
    text: str


def tiles(total: ReportModel) -> Iterator[Tile]:
    """The sums."""
    found, copies = total.conditions(), total.durable.copies + total.cached.copies
    yield Tile("", total.images, f"images, {size(total.bytes)}")
    yield Tile("", copies, f"copies: {total.durable.copies:,} in stores, {total.cached.copies:,} on hosts")
    if total.nowhere:
        yield Tile("damaged", total.nowhere, "images without any copy")
    if total.only_cached:
        yield Tile("damaged", total.only_cached, "images without a durable copy: only cached")
    for condition in (Condition.DAMAGED, Condition.UNKNOWN, Condition.NEVER, Condition.SHALLOW, Condition.INTACT):
        share = f" ({100 * found[condition] / copies:.0f} %)" if copies and condition is Condition.INTACT else ""
        yield Tile(str(condition) if found[condition] else "", found[condition], MEANING[condition] + share)


class Bar(NamedTuple):
    """A part of a chart; its lengths are in percent of the longest bar, or of the whole."""

    kind: str
    name: str
    number: int
    left: float
    width: float


def ages(total: ReportModel) -> list[Bar]:
    """A histogram of how long ago copies were last read in full."""
    counts = total.ages()
    longest = max((number for _, number in counts), default=0) or 1
    return [
        Bar(name if name in ("older", "never") else "intact", _BANDS.get(name, name), number, 0, 100 * number / longest)
        for name, number in counts
    ]


def states(copies: Sum) -> list[Bar]:
    """The copies of a place by condition, side by side."""
    counts = [(str(condition), copies.conditions[condition]) for condition in Condition]
    return _side_by_side(counts, copies.copies)


def room(host: Host) -> list[Bar]:
    """What is used of a host's disk."""
    return _side_by_side([("used", host.bytes_used)], host.bytes_used + host.bytes_free)


def _side_by_side(parts: Sequence[tuple[str, int]], whole: int) -> list[Bar]:
    """The parts that are not empty."""
    left, bars = 0.0, []
    for name, number in parts:
        if number:
            bars.append(Bar(name, name, number, left, 100 * number / whole))
            left += bars[-1].width
    return bars


def words(verdict: Verdict) -> str:
    """A verdict as people read it."""
    return str(verdict).replace("_", " ")


def mark(last: Result | None) -> str:
    """What stands for a last verification where there is room for one character."""
    found = Condition.of(last)
    return SHALLOW if found is Condition.SHALLOW else last.verdict.symbol if last else NEVER


def legend() -> Iterator[tuple[Condition, str, str]]:
    """What the marks in the list mean: the condition, the mark, and the words."""
    yield Condition.INTACT, Verdict.INTACT.symbol, MEANING[Condition.INTACT]
    yield Condition.SHALLOW, SHALLOW, f"{MEANING[Condition.SHALLOW]}, not every byte"
    for verdict in Verdict:
        if verdict is not Verdict.INTACT:
            yield Condition.of_verdict(verdict), verdict.symbol, words(verdict)
    yield Condition.NEVER, NEVER, MEANING[Condition.NEVER]
