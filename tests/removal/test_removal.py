"""The flow of a removal on every database, with others at work: two prunes, stale saves, kills, evictions, sleep."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from glance import context as glance_context
from services.databases.schema import query
from support.worlds.shelf import DATA, Shelf

from glance_replicas.errors import LedgerError
from glance_replicas.ledger.ledger import Ledger, Withdrawal
from glance_replicas.model import Image, Location, Result
from glance_replicas.removal.causes import DAMAGED, Cause, OverQuota, Surplus
from glance_replicas.removal.flow import ACT_SECONDS, Removal, Step
from glance_replicas.removal.proof import Proof, Refusal
from glance_replicas.removal.removal_facts import Causes, RemovalOrder
from glance_replicas.verdict import Evidence, Verdict


@pytest.fixture
def shelf(tmp_path: Path, glance_database_url: str) -> Iterator[Shelf]:
    """Empty."""
    made = Shelf(tmp_path, glance_database_url)
    yield made
    made.close()


@pytest.fixture
def damaged(shelf: Shelf) -> str:
    """An image with a good copy and a bad one."""
    image = shelf.image()
    shelf.add_file(image, name="good")
    shelf.add_file(image, DATA[::-1], name="bad")
    return image


def beside(order: Causes, act: Callable[[], object]) -> Causes:
    """The order, with something that happens each time after a removal was noted and before its lock."""
    planned = False

    def ask(images: Sequence[Image]) -> Callable[[Location], Cause]:
        nonlocal planned
        if planned:
            act()
        planned = True
        return order(images)

    return ask


def by_damage(shelf: Shelf) -> Causes:
    return partial(shelf.reasons.damaged, states=DAMAGED)


def planned(shelf: Shelf, removal: Removal, image: str, part: str) -> Step:
    """The step for the location whose URL has this in it; it was proven."""
    (step,) = removal.plan(shelf.now(image), [shelf.location(image, part)])
    assert isinstance(step.answer, Proof), step.answer
    return step


def lines(shelf: Shelf, image: str) -> list[Withdrawal]:
    return shelf.ledger.withdrawals(image_ids=[image])


def refused(step: Step) -> Refusal:
    assert not step.removed
    assert isinstance(step.answer, Refusal)
    return step.answer


def test_of_two_prunes_at_once_one_removes(shelf: Shelf, damaged: str) -> None:
    """Both have proven and noted it before either takes the lock: one removes, the other says that it is gone (11)."""
    start = threading.Barrier(2)
    removals = [shelf.removal(RemovalOrder(beside(by_damage(shelf), lambda: start.wait(60)))) for _ in range(2)]
    steps = [planned(shelf, removal, damaged, "bad") for removal in removals]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda pair: pair[0].act(pair[1]), zip(removals, steps, strict=True)))
    assert sorted(one.removed for one in done) == [False, True]
    assert "no longer in the catalogue" in refused(next(one for one in done if not one.removed)).reason
    assert len(shelf.now(damaged).locations) == 1
    assert all(line.finished_at for line in lines(shelf, damaged))


def test_two_prunes_do_not_take_more_cached_copies_than_one(shelf: Shelf) -> None:
    """Each means another copy as surplus, by other counts of use: only so many go that the number asked for stays."""
    image, hosts = shelf.image(), ("api1", "api2", "api3")
    shelf.add_file(image)
    for host in hosts:
        shelf.add_cached(image, host)
    start = threading.Barrier(2)

    def order(least_used: str) -> RemovalOrder:
        used = {(image, host): 0 if host == least_used else 9 for host in hosts}
        ask = beside(lambda _: lambda one: Surplus(2, hosts, (), used), lambda: start.wait(60))
        return RemovalOrder(ask, reads_targets=False)

    removals = {host: shelf.removal(order(host)) for host in hosts[:2]}
    steps = {host: planned(shelf, removal, image, host) for host, removal in removals.items()}
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda host: removals[host].act(steps[host]), removals))
    assert sum(one.removed for one in done) == 1
    assert len(shelf.now(image).cached) == 2


def test_two_prunes_do_not_overshoot_a_quota(shelf: Shelf) -> None:
    """One copy too many on a host, and two prunes that each take another one: one goes at most, never two (21)."""
    images = [shelf.image() for _ in range(3)]
    for image in images:
        shelf.add_file(image)
        shelf.add_cached(image, "api1")
    start = threading.Barrier(2)
    order = partial(shelf.reasons.over_quota, limit=2 * len(DATA))
    made = [RemovalOrder(beside(order, lambda: start.wait(60)), reads_targets=False) for _ in range(2)]
    removals = [shelf.removal(one) for one in made]
    steps = [planned(shelf, removal, image, "api1") for removal, image in zip(removals, images, strict=False)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda pair: pair[0].act(pair[1]), zip(removals, steps, strict=True)))
    assert sum(one.removed for one in done) <= 1
    again = shelf.removal(RemovalOrder(order, reads_targets=False))
    for image in images:
        for step in again.plan(shelf.now(image), shelf.now(image).cached):
            again.act(step)
    assert sum(len(shelf.now(image).cached) for image in images) == 2


def test_what_is_on_its_way_out_does_not_count_for_a_quota(shelf: Shelf) -> None:
    """Bytes of copies that somebody has asked to go, and that are still there; but not its own request."""
    images = [shelf.image() for _ in range(2)]
    for image in images:
        shelf.add_cached(image, "api1")
    going = shelf.location(images[0], "api1")
    assert shelf.reasons.held("api1") == 2 * len(DATA)
    shelf.ledger.request_withdrawal(going, reason="test", who="test", row_only=True)
    assert shelf.reasons.held("api1") == len(DATA)
    assert shelf.reasons.held("api1", but=going) == 2 * len(DATA)
    query(shelf.ledger_url, "UPDATE replica_withdrawals SET requested_at = '2026-01-01 00:00:00.000000'")
    assert shelf.reasons.held("api1") == 2 * len(DATA), "interrupted long ago"
    (cause,) = (shelf.reasons.over_quota([shelf.now(images[0])], 0)(going),)
    assert isinstance(cause, OverQuota)
    assert cause.held == 2 * len(DATA)


def test_a_row_that_a_stale_save_brings_back_goes_again(shelf: Shelf, damaged: str, glance: Any) -> None:
    """Glance's own save of an image it read before the removal: recognised, proven once more, withdrawn (1-5)."""
    admin = glance_context.RequestContext(is_admin=True, roles=["admin"])
    stale = glance.image_get(admin, damaged)["locations"]
    removal = shelf.removal(RemovalOrder(by_damage(shelf)))
    assert removal.act(planned(shelf, removal, damaged, "bad")).removed
    glance.image_update(admin, damaged, {"locations": stale})
    assert len(shelf.now(damaged).locations) == 2, "the fact this test is about (docs/glance.md)"
    step = planned(shelf, removal, damaged, "bad")
    assert step.answer.reason.startswith(f"withdrawal {lines(shelf, damaged)[-1].id} was withdrawn and came back")
    assert removal.act(step).removed
    assert [one.url for one in shelf.now(damaged).locations] == [f"file://{shelf.store}/{damaged}-good"]


