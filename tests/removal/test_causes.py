"""Each reason to remove a location: when it holds, and every case in which it does not."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from glance_replicas import location
from glance_replicas.model import Digest, Image, Location, Result
from glance_replicas.removal.causes import (
    DAMAGED,
    Again,
    Cause,
    Damaged,
    DeadHost,
    Doubt,
    Duplicate,
    Ordered,
    OverQuota,
    Surplus,
    Unused,
)
from glance_replicas.verdict import Evidence, Verdict

ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
DAY = 86400.0


def cached(host: str, row: int) -> Location:
    return Location(ID, f"http://{host}:9292/replicas/{ID}", {"replica_host": host, "store": "web"}, row)


def durable(url: str, row: int | None) -> Location:
    return Location(ID, url, {"store": "fast"}, row)


def world(*locations: Location) -> Image:
    return Image(ID, "active", 100, Digest("sha512", "ab" * 64), locations)


def look(at: Location, verdict: Verdict = Verdict.INTACT, evidence: Evidence = Evidence.FULL) -> Result:
    return Result(at, verdict, evidence, checked_at=NOW)


def judge(cause: Cause, image: Image, target: Location, *looks: Result) -> str | Doubt:
    return cause.judge(image, target, looks, location.place)


def doubt(answer: str | Doubt, *, unknown: bool = False) -> str:
    assert isinstance(answer, Doubt)
    assert answer.unknown is unknown
    return answer.reason


A, B, C = cached("api1", 1), cached("api2", 2), cached("api3", 3)
DRESSED = Location(ID, "http://10.0.0.2/elsewhere", {"replica_host": "api1"}, 4)
GOOD = durable(f"file:///fast/{ID}", 5)
OF_COPIES: list[Cause] = [
    Ordered(),
    DeadHost({"other": 0.0}, 60.0),
    Surplus(0, {"api1"}, (), {}),
    Unused(DAY, DAY, {}, dict.fromkeys(range(9), DAY), ()),
    OverQuota(10, 11, ()),
]


@pytest.mark.parametrize("cause", OF_COPIES, ids=lambda cause: str(cause.name))
def test_only_our_own_registrations(cause: Cause) -> None:
    """A cached copy of ours goes; a location in a store, or one a user dressed up, never for such a reason."""
    image = world(A, DRESSED, GOOD)
    assert cause.name in str(judge(cause, image, A))
    for target in (DRESSED, GOOD):
        assert "no cached copy on a host" in doubt(judge(cause, image, target))


PINNABLE = [one for one in OF_COPIES if hasattr(one, "pinned")]


@pytest.mark.parametrize("cause", PINNABLE, ids=lambda cause: str(cause.name))
def test_pinned_copies_stay(cause: Cause) -> None:
    """A pin holds for its image and its host, and for no other."""
    pinned = replace(cause, pinned={(ID, "api1"), ("another", "api2")})  # type: ignore[type-var]
    assert doubt(judge(pinned, world(A, B), A)) == "it is pinned on host api1"
    assert isinstance(judge(pinned, world(A, B), B), str)


def test_a_dead_host() -> None:
    """A heartbeat older than allowed, tested from both sides; a host nobody has heard of."""
    cause = DeadHost({"api1": 60.0, "api2": 60.001}, 60.0)
    assert doubt(judge(cause, world(A, B, C), A)) == "its host api1 is alive"
    assert "api2 was last heard of 0.0 h ago" in str(judge(cause, world(A, B, C), B))
    assert "the ledger knows no host api3" in str(judge(cause, world(A, B, C), C))
    assert cause.leaves_bytes


@pytest.mark.parametrize("ages", [{}, {"api1": 61.0, "api2": 900.0}])
def test_no_host_is_dead_while_none_lives(ages: Mapping[str, float]) -> None:
    """An empty or foreign ledger, or one that was away, condemns nobody."""
    doubt(judge(DeadHost(ages, 60.0), world(A), A), unknown=True)


def test_which_states_are_damage() -> None:
    """Known to be gone or wrong; nothing else is looked for when no state is named."""
    assert set(DAMAGED) == {Verdict.MISSING, Verdict.CORRUPT, Verdict.WRONG_SIZE}


@pytest.mark.parametrize("verdict", [Verdict.MISSING, Verdict.CORRUPT])
def test_what_a_web_server_says_plainly_condemns(verdict: Verdict) -> None:
    """404, and a digest over every byte, are no login pages."""
    page = durable("https://mirror.example.org/a.img", 4)
    assert str(judge(Damaged(), world(page), page, look(page, verdict))).startswith(str(verdict))


def test_the_oldest_of_duplicates_stays() -> None:
    """Of rows that name one copy the one made first stays, in whatever order they are listed."""
    second = durable(f"file:///fast//{ID}", 6)
    image = world(second, GOOD)
    assert "location 5 names the same copy" in str(judge(Duplicate(), image, second, look(GOOD), look(second)))
    assert doubt(judge(Duplicate(), image, GOOD, look(GOOD))) == "no older location names the same copy"
    for alone in (A, GOOD):
        doubt(judge(Duplicate(), world(GOOD, A), alone, look(alone)))
    assert Duplicate().leaves_bytes
    unsure = Duplicate(lambda one, other: False)
    assert "cannot be told" in doubt(judge(unsure, image, second, look(GOOD), look(second)))


def test_a_row_without_a_number_is_nobodys_duplicate() -> None:
    """Which came first must be known."""
    nameless = durable(GOOD.url, None)
    doubt(judge(Duplicate(), world(GOOD, nameless), nameless, look(GOOD)))
    doubt(judge(Duplicate(), world(nameless, GOOD), GOOD, look(GOOD)))
    doubt(judge(Duplicate(), world(nameless), nameless, look(nameless)))


@pytest.mark.parametrize(
    ("looks", "unknown"),
    [
        ([], True),
        ([look(GOOD, Verdict.CORRUPT)], False),
        ([look(GOOD), look(GOOD, Verdict.UNREACHABLE)], True),
        ([look(GOOD, evidence=Evidence.SIZE)], False),
    ],
)
def test_what_a_duplicate_leaves_must_be_intact(looks: list[Result], unknown: bool) -> None:
    """A copy in a store keeps both names until it was read in full; a cached one is volatile anyway."""
    second = durable(f"file:///fast//{ID}", 6)
    assert "not proven intact" in doubt(judge(Duplicate(), world(GOOD, second), second, *looks), unknown=unknown)
    again = replace(A, row=7, metadata={**A.metadata, "replica_zone": "z"})
    assert "duplicate" in str(judge(Duplicate(), world(A, again), again, *looks))


def test_the_least_used_are_surplus() -> None:
    """So many of the most used stay, exactly; two rows of one copy are one copy."""
    living, used = {"api1", "api2", "api3"}, {(ID, "api1"): 1, (ID, "api2"): 5, (ID, "api3"): 3}
    image = world(A, B, C, GOOD, DRESSED, replace(B, row=9))
    for keep, goes in ((1, [A, C]), (2, [A]), (3, []), (4, [])):
        cause = Surplus(keep, living, (), used)
        assert [one for one in (A, B, C) if isinstance(judge(cause, image, one), str)] == goes
    assert "3 cached copies, 1 to keep; this one was used 1 times" in str(judge(Surplus(1, living, (), used), image, A))


def test_copies_on_dead_hosts_are_surplus_first() -> None:
    """However much they were used; then pinned ones stay before used ones; among equals the oldest row stays."""
    used = {(ID, "api1"): 1, (ID, "api2"): 9, (ID, "api3"): 5}
    image = world(A, B, C)
    dead = Surplus(1, {"api1", "api3"}, (), used)
    assert [isinstance(judge(dead, image, one), str) for one in (A, B, C)] == [True, True, False]
    pinned = Surplus(1, {"api1", "api2", "api3"}, {(ID, "api1")}, used)
    assert [isinstance(judge(pinned, image, one), str) for one in (A, B, C)] == [False, True, True]
    equal = Surplus(2, {"api1", "api2", "api3"}, (), {})
    assert [isinstance(judge(equal, image, one), str) for one in (A, B, C)] == [False, False, True]


def test_less_than_none_to_keep_is_none() -> None:
    """A negative number is no way to count from the other end."""
    assert isinstance(judge(Surplus(-1, {"api1"}, (), {}), world(A), A), str)


def test_unused() -> None:
    """Not read and not young: both bounds from both sides, and what is not known condemns nothing."""
    cause = Unused(7 * DAY, 7 * DAY, {}, {1: 7 * DAY, 2: 7 * DAY - 1}, ())
    assert "unused for 7 days on host api1" in str(judge(cause, world(A, B), A))
    assert doubt(judge(cause, world(A, B), B)) == "it is younger than that"
    doubt(judge(cause, world(A, C), C), unknown=True)
    doubt(judge(replace(cause, known_seconds=7 * DAY - 1), world(A), A), unknown=True)
    used = replace(cause, downloads={(ID, "api1"): 1, (ID, "api2"): 0})
    assert doubt(judge(used, world(A), A)) == "it was used"
    assert isinstance(judge(replace(cause, downloads={(ID, "api2"): 1}), world(A), A), str)


def test_a_row_without_a_number_has_no_age() -> None:
    """It is not taken for another."""
    doubt(judge(Unused(DAY, DAY, {}, {1: DAY}, ()), world(A), replace(A, row=None)), unknown=True)


def test_exactly_the_quota_is_within() -> None:
    """One byte more is not."""
    assert "within its quota" in doubt(judge(OverQuota(100, 100, ()), world(A), A))
    assert "has 101 bytes registered, 100 allowed" in str(judge(OverQuota(100, 101, ()), world(A), A))


def test_again_asks_the_same_cause_once_more() -> None:
    """What came back, or was not finished, goes for its own cause only, and the reason says which removal it was."""
    bad = look(GOOD, Verdict.CORRUPT)
    again = Again(Damaged(), 12, finished=True)
    assert str(judge(again, world(GOOD), GOOD, bad)).startswith("withdrawal 12 was withdrawn and came back: corrupt")
    assert "begun and not finished" in str(judge(replace(again, finished=False), world(GOOD), GOOD, bad))
    assert doubt(judge(again, world(GOOD), GOOD, look(GOOD))) == "it is intact"
    assert (again.name, again.leaves_bytes) == ("damaged", False)
    assert Again(Duplicate(), 1, finished=True).leaves_bytes
