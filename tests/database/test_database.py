"""Engines, transactions and errors on real databases."""

import contextlib
import multiprocessing
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from services import free_port
from services.databases.servers import DatabaseServer

from glance_replicas.database import faults, transactions
from glance_replicas.errors import CatalogueError, ConfigError

pytestmark = pytest.mark.slow

counter = sa.table("counter", sa.column("id", sa.Integer), sa.column("n", sa.Integer))


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """A database with a table of two counters at 0."""
    made = transactions.engine(database_url)
    with made.begin() as connection:
        connection.execute(sa.text("CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER)"))
        connection.execute(sa.text("INSERT INTO counter VALUES (1, 0), (2, 0)"))
    yield made
    made.dispose()


def increase(connection: sa.Connection, row: int) -> None:
    connection.execute(counter.update().where(counter.c.id == row).values(n=counter.c.n + 1))


def counters(engine: sa.Engine) -> list[int]:
    wanted = sa.select(counter.c.n).order_by(counter.c.id)
    return transactions.reading(engine, lambda connection: list(connection.scalars(wanted)))


def hammer(url: str, times: int) -> None:
    """Many short read-modify-write transactions, as one process of many."""
    engine = transactions.engine(url)

    def work(connection: sa.Connection) -> None:
        n = connection.scalar(sa.select(counter.c.n).where(counter.c.id == 1))
        connection.execute(counter.update().where(counter.c.id == 1).values(n=n + 1))

    for _ in range(times):
        transactions.writing(engine, work)
        assert counters(engine)[0] > 0


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_eight_processes_write_one_sqlite_file(tmp_path: Path, journal: str) -> None:
    """No "database is locked" and no lost update, in both journal modes."""
    path = tmp_path / "shared.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"PRAGMA journal_mode = {journal}; CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER);"
        "INSERT INTO counter VALUES (1, 0), (2, 0);"
    )
    connection.close()
    url, fork = f"sqlite:///{path}", multiprocessing.get_context("fork")
    workers = [fork.Process(target=hammer, args=(url, 60)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert counters(transactions.engine(url)) == [480, 0]


def test_reads_take_no_write_lock(engine: sa.Engine) -> None:
    """While one connection reads, another begins to write at once, on SQLite too; it sees what it wrote."""
    with contextlib.ExitStack() as reading:
        reader = reading.enter_context(engine.connect())
        assert reader.scalar(sa.select(counter.c.n).where(counter.c.id == 1)) == 0
        started = time.monotonic()
        with transactions.transaction(engine) as writer:
            increase(writer, 1)
            assert time.monotonic() - started < 2
            assert reader.scalar(sa.select(counter.c.n).where(counter.c.id == 1)) == 0
            reading.close()  # in its old journal mode SQLite commits once no one reads
    assert counters(engine) == [1, 0]


def test_deadlocks_are_done_again(engine: sa.Engine) -> None:
    """Two transactions that lock two rows in opposite order both succeed in the end, once each."""
    meet = threading.Barrier(2)

    def cross(first: int, second: int) -> int:
        tries = 0

        def work(connection: sa.Connection) -> None:
            nonlocal tries
            tries += 1
            increase(connection, first)
            if engine.dialect.name != "sqlite" and tries == 1:  # SQLite has one writer: they cannot meet
                meet.wait(10)
            increase(connection, second)

        transactions.writing(engine, work)
        return tries

    with ThreadPoolExecutor(2) as pool:
        tries = list(pool.map(cross, (1, 2), (2, 1)))
    assert counters(engine) == [2, 2]
    assert sum(tries) > 2 or engine.dialect.name == "sqlite"


def test_an_exception_rolls_back(engine: sa.Engine) -> None:
    """What a transaction did before an exception did not happen."""

    def work(connection: sa.Connection) -> None:
        increase(connection, 1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        transactions.writing(engine, work)
    assert counters(engine) == [0, 0]


def test_waits_for_locks_are_bounded(engine: sa.Engine) -> None:
    """A held row lock makes the next writer fail after the time it allows, not hang, and not be retried."""
    with transactions.transaction(engine) as holder:
        increase(holder, 1)
        started = time.monotonic()
        with pytest.raises(sa.exc.OperationalError), transactions.transaction(engine, 1.0) as other:
            increase(other, 1)
        assert 0.5 < time.monotonic() - started < 5


def test_a_fork_takes_connections_of_its_own(engine: sa.Engine) -> None:
    """A child forked with an open pool works, and the parent's connection still does afterwards."""
    assert counters(engine) == [0, 0]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            transactions.writing(engine, lambda connection: increase(connection, 1))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert counters(engine) == [1, 0]


def test_missing_tables_are_told_apart(engine: sa.Engine) -> None:
    """No such table or column is a fault of its own; a row that breaks a rule is not."""
    for statement in ("SELECT * FROM absent", "SELECT absent FROM counter"):
        with pytest.raises(sa.exc.DBAPIError) as caught, engine.connect() as connection:
            connection.execute(sa.text(statement))
        assert faults.fault(caught.value) is faults.Fault.NO_TABLE
    with pytest.raises(sa.exc.IntegrityError) as broken, engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO counter VALUES (1, 0)"))
    assert faults.fault(broken.value) is faults.Fault.OTHER


@pytest.mark.parametrize("dialect", ["postgresql+psycopg2", "mysql+pymysql"])
def test_a_server_that_is_not_there(dialect: str) -> None:
    """One line, soon, with the address and the remedy and without the password."""
    engine = transactions.engine(f"{dialect}://glance:p4ssw0rd@127.0.0.1:{free_port()}/glance")
    started = time.monotonic()
    with (
        pytest.raises(CatalogueError) as caught,
        transactions.translate(CatalogueError, engine, no_table="", remedy="look at it"),
    ):
        counters(engine)
    text = str(caught.value)
    assert time.monotonic() - started < 3
    assert "p4ssw0rd" not in text
    assert "127.0.0.1" in text
    assert "\n" not in text
    assert text.endswith("; look at it")


def test_a_server_that_says_nothing() -> None:
    """A PostgreSQL that accepts and is silent costs the connect timeout, not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = transactions.engine(f"postgresql+psycopg2://glance@127.0.0.1:{silent.getsockname()[1]}/glance")
        started = time.monotonic()
        with pytest.raises(sa.exc.OperationalError):
            counters(engine)
        assert time.monotonic() - started < transactions.CONNECT_TIMEOUT + 3


def test_a_server_that_comes_back(engine: sa.Engine, database_server: DatabaseServer | None) -> None:
    """After a restart of the server the same engine works, though its pooled connections are dead."""
    if database_server is None:
        pytest.skip("SQLite has no server")
    assert counters(engine) == [0, 0]
    database_server.stop()
    started = time.monotonic()
    with pytest.raises(sa.exc.OperationalError):
        counters(engine)
    assert time.monotonic() - started < 3
    database_server.start()
    assert counters(engine) == [0, 0]


@pytest.mark.parametrize(
    "url",
    ["", "glance:p4ss@host/name", "nosuch://u:p4ss@h/n", "mysql+nosuch://u:p4ss@h/n", "postgresql://u:p4ss@h:x/n"],
)
def test_bad_urls(url: str) -> None:
    """A URL that cannot work is a ConfigError that does not show the password."""
    with pytest.raises(ConfigError) as caught:
        transactions.engine(url)
    assert "p4ss" not in str(caught.value)


def test_what_the_url_says_wins() -> None:
    """An operator's own timeouts are kept, on a password with special characters too."""
    engine = transactions.engine("mysql+pymysql://glance:p%40ss@h/n?connect_timeout=11")
    assert "p%40ss" not in transactions.shown(engine.url)
    assert engine.dialect.create_connect_args(engine.url)[1]["connect_timeout"] == 11


def test_values_are_in_no_error(engine: sa.Engine) -> None:
    """The text of an error has no parameter of the statement: URLs may hold passwords."""
    statement, values = sa.text("SELECT * FROM absent WHERE url = :url"), {"url": "swift://u:p4ssw0rd@h/c/o"}
    with (
        engine.connect() as connection,
        pytest.raises(CatalogueError) as caught,
        transactions.translate(CatalogueError, engine, no_table="make it", remedy=""),
    ):
        connection.execute(statement, values)
    assert "p4ssw0rd" not in str(caught.value)
    assert str(caught.value).endswith("; make it")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("a\0b", "a\ufffdb"), ("\ud800", "\ufffd"), ("\U0001f600!", "\ufffd!"), ("höst€" * 9, "höst€")],
)
def test_clean(engine: sa.Engine, text: str, cleaned: str) -> None:
    """A cleaned text is one that every database takes and gives back."""
    assert transactions.clean(text, 5) == cleaned
    assert transactions.reading(engine, lambda c: c.scalar(sa.select(sa.literal(cleaned, sa.String(5))))) == cleaned
