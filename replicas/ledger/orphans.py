"""What audits found in one side only, in our own tables: a file without a row (dark), a row without a file (lost).

For a place and a name one row, which lives as long as every audit of the place sees it again.
"""

import enum
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ..database import transactions
from ..database.chunks import chunks
from ..database.dialect import clock, upsert
from .schema.connection import LedgerDatabase
from .schema.rows import TEXT
from .schema.tables import orphans


class Kind(enum.StrEnum):
    """Which side it is missing on."""

    DARK = "dark"  # no row means it
    LOST = "lost"  # the row's file is not there
    UNKNOWN = "unknown"  # a word of a newer version: nothing is done about it

    @classmethod
    def _missing_(cls, value: object) -> "Kind":
        return cls.UNKNOWN


DARK = Kind.DARK.value  # the reason of a withdrawal for it


@dataclass(frozen=True)
class Sighting:
    """One thing that an audit found in one side only."""

    name: str  # in its place
    kind: Kind
    image_id: str | None
    size: int | None  # bytes


@dataclass(frozen=True)
class Orphan:
    """The same, with how long and how often it was seen, by the database's clock."""

    place: str  # host:NAME or store:ID
    name: str
    kind: Kind
    image_id: str | None
    size: int | None
    first_seen: datetime
    last_seen: datetime
    sightings: int


class Orphans:
    """Every method raises LedgerError when the ledger cannot be asked. Safe for threads and after a fork."""

    def __init__(self, ledger_database: LedgerDatabase) -> None:
        self._database = ledger_database

    def saw(self, place: str, found: Collection[Sighting]) -> list[Orphan]:
        """A complete audit of the place found these and no others; each with its history, in their order.

        What was seen before and is as it was counts one sighting more; what has another kind or size begins anew, and
        what was not seen is forgotten. Two audits of a place at once may count for one.
        """
        return self._database.write(lambda connection: _saw(connection, place, found))

    def list(self, place: str | None = None) -> list[Orphan]:
        """What the last audits found, by place and name."""
        wanted = sa.select(orphans).order_by(orphans.c.place, orphans.c.name)
        return [_stray(row) for row in self._database.rows(wanted if place is None else wanted.where(_at(place)))]

    def forget(self, place: str, names: Iterable[str]) -> None:
        """These are orphans no more."""
        for name in names:
            self._database.change(orphans.delete().where(_at(place), orphans.c.key == _key(name)))


def _saw(connection: sa.Connection, place: str, found: Collection[Sighting]) -> list[Orphan]:
    now = clock(connection)
    known = {row.key: row for row in connection.execute(sa.select(orphans).where(_at(place)))}
    rows = [_row(place, sighting, known.get(_key(sighting.name)), now) for sighting in found]
    keys = {row["key"] for row in rows}
    for key in known.keys() - keys:
        connection.execute(orphans.delete().where(_at(place), orphans.c.key == key))
    for part in chunks(rows):
        upsert(connection, orphans, part)
    names = ("place", "name", "image_id", "size", "first_seen", "last_seen", "sightings")
    return [Orphan(kind=Kind(row["kind"]), **{name: row[name] for name in names}) for row in rows]


def _row(place: str, sighting: Sighting, before: Any, now: datetime) -> dict[str, Any]:
    is_same = before is not None and (before.kind, before.size) == (sighting.kind, sighting.size)
    return {
        "place": place,
        "key": _key(sighting.name),
        "name": transactions.clean(sighting.name, TEXT),
        "kind": sighting.kind.value,
        "image_id": sighting.image_id,
        "size": sighting.size,
        "first_seen": before.first_seen if is_same else now,
        "last_seen": now,
        "sightings": before.sightings + 1 if is_same else 1,
    }


def _stray(row: Any) -> Orphan:
    return Orphan(
        *(row.place, row.name, Kind(row.kind), row.image_id, row.size),
        *(row.first_seen, row.last_seen, row.sightings),
    )


def _at(place: str) -> sa.ColumnElement[bool]:
    return orphans.c.place == place


def _key(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
