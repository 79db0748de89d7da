"""Credentials that earlier versions left in our tables are taken out, inside the caller's transaction.

Before, a secret with a slash in it was taken for a part of the path: it stood in URLs, in what was said about them, and
in what a place is known by. Done again, or killed and done again, it finds nothing left to do.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from ...database.chunks import CHUNK
from ...location import redact, redact_text
from ..schema.rows import url_key
from ..schema.tables import checks, copies, orphans, states, withdrawals

# Texts in which a URL may be. Those called `url` are one, and what `place` is made of.
_TEXTS = {
    checks: ("url", "detail"),
    states: ("url", "detail"),
    withdrawals: ("url", "reason", "proof"),
    copies: ("detail",),
    orphans: ("name",),
}


def redact_rows(connection: sa.Connection) -> int:
    """No row of ours has credentials of a store; what was known of a place is known of it under its new name.

    Returns how many rows had some.
    """
    return sum(_redact(connection, table, row) for table in _TEXTS for row in _suspects(connection, table))


def _suspects(connection: sa.Connection, table: sa.Table) -> Iterator[Mapping[str, Any]]:
    """Rows with a text in which there may be credentials, few at a time, by the columns that are needed."""
    key, names = list(table.primary_key.columns), _TEXTS[table]
    columns = [*key, *(one for one in table.c if one.name in (*names, "place", "checked_at") and not one.primary_key)]
    suspect = sa.or_(*(table.c[name].contains("@", autoescape=True) for name in names))
    wanted = sa.select(*columns).where(suspect).order_by(*key).limit(CHUNK)
    part = wanted
    while rows := connection.execute(part).mappings().all():
        yield from (dict(row) for row in rows)
        part = wanted.where(sa.tuple_(*key) > sa.tuple_(*(rows[-1][one.name] for one in key)))


def _redact(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    changed = {name: text for name in _TEXTS[table] if row[name] and (text := _clean(name, row[name])) != row[name]}
    if "url" in changed:
        changed["place"] = url_key(row["url"])
    if not changed:
        return False
    this = sa.and_(*(one == row[one.name] for one in table.primary_key.columns))
    if table is states and changed.get("place", row["place"]) != row["place"]:
        there = sa.and_(states.c.image_id == row["image_id"], states.c.place == changed["place"])
        newer = sa.select(states.c.place).where(there, states.c.checked_at >= row["checked_at"])
        if connection.execute(newer).first():
            connection.execute(states.delete().where(this))
            return True
        connection.execute(states.delete().where(there))
    connection.execute(table.update().where(this).values(changed))
    return True


def _clean(name: str, text: str) -> str:
    if name == "url":
        return redact(text) if "://" in text else text
    return json.dumps(_cleaned(json.loads(text))) if name == "proof" and _is_json(text) else redact_text(text)


def _cleaned(value: Any) -> Any:
    """What JSON holds, its texts without credentials."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
