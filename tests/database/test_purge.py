"""What is past goes from our tables and nothing else does, on three databases; and the commands about the tables."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from services.databases.schema import sqlite_database
from support.programs import Desk
from support.worlds import past

from glance_replicas.database import transactions
from glance_replicas.database.chunks import CHUNK
from glance_replicas.ledger.ledger import Ledger, place_key
from glance_replicas.ledger.pins import Pins
from glance_replicas.ledger.purge import Purge
from glance_replicas.ledger.schema import tables
from glance_replicas.model import Host, Location, Result
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.desk"]

NOBODYS = "99999999-2222-4333-8444-555555555555"
AGE = 90 * 86400.0
NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(seconds=AGE + 3600), NOW - timedelta(seconds=AGE - 3600)


def write(ledger: Ledger, statement: Any, rows: Any = None) -> None:
    """Behind the ledger's back."""
    ledger.database.write(lambda connection: connection.execute(statement, rows))


def count(ledger: Ledger, table: sa.Table) -> int:
    (row,) = ledger.database.rows(sa.select(sa.func.count().label("number")).select_from(table))
    return int(row.number)


def result(number: int, at: datetime) -> Result:
    image = f"11111111-2222-4333-8444-{number:012d}"
    return Result(Location(image, f"file:///srv/{number}"), Verdict.INTACT, Evidence.FULL, checked_at=at)


def test_what_is_over(ledger: Ledger) -> None:
    """Of finished and unfinished, old and young rows only the old finished ones go, more of them than one batch."""
    many = range(CHUNK + 7)
    runs = {"who": "w", "options": "{}", "started_at": OLD}
    old = [runs | {"name": f"old{n}", "finished_at": OLD} for n in many]
    kept = [runs | {"name": "young", "finished_at": YOUNG}, runs | {"name": "running", "finished_at": None}]
    write(ledger, tables.runs.insert(), old + kept)
    claims = [{"image_id": f"i{n}", "place": "p", "owner": "o", "expires_at": (OLD, YOUNG)[n % 2]} for n in many]
    write(ledger, tables.claims.insert(), claims)
    verify_requests = [
        {"image_id": f"i{n}", "host": "h", "who": "w", "requested_at": (OLD, YOUNG)[n]} for n in range(2)
    ]
    write(ledger, tables.verify_requests.insert(), verify_requests)
    for number, finished in enumerate((OLD, YOUNG, None)):
        ledger.request_withdrawal(Location(f"i{number}", "file:///x"), reason="r", who="w")
        done = tables.withdrawals.update().where(tables.withdrawals.c.image_id == f"i{number}")
        write(ledger, done.values(finished_at=finished, requested_at=OLD))
    past = Purge(ledger.database, AGE)
    assert past.runs() == len(many)
    assert {row.name for row in ledger.database.rows(sa.select(tables.runs.c.name))} == {"young", "running"}
    assert past.claims() == (len(many) + 1) // 2
    assert (past.verify_requests(), past.withdrawals()) == (1, 1)
    assert [one.image_id for one in ledger.withdrawals()] == ["i2", "i1"]
    assert (past.runs(), past.claims(), past.verify_requests(), past.withdrawals()) == (0, 0, 0, 0)
    assert count(ledger, tables.claims) == len(many) // 2


def test_orphans(ledger: Ledger) -> None:
    """What no audit has seen for so long goes, whenever it was seen first."""
    rows = [
        {"place": "store:fast", "key": f"k{n}", "name": f"n{n}", "kind": "dark", "sightings": 2, "first_seen": OLD}
        | {"last_seen": (OLD, YOUNG)[n % 2]}
        for n in range(2 * CHUNK + 5)
    ]
    write(ledger, tables.orphans.insert(), rows)
    assert Purge(ledger.database, AGE).orphans() == CHUNK + 3
    assert count(ledger, tables.orphans) == CHUNK + 2


