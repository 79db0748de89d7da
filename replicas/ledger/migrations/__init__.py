"""The history of our tables: Alembic, linear, in a version table of our own.

Alembic is loaded by what needs it: it would be a tenth of the start of every program.
"""

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ...database import several_writers
from ..schema.tables import VERSION_TABLE, metadata
from . import lease

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

log = logging.getLogger(__name__)

LATEST = "head"
_LOCK = "glance_replicas.ledger.migrations"
_LOCK_NUMBER = 0x676C616E6365  # PostgreSQL names its advisory locks by number
_LOCK_SECONDS = 600


def upgrade(connection: sa.Connection, to: str = LATEST) -> list[str]:
    """The tables are those of revision `to`; returns the revisions applied, in order.

    `connection` is in a write transaction. Where the database can (not MariaDB) all of it is one
    transaction; two upgrades at a time take turns, on a Galera cluster from whatever nodes.
    """
    with lease.held(connection.engine) if several_writers.is_galera(connection) else contextlib.nullcontext():
        several_writers.catch_up(connection)  # the lease may have been taken through another node
        return _upgrade(connection, to)


def _upgrade(connection: sa.Connection, to: str) -> list[str]:
    from alembic import command
    from alembic.config import Config

    _take_turns(connection)
    try:
        before = revision(connection)
        script = _script()
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", _escaped(script.dir))
        command.upgrade(config, to)
        todo = script.iterate_revisions(revision(connection), before)
        return [one.revision for one in reversed(list(todo))]
    finally:
        if connection.dialect.name in ("mysql", "mariadb"):
            # DDL has committed itself all along; the version must be there before the next in turn reads it.
            connection.exec_driver_sql("COMMIT")
            connection.execute(sa.select(sa.func.release_lock(_LOCK)))


def revision(connection: sa.Connection) -> str | None:
    """The revision the tables are at; None before the first upgrade."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def latest() -> str | None:
    """The newest revision this package has."""
    return _script().get_current_head()


def revisions() -> list[str]:
    """Every revision, oldest first."""
    return [one.revision for one in reversed(list(_script().walk_revisions()))]


def absent(connection: sa.Connection) -> list[str]:
    """The tables, and columns of tables, that this version needs and the database has not."""
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    missing = []
    for table in metadata.sorted_tables:
        if table.name not in there:
            missing.append(table.name)
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        missing += [f"{table.name}.{column.name}" for column in table.c if column.name not in columns]
    return missing


def _script() -> "ScriptDirectory":
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", _escaped(str(Path(__file__).parent)))
    return ScriptDirectory.from_config(config)


def _escaped(path: str) -> str:
    return path.replace("%", "%%")


def _take_turns(connection: sa.Connection) -> None:
    """Nobody else upgrades until the transaction ends (SQLite: it holds the file already)."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_NUMBER)))
    elif connection.dialect.name in ("mysql", "mariadb"):
        connection.execute(sa.select(sa.func.get_lock(_LOCK, _LOCK_SECONDS)))