def test_a_copy_that_came_back_and_is_good_stays(shelf: Shelf, damaged: str) -> None:
    """The same proof rules: what was withdrawn as corrupt and is intact by now is no longer condemned."""
    removal = shelf.removal(RemovalOrder(by_damage(shelf)))
    step = planned(shelf, removal, damaged, "bad")
    assert removal.act(step).removed
    shelf.set_deleted(step.target.row or 0, False)
    (shelf.store / f"{damaged}-bad").write_bytes(DATA)
    assert list(removal.plan(shelf.now(damaged), shelf.now(damaged).locations)) == []


def test_a_later_row_of_the_same_url_is_no_return(shelf: Shelf) -> None:
    """A host that registers its copy anew has a new row: that one was never withdrawn."""
    image = shelf.image()
    shelf.add_file(image)
    shelf.add_cached(image, "api1")
    removal = shelf.removal(RemovalOrder(shelf.reasons.ordered, reads_targets=False))
    assert removal.act(planned(shelf, removal, image, "api1")).removed
    shelf.add_cached(image, "api1")
    cause = shelf.reasons.damaged([shelf.now(image)], DAMAGED)(shelf.location(image, "api1"))
    assert type(cause).__name__ == "Damaged"


def test_the_host_is_asked_when_the_row_is_gone(shelf: Shelf) -> None:
    """Its janitor sees the request after the removal, and not before: a removal that is refused leaves the file."""
    image = shelf.image()
    good = shelf.add_file(image)
    shelf.add_cached(image, "api1")
    seen: list[int] = []

    def watch() -> None:
        seen.append(len(shelf.ledger.pending_withdrawals("api1")))

    removal = shelf.removal(RemovalOrder(beside(shelf.reasons.ordered, watch), reads_targets=False))
    assert removal.act(planned(shelf, removal, image, "api1")).removed
    assert seen == [0]
    assert [one.image_id for one in shelf.ledger.pending_withdrawals("api1")] == [image]
    other = shelf.image()
    shelf.add_file(other)
    shelf.add_cached(other, "api1")
    step = planned(shelf, removal, other, "api1")
    good.unlink()
    withdrawn = shelf.now(other).durable[0].row
    shelf.set_deleted(withdrawn or 0, True)
    refused(removal.act(step))
    assert [one.image_id for one in shelf.ledger.pending_withdrawals("api1")] == [image]