def test_pins(ledger: Ledger) -> None:
    """Old pins of images that no longer exist go, on all hosts and in several batches; young ones wait."""
    number = CHUNK + 9
    rows = [
        {"image_id": f"i{n:04d}", "host": host, "who": "w", "pinned_at": YOUNG if n % 3 == 0 else OLD}
        for n in range(number)
        for host in ("h1", "h2")
    ]
    write(ledger, tables.pins.insert(), rows)

    def living(ids: list[str]) -> set[str]:
        return {one for one in ids if int(one[1:]) % 3 == 1}

    assert Purge(ledger.database, AGE).pins(living) == 2 * sum(n % 3 == 2 for n in range(number))
    assert count(ledger, tables.pins) == 2 * sum(n % 3 != 2 for n in range(number))


def test_guards(ledger: Ledger) -> None:
    """Rows by which nodes take turns go with their images, over several batches; that of upgrades stays."""
    names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(CHUNK + 9)]
    write(ledger, tables.guards.insert(), [{"name": name, "n": 1} for name in (*names, "db upgrade")])
    assert Purge(ledger.database, AGE).guards(lambda ids: set(ids) & set(names[::3])) == len(names) - len(names[::3])
    left = {row.name for row in ledger.database.rows(sa.select(tables.guards.c.name))}
    assert left == {*names[::3], "db upgrade"}


def test_states(ledger: Ledger) -> None:
    """Old states of places that are not listed go; those listed, and young ones, stay, over several batches."""
    number = 2 * CHUNK + 3
    past.record(ledger, [result(n, YOUNG if n % 5 == 0 else OLD) for n in range(number)])
    asked: list[str] = []

    def listed(ids: list[str]) -> set[tuple[str, str]]:
        asked.extend(ids)
        there = [result(n, OLD).location for n in range(number) if n % 5 == 1]
        return {(one.image_id, place_key(one)) for one in there}

    assert Purge(ledger.database, AGE).states(listed) == sum(n % 5 > 1 for n in range(number))
    assert asked == sorted(set(asked)), "each image once"
    assert count(ledger, tables.states) == sum(n % 5 <= 1 for n in range(number))
    assert count(ledger, tables.checks) == number


def test_a_host_that_is_heard_of_meanwhile_stays(ledger: Ledger) -> None:
    """A heartbeat after the purge began saves the host."""
    for name in ("gone", "back"):
        ledger.heartbeat(Host(name, None, f"http://{name}"))
    write(ledger, tables.hosts.update().values(heartbeat=OLD))
    past = Purge(ledger.database, AGE)
    ledger.heartbeat(Host("back", None, "http://back"))
    assert (past.host("gone"), past.host("back"), past.host("never")) == (True, False, False)
    assert [one.name for one in ledger.hosts()] == ["back"]


@pytest.fixture
def conf(desk: Desk, tmp_path: Path) -> Iterator[tuple[Path, Ledger]]:
    """The desk's configuration with a ledger of its own, still without tables."""
    path, url = tmp_path / "glance-api.conf", f"sqlite:///{tmp_path}/ledger.sqlite"
    path.write_text(desk.host.config_file.read_text().replace(desk.ledger_url, url))
    ledger = Ledger(url)
    yield path, ledger
    ledger.close()


