"""The targets by name, each with its share of `make fuzz`."""

from collections.abc import Callable
from typing import NamedTuple

from . import peers, rows, wire
from .draw import Draw


class Target(NamedTuple):
    """One function that fails when something does not hold for the values it draws."""

    run: Callable[[Draw], None]
    share: int  # parts of the inputs

    def __call__(self, data: bytes) -> None:
        """One input."""
        self.run(Draw(data))


TARGETS = {
    "paths": Target(wire.paths, 6),
    "ids": Target(rows.ids, 6),
    "ranges": Target(wire.ranges, 15),
    "signatures": Target(wire.signatures, 15),
    "documents": Target(wire.documents, 15),
    "listings": Target(wire.listings, 6),
    "manifests": Target(wire.manifests, 5),
    "locations": Target(rows.locations, 15),
    "orders": Target(rows.orders, 5),
    "policies": Target(rows.policies, 7),
    "options": Target(rows.options, 5),
    "answers": Target(peers.answers, 2),
    "requests": Target(peers.requests, 3),
}
