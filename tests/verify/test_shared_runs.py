"""Runs that machines share and that go on after kill -9, with real programs and on three databases."""

import random
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from services.databases.servers import DatabaseServer
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.crowd import Crowd, wait_all
from support.worlds.scenes import settle

from glance_replicas.errors import Refused
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema.tables import claims, runs
from glance_replicas.ledger.shared_runs import SharedRuns
from glance_replicas.model import Location, Result
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.desk"]

IMAGE = "11111111-2222-4333-8444-555555555555"
PLACE = Location(IMAGE, "file:///a")
KILLS = 8


def test_a_run_is_begun_once_and_joined_with_the_same_options(ledger: Ledger) -> None:
    """Its start stays; other options are refused with the difference; finished, the name begins anew."""
    made = SharedRuns(ledger.database)
    first = made.start("nightly", {"evidence": "full"}, who="ann")
    assert not first.resumed
    again = made.start("nightly", {"evidence": "full"}, who="bob")
    assert (again.resumed, again.started_at) == (True, first.started_at)
    with pytest.raises(Refused, match=r"begun by ann with other options \(evidence: full there, size here\)"):
        made.start("nightly", {"evidence": "size"}, who="bob")
    assert not made.start("other", {"evidence": "size"}, who="bob").resumed
    assert (made.finish(first), made.finish(first)) == (True, False)
    later = made.start("nightly", {"evidence": "size"}, who="bob")
    assert not later.resumed
    assert later.started_at > first.started_at
    assert not made.finish(first)


def test_one_claim_for_one_place(ledger: Ledger) -> None:
    """The second gets nothing until the claim is given back with its result, and then sees the result."""
    made = SharedRuns(ledger.database)
    keys = [(IMAGE, "a"), (IMAGE, "b")]
    assert made.claim("one", keys[:1]).mine == {keys[0]}
    granted = made.claim("two", keys)
    assert (granted.mine, granted.elsewhere) == ({keys[1]}, 1)
    made.record("two", [], [keys[0]])
    assert made.claim("three", keys[:1]).elsewhere == 1
    made.release("one")
    assert made.claim("three", keys[:1]).mine == {keys[0]}


def test_a_result_and_its_claim_go_together(ledger: Ledger) -> None:
    """Whoever gets the claim next is told the result that freed it."""
    from glance_replicas.ledger.ledger import place_key

    made, key = SharedRuns(ledger.database), (IMAGE, place_key(PLACE))
    assert made.claim("one", [key]).known == {}
    made.record("one", [Result(PLACE, Verdict.CORRUPT, Evidence.FULL)], [key])
    granted = made.claim("two", [key])
    assert granted.known[key].verdict is Verdict.CORRUPT
    assert abs(granted.known[key].checked_at - ledger.now()) < timedelta(seconds=30)


def test_a_claim_ends_with_its_lease(ledger: Ledger) -> None:
    """A process that was killed, or slept, loses what it had; one that renews in time does not."""
    made, key = SharedRuns(ledger.database), (IMAGE, "a")
    made.claim("one", [key])
    past = ledger.now() - timedelta(seconds=1)
    ledger.database.change(claims.update().values(expires_at=past))
    made.renew("one")
    assert made.claim("two", [key]).elsewhere == 1
    ledger.database.change(claims.update().values(expires_at=past))
    assert made.claim("two", [key]).mine == {key}
    made.renew("one")
    made.record("one", [], [key])
    assert made.claim("three", [key]).elsewhere == 1


@pytest.fixture
def crowd(tmp_path: Path, programs: Programs, faulty: FaultyServer) -> Crowd:
    """An empty catalogue on SQLite."""
    return Crowd(tmp_path / "crowd", programs, faulty)


