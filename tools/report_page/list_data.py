"""What the script of the page reads: all images, with every word and number as it is to be shown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glance_replicas.model import Result
from glance_replicas.verdict import Verdict
from glance_replicas.verify.freshness import NEVER

from ..output.text import age, short, size, visible
from . import charts
from .condition import Condition
from .report_model import Holder, ImageRow, ReportModel

Look = tuple[str, str, str, str, str]  # shared by copies of which the same was found at the same depth

ORDERS = (
    *(("worst", "worst first"), ("name", "name"), ("size", "largest first")),
    *(("oldest", "least recently verified"), ("copies", "fewest copies first")),
)


def data(total: ReportModel, rows: Sequence[ImageRow]) -> dict[str, Any]:
    """As JSON can hold it; page.js names the parts of its lists."""
    places = sorted(total.places)
    index = {place: number for number, place in enumerate(places)}
    looks: dict[Look, int] = {}
    states = [(str(condition), charts.MEANING[condition]) for condition in Condition]
    exact = [(str(verdict), charts.words(verdict)) for verdict in Verdict if verdict is not Verdict.INTACT]
    return {
        "states": [*states, *exact, ("nowhere", "without any copy"), ("cached", "without a durable copy")],
        "orders": ORDERS,
        "places": list(_columns(total, places)),
        "total": total.images,
        "images": [_image(total, index, looks, row) for row in rows],
        "looks": list(looks),
    }


def ago(total: ReportModel, last: Result | None) -> str:
    """How long ago a copy was verified."""
    seconds = total.seconds(last) if last else None
    return NEVER if seconds is None else f"{age(seconds)} ago"


def _columns(total: ReportModel, places: Sequence[Holder]) -> Iterator[dict[str, Any]]:
    group = None
    for place in places:
        mine = f"Zone {place.zone}" if place.zone else "Hosts" if place.is_host else "Stores"
        yield {
            "name": visible(place.name),
            "label": visible(str(place)),
            "host": place.is_host,
            "state": total.state(place),
            "group": visible(mine),
            "first": mine != group,
            "key": ("host:" if place.is_host else "store:") + place.name,
        }
        group = mine


def _image(total: ReportModel, index: Mapping[Holder, int], looks: dict[Look, int], row: ImageRow) -> list[Any]:
    steps = {id(location): step for location, _, step in row.problems()}
    copies = []
    for location, last, _ in row.copies:
        entry = [index[total.place(location)], looks.setdefault(_look(last), len(looks)), ago(total, last)]
        found = [visible(short(last.detail)), visible(steps[id(location)])] if last and id(location) in steps else []
        copies.append(entry + found)
    ages = [total.seconds(copy.last) for copy in row.copies if copy.last]
    known = [seconds for seconds in ages if seconds is not None]
    oldest = max(known, default=-1) if len(known) == len(copies) else None
    image = row.image
    return [image.id, visible(image.name or ""), image.size, size(image.size), image.status, oldest, copies]


def _look(last: Result | None) -> Look:
    """Its condition, mark, verdict, evidence, and what it is called."""
    found = (str(Condition.of(last)), charts.mark(last))
    if last is None:
        return *found, NEVER, "-", NEVER
    return *found, str(last.verdict), str(last.evidence), charts.words(last.verdict)