def test_an_eviction_in_between(shelf: Shelf) -> None:
    """The host evicts the copy after it was noted: refused as gone, and the request is closed (12)."""
    image = shelf.image()
    shelf.add_file(image)
    shelf.add_cached(image, "api1")
    url = f"http://api1:9292/replicas/{image}"
    evict = partial(shelf.catalogue.withdraw_url, image, url)
    removal = shelf.removal(RemovalOrder(beside(shelf.reasons.ordered, evict), reads_targets=False))
    answer = refused(removal.act(planned(shelf, removal, image, "api1")))
    assert "no longer in the catalogue" in answer.reason
    assert [bool(line.finished_at) for line in lines(shelf, image)] == [True]


def test_an_image_deleted_in_between(shelf: Shelf, damaged: str, glance: Any) -> None:
    """Glance deletes the image after the note: a refusal and no fault, and nothing stays open."""
    admin = glance_context.RequestContext(is_admin=True, roles=["admin"])
    removal = shelf.removal(RemovalOrder(beside(by_damage(shelf), lambda: glance.image_destroy(admin, damaged))))
    refused(removal.act(planned(shelf, removal, damaged, "bad")))
    assert all(line.finished_at for line in lines(shelf, damaged))


@pytest.mark.parametrize("seconds", [ACT_SECONDS + 5, -3600])
def test_a_checker_that_slept(shelf: Shelf, damaged: str, seconds: float) -> None:
    """It wakes, holding the lock, long after its looks, or in their past: they prove nothing any more (15)."""
    late = timedelta(0)

    def sleep() -> None:
        nonlocal late
        late = timedelta(seconds=seconds)

    order = RemovalOrder(beside(by_damage(shelf), sleep))
    removal = Removal(
        *(shelf.catalogue, shelf.ledger, shelf.sources, order), workers=1, clock=lambda: datetime.now(UTC) + late
    )
    answer = refused(removal.act(planned(shelf, removal, damaged, "bad")))
    assert answer.unknown
    assert len(shelf.now(damaged).locations) == 2


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
@pytest.mark.parametrize(("part", "verdict"), [("good", Verdict.CORRUPT), ("bad", Verdict.INTACT)])
def test_what_others_have_seen_since_counts(
    shelf: Shelf, damaged: str, part: str, verdict: Verdict, ahead: float
) -> None:
    """A repair, or a verification, that ended after our looks, wherever its clock is: asked for before the lock."""

    def tell() -> None:
        when = datetime.now(UTC) + timedelta(seconds=ahead)
        shelf.ledger.record([Result(shelf.location(damaged, part), verdict, Evidence.FULL, checked_at=when)])

    removal = shelf.removal(RemovalOrder(beside(by_damage(shelf), tell)))
    refused(removal.act(planned(shelf, removal, damaged, "bad")))
    assert len(shelf.now(damaged).locations) == 2


