"""The report as one page for a browser: everything in it, nothing loaded, nothing that names of images could start.

The policy in the page lets only its own style and its own script run, by their hashes. Without JavaScript everything
but the list of images is there.
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from glance_replicas.errors import ConfigError
from glance_replicas.model import Verdict
from glance_replicas.verify.freshness import NEVER

from ..output.text import short, visible
from . import html_charts
from .condition import Condition
from .report_model import Place, Row, Survey

ORDERS = (
    *(("worst", "worst first"), ("name", "name"), ("size", "largest first")),
    *(("oldest", "longest not looked at"), ("copies", "fewest copies first")),
)


def write(path: Path, total: Survey, rows: Sequence[Row]) -> None:
    """The page is at `path`, whole; what was there before is replaced at once or stays. Raises ConfigError.

    Killed before the last step it leaves a hidden `.NAME.XXXXXXXX.part`, which nothing reads.
    """
    text = render(total, rows)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o640)  # it names the images of all projects
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"--html {path}: {(error.strerror or 'cannot be written').lower()}") from error


def render(total: Survey, rows: Sequence[Row]) -> str:
    """The page: `rows`, the worst first, of the images that were added up."""
    style, script = _part("page.css"), _part("page.js")
    return Template(_part("page.html")).substitute(
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        iso=total.now.isoformat(timespec="seconds"),
        when=total.now.strftime("%Y-%m-%d %H:%M UTC"),
        tiles="".join(html_charts.tiles(total)),
        freshness=html_charts.freshness(total),
        places=html_charts.places(total),
        worst=html_charts.worst(total, rows),
        legend="".join(html_charts.legend()),
        data=_json(_data(total, rows)),
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON that ends no script element and opens no comment, whatever the texts in it."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(total: Survey, rows: Sequence[Row]) -> dict[str, Any]:
    """What the script reads; page.js says what the lists of an image hold."""
    places = sorted(total.places)
    index = {place: number for number, place in enumerate(places)}
    states = [(str(one), html_charts.MEANING[one]) for one in Condition]
    exact = [(str(one), str(one).replace("_", " ")) for one in Verdict if one is not Verdict.INTACT]
    return {
        "symbols": html_charts.SYMBOLS,
        "conditions": {str(one): html_charts.condition(one) for one in Verdict} | {NEVER: NEVER},
        "states": [*states, *exact, ("nowhere", "without any copy"), ("cached", "without a durable copy")],
        "orders": ORDERS,
        "places": list(_columns(total, places)),
        "total": total.images,
        "images": [_image(total, index, row) for row in rows],
    }


def _columns(total: Survey, places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    group = None
    for place in places:
        mine = f"Zone {place.zone}" if place.zone else "Hosts" if place.is_host else "Stores"
        yield {
            "name": visible(place.name),
            "host": place.is_host,
            "state": total.state(place),
            "group": visible(mine),
            "first": mine != group,
            "key": ("host:" if place.is_host else "store:") + place.name,
        }
        group = mine


def _image(total: Survey, index: Mapping[Place, int], row: Row) -> list[Any]:
    steps = {id(one): step for one, _, step in row.problems()}
    copies: list[list[Any]] = []
    for one, last, _ in row.copies:
        where = index[total.place(one)]
        if last is None:
            copies.append([where, NEVER, None, None])
            continue
        entry = [where, str(last.verdict), str(last.evidence), total.seconds(last)]
        found = [visible(short(last.detail)), visible(steps[id(one)])] if id(one) in steps else []
        copies.append(entry + found)
    image = row.image
    return [image.id, visible(image.name or ""), image.size, image.status, int(row.severity), copies]
