"""Results of verification: the history, and the latest of each place.

A result is as of the moment it is recorded, by the database's clock, and of two the one recorded last counts: the
clocks of the machines that verified may be wrong, and are not asked.
"""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ..database.chunks import CHUNK, chunks, distinct
from ..database.dialect import clock, upsert
from ..model import Last, Result
from ..verdict import Evidence, Verdict
from .schema import rows as ledger_rows
from .schema.connection import LedgerDatabase
from .schema.tables import checks, states

# No column more than is needed: a host whose tables are a version behind still finds the others.
_LAST = [states.c[name] for name in ("image_id", "place", "verdict", "evidence", "checked_at")]
_LAST += [states.c.full_verdict, states.c.full_checked_at]


class Results:
    """Part of `Ledger`."""

    database: LedgerDatabase

    def record(self, results: Sequence[Result]) -> None:
        """The results are in the history, and the last recorded of each location is its state.

        All are of now by the database's clock; `checked_at`, by the clock of the machine that verified, is not asked.
        """
        for part in chunks(list(results)):
            self.database.write(functools.partial(record, results=part))

    def forget_state(self, image_id: str, url: str) -> None:
        """Nothing is known of this place from now on; what was seen of it stays in the history."""
        this = sa.and_(states.c.image_id == image_id, states.c.place == ledger_rows.url_key(url))
        self.database.change(states.delete().where(this))

    def states(self, image_ids: Collection[str], *, full: bool = False) -> dict[tuple[str, str], Result]:
        """The latest result of each location, by (image id, `place_key`); damage that a quick one did not see stays.

        With `full` the latest verification that read every byte, where there was one; its size, detail and seconds
        are not kept. The location has the redacted URL and, of its metadata, the host.
        """
        found: dict[tuple[str, str], Result] = {}
        for part in distinct(image_ids):
            wanted = sa.select(states).where(states.c.image_id.in_(part))
            if full:
                wanted = wanted.where(states.c.full_checked_at.is_not(None))
            for row in self.database.rows(wanted):
                found[row.image_id, row.place] = ledger_rows.full_result(row) if full else ledger_rows.state(row)
        return found

    def lasts(self, image_ids: Collection[str]) -> dict[tuple[str, str], Last]:
        """What is known of each place of these images, by (image id, `place_key`), in short."""
        found: dict[tuple[str, str], Last] = {}
        for part in distinct(image_ids):
            wanted = sa.select(*_LAST).where(states.c.image_id.in_(part))
            for image_id, place, verdict, evidence, at, full_verdict, full_at in self.database.rows(wanted):
                found[image_id, place] = ledger_rows.last(verdict, evidence, at, full_verdict, full_at)
        return found

    def keys(self, image_ids: Collection[str], condition: sa.ColumnElement[bool]) -> set[tuple[str, str]]:
        """Image id and `place_key` of these images' places whose rows of `replica_states` fulfil a condition."""
        found: set[tuple[str, str]] = set()
        for part in distinct(image_ids):
            wanted = sa.select(states.c.image_id, states.c.place).where(condition)
            found.update(self.database.tuples(wanted.where(states.c.image_id.in_(part))))
        return found

    def by_age(
        self, before: datetime, *, full: bool | None = None, page: int = 1000
    ) -> Iterator[tuple[str, str, Last]]:
        """Every place last verified before that moment, the oldest first: image id, `place_key`, what is known.

        With `full` True by the last verification that read every byte; False: those of which there was none yet. No
        connection is held while the caller works.
        """
        column = states.c.full_checked_at if full else states.c.checked_at
        wanted = sa.select(*_LAST).where(column < before).order_by(column, states.c.image_id, states.c.place)
        if full is False:
            wanted = wanted.where(states.c.full_checked_at.is_(None))
        part = wanted
        while rows := self.database.rows(part.limit(page)):
            for image_id, place, *rest in rows:
                yield image_id, place, ledger_rows.last(*rest)
            end = rows[-1]
            at = end.full_checked_at if full else end.checked_at
            later = sa.tuple_(states.c.image_id, states.c.place) > sa.tuple_(end.image_id, end.place)
            part = wanted.where(column >= at, sa.or_(column > at, later))

    def history(self, image_id: str, limit: int = 50) -> list[Result]:
        """The last results of an image's locations, newest first."""
        wanted = sa.select(checks).where(checks.c.image_id == image_id)
        wanted = wanted.order_by(checks.c.checked_at.desc(), checks.c.id.desc()).limit(limit)
        return [ledger_rows.result(row) for row in self.database.rows(wanted)]

    def last_recorded(self) -> int:
        """The number of the newest result in the history; 0: there is none."""
        return int(self.database.rows(sa.select(sa.func.coalesce(sa.func.max(checks.c.id), 0)))[0][0])

    def recorded_since(self, number: int, image_id: str) -> list[Result]:
        """What came to the history of an image after that result, in the order it came, whatever its clocks say."""
        wanted = sa.select(checks).where(checks.c.image_id == image_id, checks.c.id > number).order_by(checks.c.id)
        return [ledger_rows.result(row) for row in self.database.rows(wanted)]

    def trim(self, older_than_seconds: float) -> int:
        """The history goes back this far at most; returns how many rows went. States stay."""
        end = self.database.read(clock) - timedelta(seconds=older_than_seconds)
        old = sa.select(checks.c.id).where(checks.c.checked_at < end).order_by(checks.c.id).limit(CHUNK)
        gone = 0
        while ids := [row.id for row in self.database.rows(old)]:  # in short transactions: others record meanwhile
            gone += self.database.change(checks.delete().where(checks.c.id.in_(ids)))
        return gone


def record(connection: sa.Connection, results: Sequence[Result]) -> None:
    """History and states. Rows are written in the order of their keys: two writers cannot deadlock."""
    now = clock(connection)
    rows = [ledger_rows.check_row(result, now) for result in results]
    rows.sort(key=lambda row: (row["image_id"], row["place"]))  # of one place in the order given
    connection.execute(checks.insert(), rows)
    latest = {(row["image_id"], row["place"]): row for row in rows}
    full = {(row["image_id"], row["place"]): row for row in rows if _read_all(row)}
    found = [row | _full(full.get(key)) for key, row in latest.items()]
    upsert(connection, states, found, kept=tuple(_full(None)))  # at once: others wait for its locks


def _full(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a state says of the last full verification; nothing: that of before stands."""
    return {"full_verdict": row and row["verdict"], "full_checked_at": row and row["checked_at"]}


def _read_all(row: Mapping[str, Any]) -> bool:
    """A full verification that broke off says nothing of the bytes; the one before it stands.

    What was read to the end and could not be compared with anything was read all the same.
    """
    verdict = Verdict(row["verdict"])
    return row["evidence"] == Evidence.FULL and (verdict is Verdict.UNVERIFIABLE or not verdict.is_unknown)