@pytest.mark.parametrize("database_server", ["postgres", "mariadb"], indirect=True)
def test_two_machines_share_a_run(
    database_server: DatabaseServer, glance_database_url: str, tmp_path: Path, programs: Programs, faulty: FaultyServer
) -> None:
    """Each location is read once and recorded once, both machines do their part, and the run ends for both."""
    crowd = Crowd(tmp_path / "crowd", programs, faulty, glance_database_url)
    crowd.add(60, each=2)
    machines = [crowd.machine(f"127.0.0.{number}") for number in (2, 3)]
    words = ["--all", "--run", "weekly", "--max-items-per-second", 40, "-f", "jsonl"]
    done = wait_all([crowd.start(one, *words) for one in machines])
    assert [one.status for one in done] == [0, 0], [one.err for one in done]
    assert crowd.reads() == crowd.recorded() == [1] * 120
    assert all(one.out.count('"Verdict": "intact"') for one in done)


def test_killed_at_random_a_run_goes_on(crowd: Crowd) -> None:
    """No result that was kept is made again: each location has one, and was read once more at most for each kill
    that met it between its look and its record."""
    crowd.add(150, each=2)
    machine, chance = crowd.machine(), random.Random(4)
    words = ["--all", "--run", "nightly", "--max-items-per-second", 40, "-f", "jsonl"]
    lost = [0] * 300
    for _ in range(KILLS):
        if sum(crowd.recorded()) > 200:  # or there is a second run, on a slow machine
            break
        started = crowd.start(machine, *words)
        settle(lambda started=started: started.out())
        time.sleep(chance.uniform(0, 1.5))
        started.kill()
        crowd.settle()
        lost = [reads - kept for reads, kept in zip(crowd.reads(), crowd.recorded(), strict=True)]
        assert all(one >= 0 for one in lost)
        crowd.expire_claims()
    done = crowd.verify(machine, *words)
    assert done.status == 0, done.err
    assert crowd.recorded() == [1] * 300
    assert crowd.reads() == [1 + one for one in lost]
    assert "the run is over; all of it: 300 intact" in done.err


def test_the_next_run_of_a_name_looks_again(crowd: Crowd) -> None:
    """A run that ended does not stand in the way of the next; one that goes on refuses other options."""
    crowd.add(3)
    machine = crowd.machine()
    assert crowd.verify(machine, "--all", "--run", "r").status == 0
    assert crowd.verify(machine, "--all", "--run", "r").status == 0
    assert crowd.reads() == [2] * 3
    ledger = Ledger(crowd.site.ledger_url)
    ledger.database.change(runs.update().values(finished_at=sa.null()))
    ledger.close()
    refused = crowd.verify(machine, "--all", "--run", "r", "--evidence", "size")
    assert refused.status == 1
    assert "run r was begun by" in refused.err
    assert "evidence: full there, size here" in refused.err


def test_a_resumed_run_remembers_damage(crowd: Crowd) -> None:
    """What the killed process found counts for the exit status of the one that ends the run."""
    names = crowd.add(3)
    machine = crowd.machine()
    crowd.web.put(crowd.paths[names[0]][0], b"other bytes, of the same size")
    assert crowd.verify(machine, "--all", "--run", "r").status == 1
    ledger = Ledger(crowd.site.ledger_url)
    ledger.database.change(runs.update().values(finished_at=sa.null()))
    ledger.close()
    done = crowd.verify(machine, "--all", "--run", "r")
    assert done.status == 1
    assert "3 skipped, verified before in this run" in done.out
    assert "the run is over; all of it: 2 intact, 1 corrupt" in done.out
    assert crowd.web.reads(crowd.paths[names[1]][0]) == 1


def test_what_is_added_during_a_run_is_not_skipped(crowd: Crowd) -> None:
    """Ids that come before those already passed are found by the next pass of the same run (case 35)."""
    crowd.add(30)
    machine = crowd.machine()
    started = crowd.start(machine, "--all", "--run", "r", "--max-items-per-second", 20, "-f", "jsonl")
    settle(started.out)
    late = "00000000-0000-4000-8000-000000000001"
    crowd.put([late])
    done = started.wait()
    assert done.status == 0
    assert late in done.out
    assert crowd.reads() == [1] * 31
