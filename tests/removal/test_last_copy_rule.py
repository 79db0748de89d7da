"""The rule of the last intact copy: what stays, and what may go. No database."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from glance_replicas.ledger.schema.rows import place_key
from glance_replicas.model import Digest, Image, Last, Location
from glance_replicas.removal.last_copy import LedgerFacts, has_durable, is_damaged, only_cached, why_kept
from glance_replicas.verdict import Evidence, Verdict

ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
STORE = Location(ID, f"file:///s/{ID}", {"store": "fast"}, 1)
OTHER_STORE = Location(ID, f"file:///t/{ID}", {"store": "slow"}, 2)
ONE, OTHER = (
    Location(ID, f"http://10.0.0.{n}/replicas/{ID}", {"store": "web", "replica_host": f"api{n}"}, 10 + n)
    for n in (1, 2)
)
BY_HAND = Location(ID, f"http://10.0.0.9/replicas/{ID}", {"store": "web"}, 20)
LIVING = {"api1": "http://10.0.0.1", "api2": "http://10.0.0.2/"}


def key(one: Location) -> tuple[str, str]:
    return ID, place_key(one)


def last(verdict: Verdict, evidence: Evidence = Evidence.FULL, full: Verdict | None = None) -> Last:
    """The last verification, and the last one in full if that was another."""
    if evidence is Evidence.FULL and not verdict.is_unknown:
        full = verdict
    return Last(verdict, evidence, NOW, full, NOW - timedelta(days=1) if full else None)


INTACT, CORRUPT = last(Verdict.INTACT), last(Verdict.CORRUPT)


def image(*found: Location, status: str = "active") -> Image:
    return Image(ID, status, 100, Digest("sha512", "ab"), found)


def known(
    *seen: tuple[Location, Last], going: tuple[Location, ...] = (), living: Mapping[str, str] = LIVING
) -> LedgerFacts:
    return LedgerFacts({key(one): what for one, what in seen}, frozenset(map(key, going)), living)


BAD_STORE = (STORE, CORRUPT), (ONE, INTACT), (OTHER, INTACT)


def test_damage_holds_until_somebody_finds_it_good() -> None:
    """A verification that brought no verdict, or was shallow, does not take back what a full verification found."""
    assert not is_damaged(None)
    assert not is_damaged(INTACT)
    assert all(is_damaged(last(one)) for one in Verdict if one.is_damage)
    assert is_damaged(last(Verdict.MISSING, Evidence.SIZE))
    assert not is_damaged(last(Verdict.UNREACHABLE))
    assert is_damaged(last(Verdict.UNREACHABLE, full=Verdict.CORRUPT))
    assert not is_damaged(last(Verdict.UNREACHABLE, full=Verdict.INTACT))
    assert is_damaged(last(Verdict.INTACT, Evidence.SIZE, full=Verdict.CORRUPT))
    assert not is_damaged(last(Verdict.INTACT, Evidence.SIZE, full=Verdict.INTACT))
    assert not is_damaged(last(Verdict.INTACT, Evidence.SIZE, full=Verdict.MISSING)), "it was put back"


def test_one_store_that_is_not_known_to_be_bad_is_enough() -> None:
    """Never looked at, not reached, or intact: every cached copy may go; a registration by hand is no store."""
    for what in (None, INTACT, last(Verdict.UNREACHABLE), last(Verdict.INTACT, Evidence.SIZE)):
        seen = ((STORE, what),) if what else ()
        assert has_durable(image(STORE, ONE), known(*seen).lasts)
        assert why_kept(image(STORE, ONE), key(ONE), known(*seen, (ONE, INTACT))) is None
    assert why_kept(image(STORE, OTHER_STORE, ONE), key(ONE), known((STORE, CORRUPT), (ONE, INTACT))) is None
    assert not has_durable(image(STORE, ONE), known((STORE, CORRUPT)).lasts)
    assert not has_durable(image(BY_HAND), {})


def test_of_two_intact_ones_one_may_go() -> None:
    """While the other stays; the last one is kept, with the reason."""
    found = image(STORE, ONE, OTHER)
    assert why_kept(found, key(ONE), known(*BAD_STORE)) is None
    said = why_kept(image(STORE, ONE), key(ONE), known(*BAD_STORE)) or ""
    assert "last intact copy" in said
    assert "every durable copy is damaged" in said
    assert "no durable copy" in (why_kept(image(ONE), key(ONE), known((ONE, INTACT))) or "")


def test_the_other_must_be_known_to_be_intact_to_live_and_to_stay() -> None:
    """Not read in full, damaged since, unreachable, on a silent host, or about to go itself: it does not count."""
    found = image(STORE, ONE, OTHER)
    for what in (
        CORRUPT,
        last(Verdict.INTACT, Evidence.SIZE),
        last(Verdict.UNREACHABLE, full=Verdict.INTACT),
        last(Verdict.MISSING, Evidence.SIZE, full=Verdict.INTACT),
        last(Verdict.INTACT, Evidence.SIZE, full=Verdict.CORRUPT),
    ):
        assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, INTACT), (OTHER, what)))
    assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, INTACT)))
    assert why_kept(found, key(ONE), known(*BAD_STORE, going=(OTHER,)))
    assert why_kept(found, key(ONE), known(*BAD_STORE, living={"api1": LIVING["api1"]}))
    assert why_kept(found, key(ONE), known(*BAD_STORE, living={"api2": LIVING["api2"]})) is None
    elsewhere = {**LIVING, "api2": "http://10.0.0.3"}
    assert why_kept(found, key(ONE), known(*BAD_STORE, living=elsewhere)), "a row may name any host"
    assert why_kept(image(STORE, ONE), key(ONE), known(*BAD_STORE)), "it has no row any more"


def test_a_copy_that_is_wrong_may_go() -> None:
    """Read in full and found wrong; less, or unreadable, proves nothing of a file that may be there."""
    found = image(STORE, ONE)
    assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, CORRUPT))) is None
    assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, last(Verdict.MISSING, Evidence.SIZE))))
    assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, last(Verdict.WRONG_SIZE))))
    assert why_kept(found, key(ONE), known((STORE, CORRUPT)))
    assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, CORRUPT)).without(key(ONE)))
    assert why_kept(found, key(ONE), known((STORE, CORRUPT), (ONE, CORRUPT)).without(key(STORE))) is None


def test_of_a_deleted_image_everything_goes() -> None:
    """Also of one that the catalogue has never heard of; a deactivated one is kept like an active one."""
    gone = known((STORE, CORRUPT), (ONE, INTACT))
    assert why_kept(None, key(ONE), gone) is None
    for status, stays in (("deleted", False), ("pending_delete", False), ("deactivated", True)):
        assert bool(why_kept(image(STORE, ONE, status=status), key(ONE), gone)) is stays


def test_only_cached() -> None:
    """The alarm: no store is known to be good, and there is a cached copy that may be."""
    assert only_cached(image(ONE), {})
    assert only_cached(image(STORE, ONE), known((STORE, CORRUPT)).lasts)
    assert not only_cached(image(STORE, ONE), known((STORE, CORRUPT), (ONE, CORRUPT)).lasts)
    assert not only_cached(image(STORE, ONE), {})
    assert not only_cached(image(STORE), known((STORE, CORRUPT)).lasts)
    assert not only_cached(image(), {})
    assert only_cached(image(replace(ONE, metadata={})), {})


def test_metadata_make_no_cached_copy_of_a_durable_one() -> None:
    """A member may write `replica_host` onto any row: its URL decides, for each question of the rule."""
    dressed = replace(STORE, metadata={**STORE.metadata, "replica_host": "api1"})
    mine = Location(ID, f"http://10.0.0.1/elsewhere/{ID}", {"replica_host": "api1"}, 21)
    for one in (dressed, mine):
        found = image(one, ONE)
        assert (one.host, one.is_cached, found.durable, found.cached) == (None, False, (one,), (ONE,))
        assert has_durable(found, {})
        assert why_kept(found, key(ONE), known((ONE, INTACT))) is None, "else it would stay in caches for ever"
        assert why_kept(found, key(ONE), known((one, CORRUPT), (ONE, INTACT)))
        assert why_kept(image(STORE, ONE, one), key(ONE), known((STORE, CORRUPT), (one, CORRUPT), (ONE, INTACT)))
        assert not only_cached(found, {})
    assert (BY_HAND.host, BY_HAND.is_cached) == (None, True)
