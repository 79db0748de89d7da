"""Where the path may be at fault a location is tried again, and a place where much fails is reported once."""

from pathlib import Path

import pytest
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.crowd import DATA, Crowd
from support.worlds.scenes import settle

pytest_plugins = ["support.desk"]


@pytest.fixture
def crowd(tmp_path: Path, programs: Programs, faulty: FaultyServer) -> Crowd:
    """An empty catalogue on SQLite."""
    return Crowd(tmp_path / "crowd", programs, faulty)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 404}, {"status": 403}, {"truncate_at": 3}])
def test_a_fault_that_passes_is_no_verdict(crowd: Crowd, fault: dict[str, int]) -> None:
    """Refused or broken off once, the next try finds it intact."""
    (image,) = crowd.add(1)
    path = crowd.paths[image][0]
    crowd.web.put(path, DATA, fail_times=1, **fault)
    done = crowd.verify(crowd.machine(), image)
    assert (done.status, crowd.web.reads(path)) == (0, 2), done.out


def test_a_fault_that_stays_was_tried_several_times(crowd: Crowd) -> None:
    """The detail says how often; a wrong digest is never asked twice."""
    gone, wrong = crowd.add(2)
    crowd.web.put(crowd.paths[gone][0], DATA, status=404)
    crowd.web.put(crowd.paths[wrong][0], DATA[::-1])
    done = crowd.verify(crowd.machine(), gone, wrong, "-f", "json")
    rows = {row["Image"]: row for row in done.rows}
    assert rows[gone]["Verdict"] == "missing"
    assert rows[gone]["Detail"].endswith("(3 tries)")
    assert rows[wrong]["Verdict"] == "corrupt"
    assert [crowd.web.reads(crowd.paths[one][0]) for one in (gone, wrong)] == [3, 1]


def test_a_place_where_all_fails_is_one_problem(crowd: Crowd) -> None:
    """One line says which place to see; each location is still listed for machines, and tried less after a while."""
    names = crowd.add(12)
    for name in names:
        crowd.web.put(crowd.paths[name][0], DATA, status=503)
    machine = crowd.machine()
    done = crowd.verify(machine, "--all", "--workers", 1)
    assert done.status == 3
    assert "store web: 12 unreachable of 12 locations" in done.out
    assert done.out.count("next:") == 1
    assert sum(crowd.reads()) == 5 * 3 + 7
    assert len(crowd.verify(machine, "--all", "-f", "json").rows) == 12


def test_a_few_failures_are_told_one_by_one(crowd: Crowd) -> None:
    """Below the threshold every location has its own advice."""
    names = crowd.add(12)
    for name in names[:4]:
        crowd.web.put(crowd.paths[name][0], DATA, status=503)
    done = crowd.verify(crowd.machine(), "--all")
    assert done.out.count("next: make sure that store web answers, then: replica verify") == 4


def test_freshness_and_what_is_overdue(crowd: Crowd) -> None:
    """Locations and bytes by age, from the ledger alone; status 3 when something is overdue, for monitoring."""
    names = crowd.add(3)
    machine = crowd.machine()
    crowd.verify(machine, names[0])
    done = crowd.verify(machine, "--all", "--freshness", "-f", "json")
    found = {row["Last Verified"]: (row["Locations"], row["Size"]) for row in done.rows}
    assert (found["hour"], found["never"]) == ((1, len(DATA)), (2, 2 * len(DATA)))
    assert done.status == 0
    late = crowd.verify(machine, "--all", "--freshness", "--overdue", "7d")
    assert late.status == 3
    assert "2 locations are overdue" in late.out
    assert "next: replica verify --all --max-age 168h" in late.out
    assert crowd.verify(machine, names[0], "--freshness", "--overdue", "7d").status == 0
    assert crowd.reads() == [1, 0, 0]


def test_time_is_up(crowd: Crowd) -> None:
    """--max-duration begins no more looks; what is left is counted and makes the status 3."""
    crowd.add(40)
    done = crowd.verify(crowd.machine(), "--all", "--max-items-per-second", 10, "--max-duration", "1s", "-f", "jsonl")
    assert done.status == 3
    assert 0 < sum(crowd.reads()) < 40
    assert f"{40 - sum(crowd.reads())} not verified, time was up" in done.err


def test_samples_together_are_all(crowd: Crowd) -> None:
    """1/3, 2/3 and 3/3 have each location once; x% is the same again with the same seed; a size takes so many."""
    crowd.add(30)
    machine = crowd.machine()
    for part in ("1/3", "2/3", "3/3"):
        assert crowd.verify(machine, "--all", "--sample", part).status == 0
    assert crowd.reads() == [1] * 30
    words = ["--all", "--dry-run", "-f", "json", "--sample"]
    drawn = [{row["URL"] for row in crowd.verify(machine, *words, "40%", "--seed", one).rows} for one in "aab"]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(crowd.verify(machine, *words, 3 * len(DATA)).rows) == 3


def test_a_slow_place_holds_no_other_up(crowd: Crowd) -> None:
    """While every verification of one host hangs, all others are done."""
    names = crowd.add(20)
    for name in names[:10]:
        crowd.web.put(f"/replicas/{name}", DATA, stall_before_headers=True)
        crowd.site.rows("UPDATE image_locations SET deleted = :yes WHERE image_id = :image", yes=True, image=name)
        metadata = {"store": "web", "replica_host": "slow"}
        crowd.site.add_location(name, f"{crowd.web.url}/replicas/{name}", metadata)
    words = ["--all", "--workers", 4, "--workers-per-backend", 2, "-f", "jsonl"]
    started = crowd.start(crowd.machine(), *words)
    settle(lambda: started.out().count('"intact"') == 10)
    for name in names[:10]:
        crowd.web.change(f"/replicas/{name}")
    assert started.wait().status == 1, "ten images that only a host has are an alarm"