def test_purge_asks_the_catalogue(desk: Desk, conf: tuple[Path, Ledger]) -> None:
    """States of listed locations and hosts that rows name stay; those of deleted images and dead hosts go."""
    path, ledger = conf
    ledger.upgrade()
    kept, deleted = desk.image(b"kept"), desk.image(b"to be deleted")
    url = desk.add_replica(kept, "http://127.0.0.9:1", "named")
    (durable, _), (gone,) = desk.urls(kept), desk.urls(deleted)
    desk.host.client().delete(deleted)
    places = [Location(kept, durable), Location(kept, url), Location(kept, "file:///pruned"), Location(deleted, gone)]
    past.record(ledger, [dataclasses.replace(result(0, OLD), location=one) for one in places])
    for name in ("named", "dead"):
        ledger.heartbeat(Host(name, None, f"http://{name}"))
    write(ledger, tables.hosts.update().values(heartbeat=OLD))
    ledger.heartbeat(Host("alive", None, "http://alive"))
    Pins(ledger.database).add([kept, deleted, NOBODYS], ["alive", "dead"], "w")
    write(ledger, tables.guards.insert(), [{"name": name, "n": 1} for name in (kept, deleted)])
    write(ledger, tables.pins.update().values(pinned_at=OLD))
    done = desk.programs.run("--config-file", path, "db", "purge", "--older-than", "90d")
    assert (done.status, done.err) == (0, "")
    lines = dict(line.split(": ") for line in done.out.splitlines())
    assert lines["results of checks"] == "4 rows removed"
    assert lines["states of locations that no longer exist"] == "2 rows removed"
    assert lines["dead hosts"] == "1 row removed"
    assert lines["pins of images that no longer exist"] == "4 rows removed"
    assert lines["guards of images that no longer exist"] == "1 row removed"
    assert [row.name for row in ledger.database.rows(sa.select(tables.guards.c.name))] == [kept]
    assert {pin.image_id for pin in Pins(ledger.database).all()} == {kept}
    assert "finished withdrawals" not in lines
    assert {key[1] for key in ledger.states([kept, deleted])} == {place_key(one) for one in places[:2]}
    assert [one.name for one in ledger.hosts()] == ["alive", "named"]
    assert (
        "finished withdrawals: 0 rows removed"
        in desk.programs.run("--config-file", path, "db", "purge", "--older-than", "1s", "--withdrawals").out
    )
    assert "alive" in [one.name for one in ledger.hosts()], "a living host stays however short the age"


def test_purge_without_a_catalogue(desk: Desk, conf: tuple[Path, Ledger], tmp_path: Path) -> None:
    """A catalogue out of reach, or an empty one, says nothing of what is no more: states and hosts stay, status 3."""
    path, ledger = conf
    ledger.upgrade()
    past.record(ledger, [result(1, OLD)])
    Pins(ledger.database).add([NOBODYS], ["h"], "w")
    write(ledger, tables.pins.update().values(pinned_at=OLD))
    text = path.read_text()
    away = "postgresql+psycopg2://u:pw@127.0.0.9:1/x"
    path.write_text(text.replace(desk.site.database_url, away))
    done = desk.programs.run("--config-file", path, "db", "purge", "--older-than", "90d")
    assert done.status == 3
    assert "states of locations that no longer exist are kept: postgresql+psycopg2://u:***@127.0.0.9:1/x" in done.err
    assert "pins of images that no longer exist are kept: postgresql" in done.err
    assert "results of checks: 1 row removed" in done.out
    path.write_text(text.replace(desk.site.database_url, sqlite_database(tmp_path / "empty.sqlite")))
    done = desk.programs.run("--config-file", path, "db", "purge", "--older-than", "90d")
    assert (done.status, "the catalogue has no image at all" in done.err) == (3, True)
    assert (count(ledger, tables.states), count(ledger, tables.pins)) == (1, 1)
    assert desk.programs.run("--config-file", path, "db", "purge", "--older-than", "soon").status == 2
    assert desk.programs.run("--config-file", path, "db", "purge").status == 2


def test_check(desk: Desk, conf: tuple[Path, Ledger]) -> None:
    """0 when the tables are this version's; 1 when they are absent, older, newer or incomplete, with what to do."""
    path, ledger = conf

    def check(status: int) -> str:
        done = desk.programs.run("--config-file", path, "db", "check")
        assert (done.status, done.err) == (status, "")
        return done.out

    assert "is at nothing; to come: 0001, 0002" in check(1)
    with transactions.transaction(transactions.engine(ledger_url(path))) as connection:
        from glance_replicas.ledger import migrations

        migrations.upgrade(connection, to="0001")
    assert "is at 0001; to come: 0002" in check(1)
    assert desk.programs.run("--config-file", path, "db", "upgrade").status == 0
    assert "as this version needs it" in check(0)
    write(ledger, sa.text("DROP TABLE replica_pins"))
    write(ledger, sa.text("ALTER TABLE replica_uses DROP COLUMN hit_bytes"))
    assert "not there: replica_pins, replica_uses.hit_bytes" in check(1)
    write(ledger, sa.text("UPDATE replica_alembic_version SET version_num = '9999'"))
    assert "is at 9999; it is newer than this version" in check(1)


def ledger_url(path: Path) -> str:
    return f"sqlite:///{path.parent}/ledger.sqlite"
