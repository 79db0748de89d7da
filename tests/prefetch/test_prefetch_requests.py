"""What hosts are asked to fetch, on three databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from glance_replicas.database import transactions
from glance_replicas.errors import LedgerError
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.prefetch_requests import HIGH, LOW, NORMAL, PrefetchRequest, PrefetchRequests, State
from glance_replicas.ledger.schema.tables import copies as table
from glance_replicas.model import Host

A, B, C = (f"30000000-0000-4000-8000-00000000000{n}" for n in range(3))


@pytest.fixture
def copies(database_url: str) -> Iterator[PrefetchRequests]:
    """Empty tables of ours, and two hosts."""
    ledger = Ledger(database_url)
    ledger.upgrade()
    for name in ("h1", "h2"):
        ledger.heartbeat(Host(name, None, f"http://{name}"))
    yield PrefetchRequests(ledger.database)
    ledger.close()


def ask(copies: PrefetchRequests, *image_ids: str, hosts: tuple[str, ...] = ("h1",), **more: Any) -> int:
    return copies.request(image_ids, hosts, who="tester@desk", **more)


def only(copies: PrefetchRequests, image_id: str = A, host: str = "h1") -> PrefetchRequest:
    (found,) = copies.list([image_id], [host])
    return found


def shift(url: str, image_id: str, **seconds: float) -> None:
    """These moments of a row lie so many seconds away from where they were."""
    engine = transactions.engine(url)
    with engine.begin() as connection:
        row = connection.execute(sa.select(table).where(table.c.image_id == image_id)).one()
        changed = {name: getattr(row, name) + timedelta(seconds=by) for name, by in seconds.items()}
        connection.execute(table.update().where(table.c.image_id == image_id).values(changed))
    engine.dispose()


def test_asked_waits(copies: PrefetchRequests) -> None:
    """Every pair of an image and a host is a row that waits, with who asked, and is due at once on its host only."""
    assert ask(copies, A, B, hosts=("h1", "h2"), priority=LOW, pin=True) == 4
    found = copies.list()
    assert {(one.image_id, one.host) for one in found} == {(A, "h1"), (A, "h2"), (B, "h1"), (B, "h2")}
    assert {(one.state, one.priority, one.pin, one.who) for one in found} == {(State.WAITING, LOW, True, "tester@desk")}
    assert {(one.attempts, one.bytes, one.size, one.ended_seconds, one.detail) for one in found} == {
        (0, 0, None, None, "")
    }
    assert all(0 <= one.age_seconds < 30 for one in found)
    assert [one.image_id for one in copies.due("h1", 10)] == [A, B]
    assert copies.due("h3", 10) == []


def test_due_in_order(copies: PrefetchRequests) -> None:
    """High before normal before low, of the same priority the oldest first, and never more than asked for."""
    ask(copies, A)
    ask(copies, B, priority=LOW)
    ask(copies, C)
    D = A[:-1] + "9"
    ask(copies, D, priority=HIGH)
    assert [one.image_id for one in copies.due("h1", 10)] == [D, A, C, B]
    assert [one.image_id for one in copies.due("h1", 2)] == [D, A]


def test_asked_again_never_lowers(copies: PrefetchRequests) -> None:
    """Asked again while it is open, a request keeps its progress and gets the higher priority, and the pin."""
    ask(copies, A, priority=NORMAL)
    copies.progress(A, "h1", 10, 100)
    assert ask(copies, A, B, priority=HIGH, pin=True) == 1
    assert ask(copies, A, priority=LOW) == 0
    found = only(copies)
    assert (found.state, found.bytes, found.size, found.priority, found.pin) == (State.RUNNING, 10, 100, HIGH, True)


def test_asked_again_after_the_end(copies: PrefetchRequests) -> None:
    """What has ended begins anew, as it is asked for now."""
    ask(copies, A, priority=HIGH, pin=True)
    copies.progress(A, "h1", 10, 100)
    copies.put_off(A, "h1", "it broke", 3600, 1)
    assert copies.failed(A, "h1", "gone for good")
    assert ask(copies, A) == 1
    found = only(copies)
    assert (found.state, found.priority, found.pin, found.attempts) == (State.WAITING, NORMAL, False, 0)
    assert (found.bytes, found.detail, found.ended_seconds, found.wait_seconds) == (0, "", None, 0)
    assert copies.due("h1", 1)[0].image_id == A


def test_the_life_of_a_request(copies: PrefetchRequests) -> None:
    """Progress makes it run, and it stays due, as a host that was killed needs it; what has ended is due no more."""
    ask(copies, A)
    assert copies.progress(A, "h1", 7, 100)
    assert (only(copies).state, only(copies).bytes, only(copies).size) == (State.RUNNING, 7, 100)
    assert [one.state for one in copies.due("h1", 10)] == [State.RUNNING]
    assert copies.finished(A, "h1", 100)
    found = only(copies)
    assert (found.state, found.bytes) == (State.DONE, 100)
    assert found.ended_seconds is not None
    assert 0 <= found.ended_seconds < 30
    assert copies.due("h1", 10) == []
    late = (copies.progress(A, "h1", 1, 100), copies.failed(A, "h1", "x"), copies.put_off(A, "h1", "x", 1, 1))
    assert late == (False, False, False)
    assert only(copies).state is State.DONE


def test_put_off(copies: PrefetchRequests, database_url: str) -> None:
    """A failure counts and makes it wait by the database's clock; a pause without failure does not count."""
    ask(copies, A)
    assert copies.put_off(A, "h1", "no room\0", 600, 1)
    found = only(copies)
    assert (found.state, found.attempts, found.detail) == (State.WAITING, 1, "no room\ufffd")
    assert 500 < found.wait_seconds <= 600
    assert copies.due("h1", 10) == []
    shift(database_url, A, not_before=-601)
    assert [one.image_id for one in copies.due("h1", 10)] == [A]
    assert copies.put_off(A, "h1", "outside the hours", 0, 1)
    assert only(copies).attempts == 1


