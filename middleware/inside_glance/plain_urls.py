"""Locations come in unsigned: what was read with a signature is stored without it, by whatever call it is written.

That holds for the copies of every image, not only of the one that is changed: a signature opens its URL to whoever
reads the row. What was read can so be written back, too.
"""

from collections.abc import Iterable
from typing import Any

from glance.api.v2.images import ImagesController

from glance_replicas import signing
from glance_replicas.model import Location

from . import routed
from .routed import Handlers, Routed


def handlers() -> Handlers:
    """To be applied to every request. A fault here is answered 503: nothing is stored that should not be."""
    made = routed.Handlers()
    made.on(ImagesController, "update", _update, closed=True)
    made.on(ImagesController, "add_location", _add, closed=True)
    return made


def _update(call: Routed) -> Any:
    """A PATCH of either media type."""
    for change in call.arguments.get("changes", ()):
        if change["path"][0] == "locations":
            value = change.get("value")
            _unsign(value if isinstance(value, list) else [value])
    return call.proceed()


def _add(call: Routed) -> Any:
    """POST of a location."""
    _unsign([call.arguments.get("body")])
    return call.proceed()


def _unsign(rows: Iterable[Any]) -> None:
    for row in rows:
        url = row.get("url") if isinstance(row, dict) else None
        if isinstance(url, str) and Location("", url, {}).is_cached:
            row["url"] = signing.unsign(url)
