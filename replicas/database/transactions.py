"""Engines, short transactions and their errors: what the catalogue and the ledger share."""

import contextlib
import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from ..errors import ConfigError, ReplicaError
from . import several_writers
from .faults import Fault, fault, is_refusal

CONNECT_TIMEOUT = 5  # seconds
READ_TIMEOUT = 60  # seconds a statement may take before the server counts as gone
LOCK_WAIT = 10.0  # seconds for a lock another transaction holds
BUSY_WAIT = 30.0  # seconds for the one writer SQLite allows
ATTEMPTS = 6

_WAIT = "replicas_lock_wait"  # execution option of a write transaction; seconds

# utf8mb3 lacks everything above U+FFFF, and Glance refuses it on every database; PostgreSQL refuses NUL.
UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff\\U00010000-\\U0010ffff]")

T = TypeVar("T")


class Changed(Exception):
    """What a decision rests on was changed by another meanwhile: the transaction is to be done again."""


class Unsettled(Exception):
    """The server did not say whether it has committed: the change may have been made, or not."""

    def __init__(self, error: sa.exc.DBAPIError) -> None:
        super().__init__(str(error))
        self.error = error


def engine(url: str, *, patient: bool = False) -> sa.Engine:
    """An engine for SQLite, PostgreSQL or MariaDB (MySQL); nothing is connected yet. Raises ConfigError.

    What the URL says of timeouts wins over ours; `patient` waits for a statement without end (a migration).
    Statements' values (location URLs may hold passwords) appear in no log of SQLAlchemy's.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError("the database URL cannot be parsed; write dialect+driver://user:password@host/name") from None
    options: dict[str, Any] = {"poolclass": NullPool} if parsed.get_backend_name() == "sqlite" else _pool()
    if parsed.drivername in ("postgresql", "postgresql+psycopg2"):
        options["executemany_mode"] = "values_plus_batch"  # or every row of an upsert goes there and back by itself
    try:
        wanted = {name: value for name, value in _arguments(parsed, patient).items() if name not in parsed.query}
        made = sa.create_engine(parsed, hide_parameters=True, connect_args=wanted, **options)
    except (sa.exc.SQLAlchemyError, ImportError, TypeError) as error:
        raise ConfigError(f"{shown(parsed)}: {error}; install the driver or correct the URL") from error
    _listen(made)
    return made


def shown(url: sa.URL) -> str:
    """A database URL without its password."""
    return url.set(query={}).render_as_string(hide_password=True)


def reading(bind: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    """What `work` returned, from one transaction that takes no lock; the connection is given back."""

    def attempt() -> T:
        with bind.connect() as connection:
            return work(connection)

    return persist(attempt)


def tuples(connection: sa.Connection, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
    """The driver's own rows: of millions, what SQLAlchemy makes of each takes most of the time."""
    cursor = connection.execute(query).cursor
    return list(cursor.fetchall()) if cursor else []