def test_cancel(copies: PrefetchRequests) -> None:
    """Open requests of these images and hosts are cancelled, others and those that ended are not; progress sees it."""
    ask(copies, A, B, C, hosts=("h1", "h2"))
    copies.progress(A, "h1", 7, 100)
    copies.finished(B, "h1", 100)
    assert copies.cancel([A, B], ["h1"]) == 1
    assert copies.progress(A, "h1", 8, 100) is False
    assert (only(copies).state, only(copies, B).state) == (State.CANCELLED, State.DONE)
    assert copies.cancel(None, ["h1"]) == 1
    assert copies.cancel([B]) == 1
    assert copies.cancel() == 2
    assert copies.cancel() == 0


def test_list_by_what_is_asked(copies: PrefetchRequests) -> None:
    """By image, host and state, each or none, more images than one statement takes."""
    ask(copies, A, B, hosts=("h1", "h2"))
    copies.finished(A, "h2", 1)
    assert {(one.image_id, one.host) for one in copies.list([A])} == {(A, "h1"), (A, "h2")}
    assert {(one.image_id, one.host) for one in copies.list(hosts=["h2"])} == {(A, "h2"), (B, "h2")}
    assert [(one.image_id, one.host) for one in copies.list(states=[State.DONE])] == [(A, "h2")]
    assert copies.list([C]) == []
    many = [f"31000000-0000-4000-8000-{n:012d}" for n in range(1100)]
    assert copies.request(many, ["h1"], who="x") == 1100
    assert len(copies.list([*many, A])) == 1102
    assert copies.cancel(many) == 1100


def test_trim(copies: PrefetchRequests, database_url: str) -> None:
    """What ended long ago is forgotten; what ended just now, and what is open however old, stays."""
    ask(copies, A, B, C)
    copies.finished(A, "h1", 1)
    copies.finished(B, "h1", 1)
    shift(database_url, A, finished_at=-5000)
    shift(database_url, C, requested_at=-5000)
    assert copies.trim(3600) == 1
    assert {one.image_id for one in copies.list()} == {B, C}


def test_asked_by_many_at_once(copies: PrefetchRequests) -> None:
    """Of requests for one pair at the same time one is new, and the highest priority stands."""
    priorities = [LOW, NORMAL, HIGH, NORMAL, LOW, HIGH, NORMAL, LOW]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda priority: ask(copies, A, B, priority=priority), priorities))
    assert sum(new) == 2
    assert {one.priority for one in copies.list()} == {HIGH}


def test_without_tables(database_url: str) -> None:
    """Tables of an older version are a fault of the ledger, with the remedy."""
    ledger = Ledger(database_url)
    with pytest.raises(LedgerError, match="replica db upgrade"):
        PrefetchRequests(ledger.database).due("h1", 1)
    ledger.close()
