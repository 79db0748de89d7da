"""The database our own tables are in: short transactions, their errors, and the tables' version."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from ...database import transactions
from ...disk import ownership
from ...errors import LedgerError
from .. import migrations
from ..migrations.redaction import redact_rows

T = TypeVar("T")


def _give(url: sa.URL) -> None:
    """SQLite's files that root made belong to the owner of their folder, who runs Glance, and may be written by it."""
    path = Path(url.database or "") if url.get_backend_name() == "sqlite" else Path()
    with contextlib.suppress(OSError):  # whoever cannot be given them is told by SQLite
        if os.geteuid() == 0 and path.is_absolute() and (user := ownership.user_of(path.parent)) is not None:
            ownership.give_all([path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))], user)


class LedgerDatabase:
    """Every method raises LedgerError when the database cannot be asked. Safe for threads and after a fork."""

    def __init__(self, url: str) -> None:
        self._url, self._engine = url, transactions.engine(url)

    def close(self) -> None:
        """No connection is open; the next call opens one again."""
        self._engine.dispose()

    def upgrade(self) -> list[str]:
        """The tables are those this version needs; returns the revisions applied, none if they were."""
        from alembic.util import CommandError

        bind = transactions.engine(self._url, patient=True)
        try:
            with self._errors(), transactions.transaction(bind) as connection:
                applied = migrations.upgrade(connection)
                if not applied:  # else it was done; hosts of an earlier version may have written more since
                    redact_rows(connection)
                return applied
        except CommandError as error:
            raise LedgerError(
                f"{error}; the tables are newer than this version of glance-replicas: upgrade it"
            ) from error
        finally:
            bind.dispose()
            _give(bind.url)

    def version(self) -> str | None:
        """The revision of the tables; None when there are none."""
        return self.read(migrations.revision)

    def absent(self) -> list[str]:
        """The tables, and columns of tables, that this version needs and the database has not."""
        return self.read(migrations.absent)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, in one transaction that changes nothing."""
        with self._errors():
            return transactions.reading(self._engine, work)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` returns, in one transaction; it may run more than once (`transactions.writing`)."""
        with self._errors():
            return transactions.writing(self._engine, work)

    def change(self, statement: sa.Update | sa.Delete) -> int:
        """How many rows it met."""
        return self.write(lambda connection: connection.execute(statement).rowcount)

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """All rows of the answer."""
        return self.read(lambda connection: list(connection.execute(query).fetchall()))

    def tuples(self, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """All rows as the driver gives them: texts and numbers are what they are, moments are not."""
        return self.read(lambda connection: transactions.tuples(connection, query))

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return transactions.translate(
            LedgerError,
            self._engine,
            no_table="run: replica db upgrade",
            remedy="check [replicas] connection (default: [database] connection) and that the database answers",
        )