def writing(bind: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    """What `work` returned, committed. It may be called several times (deadlock, busy SQLite, another node's write)."""

    def attempt() -> T:
        with transaction(bind) as connection:
            return work(connection)

    return persist(attempt)


def clean(text: str, length: int) -> str:
    """Text from elsewhere made fit for every database: nothing unstorable, at most `length` characters."""
    return UNSTORABLE.sub("\ufffd", text[:length])


@contextlib.contextmanager
def transaction(bind: sa.Engine, wait_seconds: float | None = None) -> Iterator[sa.Connection]:
    """One write transaction: committed at the end, rolled back by an exception; waits for locks are bounded.

    On SQLite it holds the write lock of the whole file from the start: nobody else writes before the end.
    """
    if wait_seconds is None:
        wait_seconds = BUSY_WAIT if bind.dialect.name == "sqlite" else LOCK_WAIT
    with bind.connect().execution_options(**{_WAIT: wait_seconds}) as connection, connection.begin() as begun:
        yield connection
        _commit(begun)


def _commit(begun: sa.RootTransaction) -> None:
    """Raises Unsettled unless the database says that it did, or that it did not."""
    try:
        begun.commit()
    except sa.exc.DBAPIError as error:
        if is_refusal(error):
            raise
        raise Unsettled(error) from error


@contextlib.contextmanager
def translate(kind: type[ReplicaError], bind: sa.Engine, *, no_table: str, remedy: str) -> Iterator[None]:
    """Errors of the database leave as `kind`: one line with the URL (no password), the reason and what to do."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        advice = no_table if fault(error) is Fault.NO_TABLE else remedy
        raise kind(f"{shown(bind.url)}: {_reason(error, bind.url)}; {advice}") from error
    except Changed as error:
        raise kind(f"{shown(bind.url)}: {error}; run the command again") from error
    except Unsettled as error:
        why = f"whether the change was made is not known, its commit failed: {_reason(error.error, bind.url)}"
        raise kind(
            f"{shown(bind.url)}: {why}; {remedy}, then run the command again; it starts from what is in the database"
        ) from error


def persist(attempt: Callable[[], T]) -> T:
    """What `attempt` returns, tried again while others come between; it has changed nothing when it fails so."""
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except Changed:
            pass
        except sa.exc.DBAPIError as error:
            kind = fault(error)
            if kind is not Fault.CONFLICT and (kind is not Fault.NO_QUORUM or number > 1):
                raise
        time.sleep(random.uniform(0.005, 0.02) * 2**number)  # noqa: S311
    return attempt()


def _reason(error: sa.exc.SQLAlchemyError, url: sa.URL) -> str:
    """The first line of what the driver said; MySQL's drivers put a number before it."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
    text = str(cause.args[-1] if len(cause.args) > 1 else cause).strip()
    line = (text.splitlines() or [type(cause).__name__])[0]
    return line.replace(str(url.password), "***") if url.password else line


def _pool() -> dict[str, Any]:
    return {
        "pool_size": 2,
        "max_overflow": 14,
        "pool_timeout": 2 * CONNECT_TIMEOUT,  # seconds
        "pool_recycle": 300,  # seconds; below the idle limit of every proxy met so far
        "pool_pre_ping": True,
    }


def _arguments(url: sa.URL, patient: bool) -> dict[str, object]:
    """What bounds the waiting of each driver for a server that does not answer."""
    driver = url.get_driver_name()
    if driver == "pysqlite":
        return {"timeout": BUSY_WAIT}
    if driver in ("psycopg", "psycopg2"):  # libpq: acknowledged but slow is no fault there
        bounds = {"connect_timeout": CONNECT_TIMEOUT, "tcp_user_timeout": READ_TIMEOUT * 1000, "keepalives_idle": 30}
        # Prepared statements belong to a connection, and PgBouncer in transaction mode hands out another each time.
        return bounds | ({"prepare_threshold": None} if driver == "psycopg" else {})
    if driver not in ("pymysql", "mysqldb"):
        return {}
    silent = {} if patient else {"read_timeout": READ_TIMEOUT, "write_timeout": READ_TIMEOUT}
    return {"connect_timeout": CONNECT_TIMEOUT, **silent}


def _listen(made: sa.Engine) -> None:
    sa.event.listen(made, "begin", _begin)
    sa.event.listen(made, "handle_error", _failed)
    sa.event.listen(made, "connect", _connected)
    if made.dialect.name in ("mysql", "mariadb"):  # by whatever driver
        sa.event.listen(made, "connect", several_writers.connected)
    sa.event.listen(made, "checkout", _checked_out)


def _connected(connection: Any, record: Any) -> None:
    record.info["pid"] = os.getpid()
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None  # or sqlite3 begins by itself, too late and never IMMEDIATE


def _failed(context: sa.engine.ExceptionContext) -> None:
    """A node without quorum refuses to roll back, too: its connection is given up, and the next one is a new one."""
    if context.sqlalchemy_exception and fault(context.sqlalchemy_exception) is Fault.NO_QUORUM:
        context.is_disconnect = True


def _checked_out(connection: Any, record: Any, proxy: Any) -> None:
    """A connection made before a fork belongs to the parent (uWSGI without lazy-apps): take another."""
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise sa.exc.DisconnectionError("the connection belongs to another process")


def _begin(connection: sa.Connection) -> None:
    for statement in _opening(connection.dialect.name, connection.get_execution_options().get(_WAIT)):
        connection.exec_driver_sql(statement)
    several_writers.begin(connection)


def _opening(dialect: str, wait: float | None) -> list[str]:
    """What starts a transaction, beside what the driver does by itself."""
    if dialect == "sqlite" and wait is None:
        return ["BEGIN"]
    if wait is None:
        return []
    if dialect == "sqlite":
        return [f"PRAGMA busy_timeout = {int(wait * 1000)}", "BEGIN IMMEDIATE"]
    if dialect == "postgresql":
        return [f"SET LOCAL lock_timeout = {int(wait * 1000)}"]
    return [f"SET SESSION innodb_lock_wait_timeout = {max(1, round(wait))}"]