def killed(work: Callable[[], object]) -> None:
    """It runs in a process of its own that does not live to its end."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Ledger):
    """Killed when it should say that the row is gone."""

    def finish_withdrawal(self, withdrawal_id: int) -> None:
        """Nobody comes back from here."""
        die()


def fresh(shelf: Shelf, order: Causes, kind: type[Ledger] = Ledger) -> Removal:
    """With connections of its own, for another process."""
    shelf.catalogue.close()
    shelf.ledger.close()
    return Removal(shelf.catalogue, kind(shelf.ledger_url), shelf.sources, RemovalOrder(order), workers=1)


def test_killed_between_the_note_and_the_removal(shelf: Shelf, damaged: str) -> None:
    """The next prune takes the removal up, with a proof of its own, and closes both lines (22)."""
    killed(
        lambda: (removal := fresh(shelf, beside(by_damage(shelf), die))).act(planned(shelf, removal, damaged, "bad"))
    )
    assert [line.finished_at for line in lines(shelf, damaged)] == [None]
    assert len(shelf.now(damaged).locations) == 2
    removal = shelf.removal(RemovalOrder(by_damage(shelf)))
    removal.settle()
    assert [line.finished_at for line in lines(shelf, damaged)] == [None], "the row is there: it is not done"
    step = planned(shelf, removal, damaged, "bad")
    assert "was begun and not finished" in step.answer.reason
    assert removal.act(step).removed
    removal.settle()
    assert all(line.finished_at for line in lines(shelf, damaged))


def test_killed_after_the_removal(shelf: Shelf, damaged: str) -> None:
    """The row is gone and its line open: the next prune closes it."""
    killed(lambda: (removal := fresh(shelf, by_damage(shelf), Deadly)).act(planned(shelf, removal, damaged, "bad")))
    assert len(shelf.now(damaged).locations) == 1
    assert [line.finished_at for line in lines(shelf, damaged)] == [None]
    shelf.removal(RemovalOrder(by_damage(shelf))).settle()
    assert all(line.finished_at for line in lines(shelf, damaged))


class Mute(Ledger):
    """Out of reach when it should be told how it ended."""

    def finish_withdrawal(self, withdrawal_id: int) -> None:
        """Raises LedgerError."""
        raise LedgerError("no answer")


def test_a_ledger_that_fails_at_the_end(shelf: Shelf, damaged: str) -> None:
    """What was removed is said to be removed; its line stays open, and the next prune closes it."""
    mute = Mute(shelf.ledger_url)
    removal = Removal(shelf.catalogue, mute, shelf.sources, RemovalOrder(by_damage(shelf)), workers=1)
    assert removal.act(planned(shelf, removal, damaged, "bad")).removed
    mute.close()
    assert [line.finished_at for line in lines(shelf, damaged)] == [None]
    shelf.removal(RemovalOrder(by_damage(shelf))).settle()
    assert all(line.finished_at for line in lines(shelf, damaged))


def test_facts_that_cannot_be_asked_for(shelf: Shelf) -> None:
    """The ledger goes away after the note: not known, nothing is removed, no janitor is asked, the line stays open."""
    image = shelf.image()
    shelf.add_file(image)
    shelf.add_cached(image, "api1")

    def fail() -> None:
        raise LedgerError("no answer")

    removal = shelf.removal(RemovalOrder(beside(shelf.reasons.ordered, fail), reads_targets=False))
    assert refused(removal.act(planned(shelf, removal, image, "api1"))).unknown
    assert len(shelf.now(image).cached) == 1
    assert shelf.ledger.pending_withdrawals("api1") == []
    assert [line.finished_at for line in lines(shelf, image)] == [None]


def test_requests_of_hosts_are_not_settled(shelf: Shelf) -> None:
    """What a janitor is asked for is its own to close."""
    image = shelf.image()
    shelf.add_file(image)
    shelf.add_cached(image, "api1")
    removal = shelf.removal(RemovalOrder(shelf.reasons.ordered, reads_targets=False))
    assert removal.act(planned(shelf, removal, image, "api1")).removed
    removal.settle()
    assert [line.finished_at for line in lines(shelf, image)] == [None]


def test_requests_of_an_older_version_are_the_hosts_own(shelf: Shelf) -> None:
    """Rows from before the column was there go to the janitor as they always did."""
    image = shelf.image()
    shelf.add_cached(image, "api1")
    shelf.ledger.request_withdrawal(shelf.location(image, "api1"), reason="test", who="test")
    query(shelf.ledger_url, "UPDATE replica_withdrawals SET row_only = NULL, location_id = NULL")
    assert [one.image_id for one in shelf.ledger.pending_withdrawals("api1")] == [image]
    shelf.removal(RemovalOrder(by_damage(shelf))).settle()
    assert [line.finished_at for line in lines(shelf, image)] == [None]


def test_facts_are_asked_for_anew(shelf: Shelf) -> None:
    """A pin that came after the plan keeps its copy; a host that came back keeps its rows."""
    image = shelf.image()
    shelf.add_file(image)
    for host in ("api7", "api8"):
        shelf.add_cached(image, host)
    pin = partial(shelf.reasons._pins.add, [image], ["api7"], "somebody")
    removal = shelf.removal(RemovalOrder(beside(shelf.reasons.ordered, pin), reads_targets=False))
    assert "pinned on host api7" in refused(removal.act(planned(shelf, removal, image, "api7"))).reason
    order = beside(shelf.reasons.dead, partial(shelf.alive, "api8"))
    removal = shelf.removal(RemovalOrder(order, reads_targets=False))
    assert "api8 is alive" in refused(removal.act(planned(shelf, removal, image, "api8"))).reason
    assert len(shelf.now(image).cached) == 2
