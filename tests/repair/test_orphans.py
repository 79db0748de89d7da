"""The table of orphans on every database."""

from collections.abc import Iterator

import pytest

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.orphans import Kind, Orphans, Sighting

PLACE = "store:fast"
NAMES = [f"/store/{number}" for number in range(1200)]


@pytest.fixture
def orphans(database_url: str) -> Iterator[Orphans]:
    ledger = Ledger(database_url)
    ledger.upgrade()
    yield Orphans(ledger.database)
    ledger.close()


def dark(name: str, size: int = 1) -> Sighting:
    return Sighting(name, Kind.DARK, None, size)


def test_sightings(orphans: Orphans) -> None:
    """Seen again is counted, seen otherwise begins anew, not seen is forgotten; another place is none of it."""
    assert [one.sightings for one in orphans.saw(PLACE, [dark("a"), dark("b"), dark("c"), dark("d")])] == [1] * 4
    orphans.saw("host:api1", [dark("a")])
    changed = Sighting("d", Kind.LOST, None, 1)
    again = {one.name: one for one in orphans.saw(PLACE, [dark("a"), dark("b", size=2), changed])}
    assert {name: one.sightings for name, one in again.items()} == {"a": 2, "b": 1, "d": 1}
    assert again["a"].first_seen < again["a"].last_seen
    assert again["b"].first_seen == again["b"].last_seen == again["a"].last_seen
    assert [one.name for one in orphans.list(PLACE)] == ["a", "b", "d"]
    assert [one.sightings for one in orphans.list("host:api1")] == [1]
    orphans.forget(PLACE, ["a"])
    assert [one.name for one in orphans.list()] == ["a", "b", "d"]  # the first one is of the host


def test_many_and_odd_names(orphans: Orphans) -> None:
    """More than one statement holds, names longer than an index, of another case, or that no text can hold."""
    odd = ["A" * 3000, "a" * 3000, "\udcff", "\U0001f600", "a", "A"]
    for sightings in (1, 2):
        found = orphans.saw(PLACE, [dark(name) for name in NAMES + odd])
        assert [one.sightings for one in found] == [sightings] * (len(NAMES) + len(odd))
    assert len(orphans.list(PLACE)) == len(NAMES) + len(odd)
    assert orphans.saw(PLACE, []) == []
    assert orphans.list() == []
