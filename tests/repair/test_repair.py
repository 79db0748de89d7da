"""The rule of repair: what is made good from what, and what is never touched."""

from collections.abc import Sequence

import pytest

from glance_replicas.model import Image, Location, Result
from glance_replicas.repair.plan import Action, plan
from glance_replicas.verdict import Evidence, Verdict

ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"


def seen(verdict: Verdict, name: str, host: str = "", evidence: Evidence = Evidence.FULL) -> Result:
    metadata = {"replica_host": host} if host else {"store": name}
    url = f"http://{host}:9292/replicas/{ID}" if host else f"file:///{name}/{ID}"
    return Result(Location(ID, url, metadata), verdict, evidence)


def actions(results: Sequence[Result], obstacle: str | None = None) -> dict[str, Action]:
    image = Image(ID, "active", 3, None, tuple(one.location for one in results))
    return {one.target.host or str(one.target.store): one.action for one in plan(image, results, lambda _: obstacle)}


@pytest.mark.parametrize("damage", [Verdict.CORRUPT, Verdict.MISSING, Verdict.WRONG_SIZE])
def test_damage_is_repaired(damage: Verdict) -> None:
    """Each kind of damage: a durable copy in place, a cached one by its host; what is intact is left alone."""
    found = actions([seen(Verdict.INTACT, "a"), seen(damage, "b"), seen(damage, "c", host="api1")])
    assert found == {"b": Action.RESTORE, "api1": Action.REFILL}


def test_a_cached_copy_is_good_enough_to_repair_from() -> None:
    """The only intact copy is on a host: the durable one is made from it."""
    assert actions([seen(Verdict.INTACT, "a", host="api1"), seen(Verdict.CORRUPT, "b")]) == {"b": Action.RESTORE}


@pytest.mark.parametrize("verdict", [one for one in Verdict if one.is_unknown])
def test_what_is_not_known_is_kept(verdict: Verdict) -> None:
    """ "Could not ask" is never repaired, with an intact copy and without."""
    assert actions([seen(Verdict.INTACT, "a"), seen(verdict, "b")]) == {"b": Action.KEEP}
    assert actions([seen(verdict, "a"), seen(Verdict.CORRUPT, "b")]) == {"a": Action.KEEP, "b": Action.KEEP}


def test_the_last_bytes_are_kept() -> None:
    """No copy is intact: lost, and none is touched."""
    found = actions([seen(Verdict.CORRUPT, "a"), seen(Verdict.MISSING, "b"), seen(Verdict.WRONG_SIZE, "c", host="h")])
    assert set(found.values()) == {Action.LOST}


@pytest.mark.parametrize("evidence", [Evidence.SIZE, Evidence.STORED, Evidence.SAMPLE])
def test_only_what_was_read_in_full_is_an_original(evidence: Evidence) -> None:
    """An intact verdict that rests on less than every byte is no source of a repair."""
    assert actions([seen(Verdict.INTACT, "a", evidence=evidence), seen(Verdict.CORRUPT, "b")]) == {"b": Action.LOST}


def test_an_obstacle_is_named() -> None:
    """What nothing here can write stays damaged, with the reason."""
    assert actions([seen(Verdict.INTACT, "a"), seen(Verdict.CORRUPT, "b")], "no writer") == {"b": Action.CANNOT}


def test_two_names_of_one_copy_are_one_step() -> None:
    """One object under two rows is written once."""
    twice = [seen(Verdict.CORRUPT, "b"), Result(Location(ID, f"file:///b//{ID}"), Verdict.CORRUPT, Evidence.FULL)]
    image = Image(ID, "active", 3, None)
    assert len(plan(image, [seen(Verdict.INTACT, "a"), *twice], lambda _: None)) == 1
