"""What each migration of our tables takes: SQLite, PostgreSQL and MariaDB with so many rows of states and checks.

The servers are those of the tests, which do not wait for the disk; the rows are made by the database itself.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from services.databases.schema import sqlite_url
from services.databases.servers import MariaDB, Postgres, server_folder

from glance_replicas.database import transactions
from glance_replicas.ledger import migrations

ROWS, PLACES = 1_000_000, 10  # in each of the two tables; places of an image

NUMBERS = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {rows}) "
    "SELECT {columns} FROM s",
    "postgresql": "SELECT {columns} FROM generate_series(1, {rows}) AS s(n)",
    "mysql": "SELECT {columns} FROM (SELECT seq AS n FROM seq_1_to_{rows}) AS s",
}
PADDED = {
    "sqlite": "printf('%0{width}d', {number})",
    "postgresql": "lpad(({number})::text, {width}, '0')",
    "mysql": "lpad({number}, {width}, '0')",
}
MOMENT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', '2026-01-01', '-' || n || ' seconds')",
    "postgresql": "timestamptz '2026-01-01 00:00Z' - n * interval '1 second'",
    "mysql": "timestamp '2026-01-01 00:00:00' - INTERVAL n SECOND",
}


def fill(engine: sa.Engine, rows: int) -> None:
    """`replica_states` and `replica_checks`, as they are in revision 0001, have so many rows each."""
    kind = engine.dialect.name
    image = PADDED[kind].format(number=f"n / {PLACES}" if kind != "mysql" else f"n DIV {PLACES}", width=36)
    values = {
        "image_id": image,
        "place": PADDED[kind].format(number="n", width=64),
        "url": "'http://api1.example.org:9292/replicas/11111111-2222-4333-8444-555555555555'",
        "host": "'api1'",
        "verdict": "'intact'",
        "evidence": "'full'",
        "detail": "''",
        "size": "n",
        "seconds": "1.5",
        "checked_at": MOMENT[kind],
    }
    full = {"full_verdict": "'intact'", "full_checked_at": MOMENT[kind]}
    for table, columns in (("replica_checks", values), ("replica_states", values | full)):
        select = NUMBERS[kind].format(rows=rows, columns=", ".join(columns.values()))
        with engine.begin() as connection:
            connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(columns)}) {select}"))


def measure(url: str, rows: int) -> Iterator[tuple[str, float]]:
    """Each revision after the first with the seconds it took on a database with so many rows."""
    engine = transactions.engine(url, patient=True)
    first, *others = migrations.revisions()
    with transactions.transaction(engine) as connection:
        migrations.upgrade(connection, to=first)
    fill(engine, rows)
    for revision in others:
        began = time.monotonic()
        with transactions.transaction(engine) as connection:
            migrations.upgrade(connection, to=revision)
        yield revision, time.monotonic() - began
    engine.dispose()


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    """URLs of an empty database on each of the three."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        postgres = Postgres(stack.enter_context(server_folder("postgres")))
        stack.callback(postgres.close)
        mariadb = MariaDB(stack.enter_context(server_folder("mariadb")))
        stack.callback(mariadb.close)
        yield {
            "SQLite": sqlite_url(Path(folder) / "ledger.sqlite"),
            "PostgreSQL": postgres.create("ledger"),
            "MariaDB": mariadb.create("ledger"),
        }


def main() -> None:
    """One row of a table for each database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="in each of the two tables")
    rows = parser.parse_args().rows
    revisions = migrations.revisions()[1:]
    print(f"| {rows:,} states and {rows:,} checks |", " | ".join(f"to {one}, s" for one in revisions), "|")
    print("|---" * (len(revisions) + 1) + "|")
    with databases() as found:
        for name, url in found.items():
            took = dict(measure(url, rows))
            print(f"| {name} |", " | ".join(f"{took[one]:.2f}" for one in revisions), "|", flush=True)


if __name__ == "__main__":
    main()
