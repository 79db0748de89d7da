"""The rows of cached copies: which host has what, on three databases."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from glance_replicas.database.chunks import CHUNK
from glance_replicas.ledger.cached_copies import CachedCopies
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema.tables import cached as table
from glance_replicas.model import HOST_KEY, ZONE_KEY, Host, Location

A, B, C = (f"{n}1111111-2222-4333-8444-555555555555" for n in (1, 2, 3))
ONE, TWO = Host("api1", "z1", "http://127.0.0.2:9292"), Host("api2", None, "http://127.0.0.3:9292/")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """Empty tables."""
    made = Ledger(database_url)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def copies(ledger: Ledger) -> CachedCopies:
    """Nothing is cached anywhere."""
    return CachedCopies(ledger.database)


def test_a_copy_comes_and_goes(copies: CachedCopies) -> None:
    """Each host has its own; what comes again is new again; what ended is remembered, for the host's own pass."""
    assert copies.add("api1", [A, B, A]) == 2
    assert copies.add("api2", [A]) == 1
    assert copies.add("api1", [A]) == 0
    assert copies.end("api1", [A, C]) == 1
    assert (copies.of_host("api1"), copies.of_host("api2")) == ({B}, {A})
    assert copies.ever_of_host("api1") == {A, B}
    assert copies.of_host("api1", [A, C]) == set()
    assert copies.add("api1", [A]) == 1
    assert copies.of_host("api1") == {A, B}


def test_more_than_one_statement_holds(copies: CachedCopies) -> None:
    """As many as a host has."""
    ids = [f"{n:08d}-2222-4333-8444-555555555555" for n in range(2 * CHUNK + 1)]
    assert copies.add("api1", ids) == len(ids)
    assert copies.of_host("api1") == set(ids) == copies.of_host("api1", ids)
    assert copies.end("api1", ids) == len(ids)
    copies.forget("api1")
    assert copies.ever_of_host("api1") == set()


def test_copies_are_where_their_hosts_are(ledger: Ledger, copies: CachedCopies) -> None:
    """A copy is at the URL that its host has now, in its zone; of a host that nobody knows there is none."""
    for host in (ONE, TWO):
        ledger.heartbeat(host)
    copies.add("api1", [A, B])
    copies.add("api2", [A, C])
    copies.add("ghost", [A])
    copies.end("api2", [C])
    found = copies.of_images([A, B, C])
    assert [(one.url, dict(one.metadata), one.row) for one in found[A]] == [
        (f"http://127.0.0.2:9292/replicas/{A}", {HOST_KEY: "api1", ZONE_KEY: "z1"}, None),
        (f"http://127.0.0.3:9292/replicas/{A}", {HOST_KEY: "api2"}, None),
    ]
    assert [one.host for one in found[B]] == ["api1"]
    assert C not in found
    ledger.heartbeat(Host("api1", "z1", "http://127.0.0.9:9292"))
    assert copies.of_images([B])[B][0].url == f"http://127.0.0.9:9292/replicas/{B}"


def test_what_ended_long_ago_is_forgotten(ledger: Ledger, copies: CachedCopies) -> None:
    """A copy that is there stays, however old."""
    copies.add("api1", [A, B, C])
    copies.end("api1", [A, B])
    ledger.database.change(table.update().where(table.c.image_id == A).values(gone_at=ledger.now() - timedelta(days=2)))
    copies.forget_ended("api1")
    assert copies.ever_of_host("api1") == {B, C}


def test_when_a_host_counted_its_rows(ledger: Ledger, copies: CachedCopies) -> None:
    """Of hosts that never did nothing is said."""
    for host in (ONE, TWO):
        ledger.heartbeat(host)
    assert copies.counted_seconds() == {}
    copies.counted("api1")
    assert 0 <= copies.counted_seconds()["api1"] < 60
    ledger.heartbeat(ONE)
    assert set(copies.counted_seconds()) == {"api1"}


def test_a_copy_ends_at_its_own_url(ledger: Ledger, copies: CachedCopies) -> None:
    """A row into which a user wrote the name of a host ends nothing of that host."""
    ledger.heartbeat(ONE)
    copies.add("api1", [A])
    copies.end_copy(Location(A, f"http://elsewhere/replicas/{A}", {HOST_KEY: "api1"}))
    assert copies.of_host("api1") == {A}
    copies.end_copy(Location(A, f"http://127.0.0.2:9292/replicas/{A}"))
    assert copies.of_host("api1") == set()
