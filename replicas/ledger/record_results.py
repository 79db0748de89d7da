"""Results written into our tables, inside the caller's transaction.

A result is as of the moment it is recorded, by the database's clock, and of two the one recorded last counts: the
clocks of the machines that looked may be wrong, and are not asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..database.dialect import Moment, clock, upsert
from ..model import Evidence, Result, Verdict
from . import rows as ledger_rows
from .tables import checks, states


def record(connection: sa.Connection, results: Sequence[Result]) -> None:
    """History and states. Rows are written in the order of their keys: two writers cannot deadlock."""
    now = clock(connection)
    rows = [ledger_rows.check_row(one, now) for one in results]
    rows.sort(key=lambda row: (row["image_id"], row["place"]))  # of one place in the order given
    connection.execute(checks.insert(), rows)
    latest = {(row["image_id"], row["place"]): row for row in rows}
    upsert(connection, states, list(latest.values()))
    full = {(row["image_id"], row["place"]): row for row in rows if _read_all(row)}
    if full:
        columns = ("image_id", "place", "verdict", "checked_at")
        connection.execute(_FULL, [{f"new_{name}": row[name] for name in columns} for row in full.values()])


def _read_all(row: Mapping[str, Any]) -> bool:
    """A full look that broke off says nothing of the bytes; the one before it stands.

    What was read to the end and could not be compared with anything was read all the same.
    """
    verdict = Verdict(row["verdict"])
    return row["evidence"] == Evidence.FULL and (verdict is Verdict.UNVERIFIABLE or not verdict.is_unknown)


_FULL = (
    states.update()
    .where(states.c.image_id == sa.bindparam("new_image_id"), states.c.place == sa.bindparam("new_place"))
    .values(full_verdict=sa.bindparam("new_verdict"), full_checked_at=sa.bindparam("new_checked_at", type_=Moment()))
)
