"""What SQLite, PostgreSQL and MariaDB say each in their own way: moments, the clock, upserts.

Every moment is written by the database's clock or converted to UTC, and read back aware.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_MYSQL = ("mysql", "mariadb")


class Moment(sa.types.TypeDecorator[datetime]):
    """An aware datetime: timestamptz on PostgreSQL, naive UTC with microseconds elsewhere."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """MariaDB keeps whole seconds unless told."""
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC; a naive value is a fault of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        """What is no moment (SQLite keeps any text, MariaDB a day 0) is an error of the database, as any other."""
        processor = super().result_processor(dialect, coltype)

        def processed(value: Any) -> Any:
            try:
                return processor(value) if processor else value
            except (ValueError, TypeError, AttributeError) as error:
                raise sa.exc.DataError("a column of moments", None, error) from error

        return processed

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC, whatever the session's time zone."""
        if value is None or value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(FunctionElement[datetime]):
    """The database's clock at this statement."""

    type = Moment()
    inherit_cache = True


@compiles(utc_now)
def _now_mysql(element: utc_now, compiler: Any, **_: Any) -> str:
    return "UTC_TIMESTAMP(6)"


@compiles(utc_now, "postgresql")
def _now_postgresql(element: utc_now, compiler: Any, **_: Any) -> str:
    return "clock_timestamp()"


@compiles(utc_now, "sqlite")
def _now_sqlite(element: utc_now, compiler: Any, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # SQLAlchemy's own format, six digits


def clock(connection: sa.Connection) -> datetime:
    """The database's time, now."""
    now: datetime = connection.execute(sa.select(utc_now())).scalar_one()
    return now


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    adds: bool = False,
    kept: Collection[str] = (),
) -> None:
    """Each row is there under its primary key; no key twice in `rows`.

    With `adds` the given numbers are added to those of an existing row. Of the columns `kept` an existing value stays
    where none is given.
    """
    new = partial(_new, table, adds=adds, kept=kept)
    names = [name for name in rows[0] if not table.c[name].primary_key]
    if connection.dialect.name in _MYSQL:
        changed = mysql.insert(table)
        update = [(name, new(changed.inserted, name)) for name in names]
        connection.execute(changed.on_duplicate_key_update(update), rows)
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made = insert(table)
    upserted = made.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: new(made.excluded, name) for name in names},
    )
    connection.execute(upserted, rows)


def add_missing(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """A row is there for each primary key; one that was there stays as it was."""
    if connection.dialect.name in _MYSQL:
        key = next(iter(table.primary_key.columns))
        connection.execute(mysql.insert(table).on_duplicate_key_update({key.name: key}), rows)
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), rows)


def _new(table: sa.Table, given: Any, name: str, *, adds: bool, kept: Collection[str]) -> sa.ColumnElement[Any]:
    """The value a column gets."""
    if name in kept:
        return sa.func.coalesce(given[name], table.c[name])
    value: sa.ColumnElement[Any] = table.c[name] + given[name] if adds else given[name]
    return value
