"""Pins, in the ledger on three databases and on the files of a host."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from glance_replicas.errors import LedgerError
from glance_replicas.ledger import Ledger
from glance_replicas.pins import CHUNK, Pins

A, B, C = (f"0000000{n}-0000-4000-8000-000000000000" for n in range(3))


@pytest.fixture
def pins(database_url: str) -> Iterator[Pins]:
    """None yet."""
    ledger = Ledger(database_url)
    ledger.upgrade()
    yield Pins(ledger.database)
    ledger.close()


def keys(pins: Pins, **which: str) -> list[tuple[str, str]]:
    return [(one.image_id, one.host) for one in pins.all(host=which.get("host"))]


def test_pins_by_image_and_host(pins: Pins) -> None:
    """Every image is pinned on every host named; each question gets its own part."""
    pins.add([B, A], ["two", "one", "two"], "ann")
    assert keys(pins) == [(A, "one"), (A, "two"), (B, "one"), (B, "two")]
    assert keys(pins, host="one") == [(A, "one"), (B, "one")]
    assert [one.image_id for one in pins.all([A, C])] == [A, A]
    assert pins.all([]) == []
    assert (pins.of_host("one"), pins.of_host("three")) == ({A, B}, set())
    pins.add([], ["one"], "ann")
    pins.add([A], [], "ann")
    assert len(pins.all()) == 4


def test_the_first_pin_stands(pins: Pins) -> None:
    """Whoever pins again changes neither who did it nor when; what is new is added."""
    pins.add([A], ["one"], "ann")
    first = pins.all()
    pins.add([A, B], ["one"], "bob")
    assert pins.all([A]) == first
    assert [one.who for one in pins.all([B])] == ["bob"]
    assert first[0].pinned_at.tzinfo is not None


def test_pins_are_removed(pins: Pins) -> None:
    """On one host or on all, and the count says how many there were."""
    pins.add([A, B], ["one", "two"], "ann")
    assert pins.remove([A, C], "one") == 1
    assert keys(pins) == [(A, "two"), (B, "one"), (B, "two")]
    assert pins.remove([A, B], None) == 3
    assert pins.remove([A, B], None) == 0
    assert pins.remove([], None) == 0


def test_many_at_once(pins: Pins) -> None:
    """More pins than one statement takes, from several threads: all kept, once each, no deadlock."""
    ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(CHUNK // 2)]

    def pin(number: int) -> None:
        pins.add(ids if number % 2 else ids[::-1], ["a", "b", "c"], f"who-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pin, range(4)))
    assert len(keys(pins)) == 3 * len(ids)
    assert len(pins.all(ids, host="b")) == len(ids)


def test_without_tables(database_url: str) -> None:
    """What is missing is said, with the command that makes it."""
    ledger = Ledger(database_url)
    with pytest.raises(LedgerError, match="replica db upgrade"):
        Pins(ledger.database).of_host("one")
    ledger.close()
