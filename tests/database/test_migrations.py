"""Our tables: from empty, from every earlier version with data in it, and equal to what the code believes."""

import logging
import random
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from glance_replicas.database import transactions
from glance_replicas.ledger import migrations
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema import tables as ledger_tables

ROWS = 500


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """An empty database."""
    made = transactions.engine(database_url)
    yield made
    made.dispose()


def tables(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def value(column: sa.Column[Any], number: int) -> object:
    """Something the column holds, other in each row where it can be, NULL at times where it may."""
    kind, rng = column.type, random.Random(f"{column.name}{number}")
    if column.nullable and rng.random() < 0.3:
        return None
    if isinstance(kind, sa.Boolean) or getattr(kind, "display_width", None) == 1:  # MariaDB has only small integers
        return rng.random() < 0.5
    if isinstance(kind, sa.Integer | sa.Float):
        return number if column.name == "id" else rng.randrange(1 << 30)
    if isinstance(kind, sa.DateTime):
        return datetime.fromtimestamp(rng.randrange(1 << 31), UTC).replace(tzinfo=UTC if kind.timezone else None)
    if isinstance(kind, sa.Date):
        return datetime.fromtimestamp(rng.randrange(1 << 31), UTC).date()
    text = f"{number}-" + "".join(rng.choices(string.printable + "äö€", k=30))
    return text[: kind.length] if kind.length else text * 20


def generate(engine: sa.Engine) -> dict[str, int]:
    """Fill every table of ours as it is there, by reflection: no version of the code is asked."""
    metadata = sa.MetaData()
    metadata.reflect(engine, only=lambda name, _: name != ledger_tables.VERSION_TABLE)
    counts = {}
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            rows = [{one.name: value(one, number) for one in table.c} for number in range(1, ROWS + 1)]
            connection.execute(table.insert(), rows)
            counts[table.name] = len(rows)
    return counts


def test_from_empty(database_url: str, engine: sa.Engine) -> None:
    """An upgrade makes the tables and says what it applied; the second one has nothing to do."""
    ledger = Ledger(database_url)
    assert (ledger.version(), ledger.is_current()) == (None, False)
    assert ledger.upgrade() == migrations.revisions()
    assert (ledger.version(), ledger.is_current(), ledger.upgrade()) == (migrations.latest(), True, [])
    assert tables(engine) == set(ledger_tables.metadata.tables) | {ledger_tables.VERSION_TABLE}
    ledger.close()


def test_the_code_and_the_migrations_agree(database_url: str, engine: sa.Engine) -> None:
    """Alembic finds no difference, types included, between ledger_tables and the migrated database."""
    with transactions.transaction(engine) as connection:
        migrations.upgrade(connection)
    with engine.connect() as connection:
        options = {"version_table": ledger_tables.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, ledger_tables.metadata) == []
        extra = sa.Table("replica_extra", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
        assert compare_metadata(context, extra.metadata) != []  # it would find one


@pytest.mark.parametrize("start", migrations.revisions())
def test_up_from_every_version(
    engine: sa.Engine, start: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """From each revision, with generated rows, an upgrade keeps every row and logs the time of each step."""
    with transactions.transaction(engine) as connection:
        migrations.upgrade(connection, to=start)
    counts = generate(engine)
    assert set(counts) >= {"replica_hosts"}
    caplog.set_level(logging.INFO)
    caplog.clear()
    with transactions.transaction(engine) as connection:
        applied = migrations.upgrade(connection)
    assert applied == migrations.revisions()[migrations.revisions().index(start) + 1 :]
    times = [line for line in caplog.messages if " took " in line]
    assert len(times) == len(applied)
    with capsys.disabled():
        for line in times:
            print(f"\n{engine.dialect.name}, {ROWS} rows a table: {line}")
    with engine.connect() as connection:
        found = {
            name: connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar() for name in counts
        }
    assert found == counts


def test_two_upgrades_at_once(database_url: str) -> None:
    """Of several hosts that upgrade together one does it, the others wait and find it done."""
    ledgers = [Ledger(database_url) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(Ledger.upgrade, ledgers))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, 0, len(migrations.revisions())]
    assert all(ledger.is_current() for ledger in ledgers)
    for ledger in ledgers:
        ledger.close()


def test_glance_is_left_alone(glance_database_url: str) -> None:
    """In Glance's own database its tables and its Alembic version stay as they are; ours all have our prefix."""
    engine = transactions.engine(glance_database_url)
    versions = sa.select(sa.text("version_num")).select_from(sa.table("alembic_version"))
    with engine.connect() as connection:
        before, version = tables(engine), connection.execute(versions).scalars().all()
    ledger = Ledger(glance_database_url)
    ledger.upgrade()
    with engine.connect() as connection:
        assert connection.execute(versions).scalars().all() == version
    assert tables(engine) - before == set(ledger_tables.metadata.tables) | {ledger_tables.VERSION_TABLE}
    assert before <= tables(engine)
    assert all(name.startswith(ledger_tables.PREFIX) for name in tables(engine) - before)
    ledger.close()
    engine.dispose()
