"""What is left out unread is what would have been skipped one by one, and reading ahead changes nothing."""

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from services.web.faulty import FaultyServer
from support.programs import Done, Programs
from support.worlds.crowd import DATA, Crowd
from support.worlds.scenes import begun_since

from glance_replicas.catalogue.tables import locations
from glance_replicas.database.dialect import upsert
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema import rows as ledger_rows
from glance_replicas.ledger.schema.tables import states
from glance_replicas.model import Last
from glance_replicas.read_ahead import read_ahead
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify import skip_fresh
from glance_replicas.verify.schedule import Schedule

pytest_plugins = ["support.desk"]

NOW = datetime(2026, 1, 31, tzinfo=UTC)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = [NOW - timedelta(hours=hours) for hours in (-1, 0, 1, 24, 25)]
VERDICTS = (Verdict.INTACT, Verdict.CORRUPT, Verdict.MISSING, Verdict.UNVERIFIABLE, Verdict.UNREACHABLE)
FULL = [None, *itertools.product(VERDICTS[:4], MOMENTS[2:])]
BOTH = (False, True)
IMAGE = "11111111-2222-4333-8444-555555555555"


def test_the_database_spares_what_the_rule_spares(database_url: str) -> None:
    """Of every state there can be, for every schedule, on three databases."""
    ledger = Ledger(database_url)
    ledger.upgrade()
    rows, known = [], {}
    for number, (verdict, evidence, at, full) in enumerate(itertools.product(VERDICTS, Evidence, MOMENTS, FULL)):
        full_verdict, full_at = full or (None, None)
        known[IMAGE, str(number)] = Last(verdict, evidence, at, full_verdict, full_at)
        row = {"image_id": IMAGE, "place": str(number), "url": "file:///a", "host": None, "detail": "", "size": 1}
        row |= {"verdict": verdict.value, "evidence": evidence.value, "seconds": 0.1, "checked_at": at}
        rows.append(row | {"full_verdict": full_verdict and full_verdict.value, "full_checked_at": full_at})
    ledger.database.write(lambda connection: upsert(connection, states, rows))
    for evidence, run, lax, since in itertools.product(Evidence, BOTH, BOTH, (None, NOW - timedelta(hours=24))):
        schedule = Schedule(evidence, NOW, since, run, lax)
        fresh = {key for key, last in known.items() if schedule.is_fresh(last)}
        assert ledger.keys([IMAGE], skip_fresh.is_fresh(schedule)) == fresh
        assert (since is None) == (not fresh)
    ledger.close()


@pytest.fixture(params=["together", "apart"])
def crowd(
    request: pytest.FixtureRequest,
    glance_database_url: str,
    tmp_path: Path,
    programs: Programs,
    faulty: FaultyServer,
) -> Crowd:
    """An empty catalogue on each database, the ledger in it or elsewhere; on SQLite it is always elsewhere."""
    if request.param == "together" and glance_database_url.startswith("sqlite"):
        pytest.skip("SQLite: two files")
    made = Crowd(tmp_path / "crowd", programs, faulty, glance_database_url)
    if request.param == "apart":
        made.site.ledger_url = f"sqlite:///{tmp_path}/ledger.sqlite"
        elsewhere = Ledger(made.site.ledger_url)
        elsewhere.upgrade()
        elsewhere.close()
    return made


def change(url: str, *statements: sa.UpdateBase) -> None:
    """Behind everybody's back."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for one in statements:
            connection.execute(one)
    engine.dispose()


def test_only_what_is_due_is_looked_at(crowd: Crowd) -> None:
    """Of images with all, some and none of their locations seen lately, on one or two databases; all are counted."""
    fresh, aged, damaged, bare, spelled = crowd.add(5, each=2)
    machine = crowd.machine()
    machine.configure({"replicas": {"connection": crowd.site.ledger_url}})
    odd = crowd.web.url.replace("http://", "HTTP://user:secret@") + crowd.paths[spelled][0].replace("/", "//", 1)
    first = sa.select(sa.func.min(locations.c.id)).where(locations.c.image_id == spelled).scalar_subquery()
    engine = sa.create_engine(crowd.site.database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        row = connection.execute(sa.select(first)).scalar_one()
    engine.dispose()
    change(crowd.site.database_url, locations.update().where(locations.c.id == row).values(value=odd))
    change(crowd.site.database_url, locations.delete().where(locations.c.image_id == bare))
    crowd.web.put(crowd.paths[damaged][1], DATA[::-1])
    assert crowd.verify(machine, "--all").status == 1
    (new,) = crowd.add(1, each=2)
    key = ledger_rows.url_key(crowd.web.url + crowd.paths[aged][0])
    old = states.update().where(states.c.image_id == aged, states.c.place == key)
    change(crowd.site.ledger_url, old.values(checked_at=LONG_AGO, full_checked_at=LONG_AGO))

    named = crowd.verify(
        machine, fresh, aged, damaged, bare, spelled, new, "--max-age", "1d", "--dry-run", "-f", "json"
    )
    left = crowd.verify(machine, "--all", "--max-age", "1d", "--dry-run", "-f", "json")
    assert left.rows == named.rows
    assert [row["Image"] for row in left.rows][:2] == [new, new]
    assert sorted(row["Image"] for row in left.rows) == sorted([aged, damaged, new, new])
    done = crowd.verify(machine, "--all", "--max-age", "1d")
    assert "4 locations verified: 3 intact, 1 corrupt; 6 skipped, found intact lately" in said(done)
    assert f"image {bare} has no location at all" in done.err


def test_a_run_that_goes_on_looks_at_the_rest(crowd: Crowd) -> None:
    """What it has seen, damage too, is left out; what was added is not."""
    seen = crowd.add(3, each=2)
    crowd.web.put(crowd.paths[seen[0]][0], DATA[::-1])
    machine = crowd.machine()
    machine.configure({"replicas": {"connection": crowd.site.ledger_url}})
    stopped = crowd.verify(
        machine,
        "--all",
        "--run",
        "r",
        "--workers",
        1,
        "--max-items-per-second",
        2,
        "--max-duration",
        "2s",
        "-f",
        "jsonl",
    )
    before = crowd.reads()
    assert 0 < sum(before) < 6, stopped.out
    crowd.add(1, each=2)
    done = crowd.verify(machine, "--all", "--run", "r", "-f", "jsonl")
    assert crowd.reads() == [1] * 8, done.err
    assert done.out.count('"Verdict"') == 8 - sum(before)


def said(done: Done) -> str:
    return done.out + done.err


def test_reading_ahead_is_in_order_and_ends() -> None:
    """The parts as they are; an error in its place; no thread is left when the caller leaves early."""
    before = threading.enumerate()
    assert list(read_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert list(read_ahead([])) == []

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("of the second")

    found = read_ahead(broken())
    assert next(found) == 1
    with pytest.raises(ValueError, match="of the second"):
        next(found)
    taken: list[int] = []
    early = read_ahead(taken.append(one) or one for one in itertools.count())  # type: ignore[func-returns-value]
    assert next(early) == 0
    early.close()
    assert len(taken) <= 2
    assert not begun_since(before)
