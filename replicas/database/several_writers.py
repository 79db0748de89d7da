"""Databases that several nodes write at once (MariaDB Galera): decisions that hold there, too.

Galera certifies rows that were written, not rows that were read or locked: two transactions on two nodes that each read
what the other one removes both commit. So every decision that guards a promise begins its transaction by writing a row
that its rivals write, too (`guard`). The first statement, for what another node has changed between the first read and
the write makes no conflict. The later one of two is rolled back (1213) and done again (`transactions.writing`).

Whoever writes a note, commits it, and only then reads the notes of others needs no such row, but a read that has what
all nodes have committed (`causal_reads`).

On one server nothing here does anything: locks hold there. (`LockedImage.keep` writes its rows on every database: a
Glance without our filters takes no lock of ours.)
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa

READ = 1  # bits of wsrep_sync_wait: SELECT and SHOW
ALL = 7  # changes, too: a transaction waits with its first statement, whatever that is

_GALERA, _OWN, _NOW = "replicas_galera", "replicas_sync_wait_default", "replicas_sync_wait"  # notes on a connection
_ADD = sa.text("INSERT INTO replica_guards (name, n) VALUES (:name, 1) ON DUPLICATE KEY UPDATE n = n + 1")
_causal: ContextVar[bool] = ContextVar("causal reads", default=False)


def connected(driver: Any, record: Any) -> None:
    """A new connection to MariaDB or MySQL: what it is connected to is noted. A node without quorum answers this."""
    cursor = driver.cursor()
    try:
        cursor.execute("SHOW SESSION VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_sync_wait')")
        found = {str(name).lower(): str(value) for name, value in cursor.fetchall()}
    finally:
        cursor.close()
    driver.rollback()
    record.info[_GALERA] = found.get("wsrep_on", "OFF").upper() in ("ON", "1")
    record.info[_OWN] = record.info[_NOW] = int(found.get("wsrep_sync_wait", 0))


def is_galera(connection: sa.Connection) -> bool:
    """Whether other nodes may write at the same time."""
    return bool(connection.info.get(_GALERA))


def cluster(connection: sa.Connection) -> tuple[int, str] | None:
    """How many nodes the cluster has and the state of this one, in Galera's word; None where there is one server."""
    if not is_galera(connection):
        return None
    rows = connection.exec_driver_sql(
        "SHOW STATUS WHERE Variable_name IN ('wsrep_cluster_size', 'wsrep_local_state_comment')"
    )
    found = {str(name).lower(): str(value) for name, value in rows}
    return int(found["wsrep_cluster_size"]), found["wsrep_local_state_comment"]


def begin(connection: sa.Connection) -> None:
    """A transaction begins; it waits for other nodes as the server is configured, or as `causal_reads` wants it."""
    if is_galera(connection):
        _wait(connection, READ if _causal.get() else 0)


def catch_up(connection: sa.Connection) -> None:
    """What a transaction that has read nothing yet reads first has all that any node had committed by then."""
    if is_galera(connection):
        _wait(connection, READ)


def guard(connection: sa.Connection, name: str) -> bool:
    """Of all transactions that guard this name one commits at a time, on whatever node; later ones see what it did.

    To be called before anything is read. `name` is an image id, in any spelling. False where there is one server:
    lock rows there. Raises ProgrammingError where our tables are elsewhere, or of an earlier version.
    """
    if not is_galera(connection):
        return False
    _wait(connection, ALL)
    connection.execute(_ADD, {"name": name.lower()})
    return True


class Rivals:
    """The rows that a decision writes so that, of two on different nodes, one fails.

    `Catalogue` and `Ledger` are handed one. Another one in its place shows what each of these rows is for.
    """

    def meet(self, connection: sa.Connection, name: str) -> bool:
        """As `guard`."""
        return guard(connection, name)

    def hold(self, connection: sa.Connection, rows: sa.Update) -> int:
        """These rows, which the decision counts on, are written; how many are there."""
        return connection.execute(rows).rowcount


RIVALS = Rivals()


@contextlib.contextmanager
def causal_reads() -> Iterator[None]:
    """What this thread reads meanwhile has all that any node had committed when it was asked for."""
    token = _causal.set(True)
    try:
        yield
    finally:
        _causal.reset(token)


def _wait(connection: sa.Connection, bits: int) -> None:
    wanted = connection.info[_OWN] | bits
    if connection.info[_NOW] != wanted:
        connection.exec_driver_sql(f"SET SESSION wsrep_sync_wait = {wanted}")
        connection.info[_NOW] = wanted
