"""Results written into our tables, inside the caller's transaction.

A result is as of the moment it is recorded, by the database's clock, and of two the one recorded last counts: the
clocks of the machines that looked may be wrong, and are not asked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..database.dialect import clock, upsert
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
    full = {(row["image_id"], row["place"]): row for row in rows if _read_all(row)}
    found = [row | _full(full.get(key)) for key, row in latest.items()]
    upsert(connection, states, found, kept=tuple(_full(None)))  # at once: others wait for its locks


def _full(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a state says of the last full look; nothing: that of before stands."""
    return {"full_verdict": row and row["verdict"], "full_checked_at": row and row["checked_at"]}


def _read_all(row: Mapping[str, Any]) -> bool:
    """A full look that broke off says nothing of the bytes; the one before it stands.

    What was read to the end and could not be compared with anything was read all the same.
    """
    verdict = Verdict(row["verdict"])
    return row["evidence"] == Evidence.FULL and (verdict is Verdict.UNVERIFIABLE or not verdict.is_unknown)
