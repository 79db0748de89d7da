"""Our own tables, used as hosts, verifiers and prunes use them, on three databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from support.worlds import past

from glance_replicas import __version__
from glance_replicas.database import transactions
from glance_replicas.database.chunks import CHUNK
from glance_replicas.errors import LedgerError
from glance_replicas.ledger import migrations
from glance_replicas.ledger.ledger import Ledger, place_key
from glance_replicas.ledger.schema.tables import checks, fills, hosts
from glance_replicas.model import Host, Location, Result
from glance_replicas.verdict import Evidence, Verdict

IMAGE = "11111111-2222-4333-8444-555555555555"
OTHER = "21111111-2222-4333-8444-555555555555"
DURABLE = Location(IMAGE, "swift+config://ref:secret@h/c/o", {"store": "fast"}, 7)
CACHED = Location(IMAGE, f"http://10.0.0.1:9292/replicas/{IMAGE}", {"replica_host": "host-1", "store": "http"}, 8)
THEN = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run(url: str, statement: Any) -> Any:
    """Behind the ledger's back."""
    engine = transactions.engine(url)
    try:
        return transactions.writing(engine, lambda connection: connection.execute(statement).rowcount)
    finally:
        engine.dispose()


def host(name: str, **numbers: Any) -> Host:
    return Host(name, "z", f"http://{name}", THEN, **numbers)


def result(
    at: datetime | None, verdict: Verdict = Verdict.INTACT, evidence: Evidence = Evidence.FULL, **more: Any
) -> Result:
    return Result(more.pop("location", DURABLE), verdict, evidence, checked_at=at, **more)


def test_place_key() -> None:
    """One key for one copy, whatever its credentials or metadata, and another for any other copy."""
    assert place_key(DURABLE) == place_key(Location(OTHER, "swift+config://ref:other@H//c/o"))
    assert len({place_key(DURABLE), place_key(CACHED), place_key(Location(IMAGE, "file:///\ud800"))}) == 3
    assert len(place_key(DURABLE)) == 64


def test_heartbeats(ledger: Ledger, database_url: str) -> None:
    """A host is one row, its last numbers, by the database's clock and not by ours; hosts come by name."""
    ledger.heartbeat(host("b", files=1, bytes_used=1 << 50, bytes_free=3))
    ledger.heartbeat(host("a"))
    ledger.heartbeat(host("b", files=2, bytes_used=1 << 51, bytes_free=4))
    first, second = ledger.hosts()
    assert [first.name, second.name] == ["a", "b"]
    assert (second.files, second.bytes_used, second.bytes_free) == (2, 1 << 51, 4)
    assert (second.zone, second.url) == ("z", "http://b")
    assert 0 <= second.age_seconds < 30
    assert abs(datetime.now(UTC) - second.heartbeat) < timedelta(seconds=30)
    assert run(database_url, sa.update(hosts).where(hosts.c.version != __version__).values(version="x")) == 0
    run(database_url, sa.update(hosts).values(heartbeat=second.heartbeat - timedelta(hours=30)))
    assert ledger.hosts()[1].age_seconds == pytest.approx(108_000, abs=30)
    assert (ledger.forget_host("a"), ledger.forget_host("a")) == (True, False)
    assert [one.name for one in ledger.hosts()] == ["b"]


def test_host_names_differ_by_case(ledger: Ledger) -> None:
    """As on the network of the hosts themselves, `A` is not `a` nor `a ` on any database."""
    for name in ("a", "A", "ä"):
        ledger.heartbeat(host(name))
    assert {one.name for one in ledger.hosts()} == {"a", "A", "ä"}


def test_many_heartbeats_at_once(ledger: Ledger) -> None:
    """Hosts that report together do not disturb each other, nor a host that reports twice at a time."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ledger.heartbeat, [host(f"h{n % 5}") for n in range(60)]))
    assert [one.name for one in ledger.hosts()] == [f"h{n}" for n in range(5)]


def test_record(ledger: Ledger) -> None:
    """Every result is in the history and the newest is the state, with each field and no secret."""
    seen = result(THEN, Verdict.MISSING, Evidence.FULL, detail="other bytes", size=1 << 40, seconds=1.5)
    past.record(ledger, [seen, result(THEN, location=CACHED, evidence=Evidence.SIZE)])
    past.record(ledger, [result(THEN + timedelta(seconds=1), evidence=Evidence.SIZE)])
    states = ledger.states([IMAGE, OTHER])
    assert set(states) == {(IMAGE, place_key(DURABLE)), (IMAGE, place_key(CACHED))}
    latest = states[IMAGE, place_key(DURABLE)]
    assert (latest.verdict, latest.evidence, latest.checked_at) == (
        Verdict.INTACT,
        Evidence.SIZE,
        THEN + timedelta(seconds=1),
    )
    assert states[IMAGE, place_key(CACHED)].location.host == "host-1"
    newest, *_, oldest = ledger.history(IMAGE)
    assert newest == latest
    kept = next(one for one in ledger.history(IMAGE) if one.verdict is Verdict.MISSING)
    assert (kept.detail, kept.size, kept.seconds, kept.checked_at) == ("other bytes", 1 << 40, 1.5, THEN)
    assert "secret" not in kept.location.url
    assert oldest.checked_at == THEN
    assert len(ledger.history(IMAGE, limit=2)) == 2
    assert ledger.history(OTHER) == []
    assert ledger.states([]) == {}


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_the_order_of_recording_decides(ledger: Ledger, seconds: float) -> None:
    """Whatever the clocks of the machines that looked say, the last recorded is the state, as of the ledger's time."""
    key, mine = (IMAGE, place_key(DURABLE)), datetime.now(UTC)
    theirs = mine + timedelta(seconds=seconds)
    ledger.record([result(theirs)])
    ledger.record([result(mine, Verdict.CORRUPT)])
    assert ledger.states([IMAGE])[key].verdict is ledger.states([IMAGE], full=True)[key].verdict is Verdict.CORRUPT
    ledger.record([result(mine, Verdict.CORRUPT), result(theirs)])
    assert ledger.states([IMAGE])[key].verdict is ledger.states([IMAGE], full=True)[key].verdict is Verdict.INTACT
    assert [one.verdict for one in ledger.history(IMAGE)] == [
        Verdict.INTACT,
        Verdict.CORRUPT,
        Verdict.CORRUPT,
        Verdict.INTACT,
    ]
    assert all(abs(ledger.now() - (one.checked_at or theirs)) < timedelta(seconds=60) for one in ledger.history(IMAGE))


def test_the_last_full_look(ledger: Ledger) -> None:
    """A quick verification replaces the state and leaves the last full verdict; a full one that broke off does too."""
    key = (IMAGE, place_key(DURABLE))
    past.record(ledger, [result(THEN, evidence=Evidence.SIZE)])
    assert ledger.states([IMAGE], full=True) == {}
    past.record(ledger, [result(THEN + timedelta(1), Verdict.INTACT)])
    past.record(
        ledger, [result(THEN + timedelta(2), Verdict.STALLED), result(THEN + timedelta(3), evidence=Evidence.STORED)]
    )
    full = ledger.states([IMAGE], full=True)[key]
    assert (full.verdict, full.evidence, full.checked_at) == (Verdict.INTACT, Evidence.FULL, THEN + timedelta(1))
    assert ledger.states([IMAGE])[key].checked_at == THEN + timedelta(3)
    past.record(ledger, [result(THEN + timedelta(2), Verdict.CORRUPT)])
    assert ledger.states([IMAGE], full=True)[key].verdict is Verdict.CORRUPT


def test_a_quick_look_does_not_clear_damage(ledger: Ledger) -> None:
    """What a full verification found corrupt is corrupt until one finds it intact; other verdicts are the latest."""
    key = (IMAGE, place_key(DURABLE))
    past.record(ledger, [result(THEN, Verdict.CORRUPT), result(THEN + timedelta(1), evidence=Evidence.SIZE)])
    kept = ledger.states([IMAGE])[key]
    assert (kept.verdict, kept.evidence, kept.checked_at) == (Verdict.CORRUPT, Evidence.FULL, THEN)
    past.record(ledger, [result(THEN + timedelta(2), Verdict.MISSING, evidence=Evidence.SIZE)])
    assert ledger.states([IMAGE])[key].verdict is Verdict.MISSING
    past.record(ledger, [result(THEN + timedelta(3)), result(THEN + timedelta(4), evidence=Evidence.SIZE)])
    assert ledger.states([IMAGE])[key].checked_at == THEN + timedelta(4)


def test_time_zones(ledger: Ledger, database_url: str) -> None:
    """A moment of any zone comes back as that moment in UTC, to the microsecond; a naive one is refused."""
    moment = datetime(2026, 3, 29, 2, 30, 0, 123456, timezone(timedelta(hours=5, minutes=30)))
    past.record(ledger, [result(moment)])
    [seen] = ledger.history(IMAGE)
    assert seen.checked_at == moment
    assert seen.checked_at is not None
    assert seen.checked_at.utcoffset() == timedelta(0)
    ledger.record([result(None)])
    assert ledger.history(IMAGE)[0].checked_at > moment  # type: ignore[operator]
    assert abs((ledger.history(IMAGE)[0].checked_at or moment) - datetime.now(UTC)) < timedelta(seconds=30)
    with pytest.raises(LedgerError, match="time zone"):
        past.record(ledger, [result(moment.replace(tzinfo=None))])
    engine = transactions.engine(database_url)
    if engine.dialect.name != "sqlite":  # a session in another zone reads the same
        zone = "SET TIME ZONE 'Asia/Tokyo'" if engine.dialect.name == "postgresql" else "SET time_zone = '+09:00'"
        with engine.connect() as connection:
            connection.execute(sa.text(zone))
            assert connection.scalar(sa.select(sa.func.min(checks.c.checked_at))) == moment
            before = connection.execute(sa.select(hosts.c.name).where(hosts.c.heartbeat < moment)).all()
            assert before == []
    engine.dispose()


def test_any_text_is_recorded(ledger: Ledger) -> None:
    """What a server answered, in whatever characters and however long, does not lose the result."""
    strange = Location(IMAGE, f"http://h/\U0001f600\0/replicas/{IMAGE}", {"replica_host": "\ud800" * 400})
    past.record(ledger, [result(THEN, detail="\0\ud800\U0001f600" + "x" * 100_000, location=strange)])
    [seen] = ledger.history(IMAGE)
    assert seen.detail.startswith("\ufffd\ufffd\ufffdxxx")
    assert seen.location.host == "\ufffd" * 255


def test_many_results_from_many_writers(ledger: Ledger) -> None:
    """More results than one statement takes, the same locations from several threads: all kept, no deadlock."""
    places = [Location(IMAGE, f"file:///{n}") for n in range(CHUNK + 20)]

    def record(number: int) -> None:
        order = places if number % 2 else places[::-1]
        ledger.record([result(THEN, detail=f"{number}", location=one) for one in order])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(4)))
    assert len(ledger.history(IMAGE, limit=10_000)) == 4 * len(places)
    states = ledger.states([IMAGE])
    assert len(states) == len(places)
    assert {one.detail for one in states.values()} <= {"0", "1", "2", "3"}


def test_results_are_recorded_at_once(ledger: Ledger) -> None:
    """Whoever records holds the locks of the states for one statement: none is sent for each row (MariaDB sends it)."""
    sent: list[str] = []

    def listen(*words: Any) -> None:
        sent.append(words[2].split()[0] + (" each" if words[5] else ""))

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        ledger.record([result(THEN, location=Location(IMAGE, f"file:///{n}")) for n in range(CHUNK)])
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listen)
    assert sent.count("INSERT each") == 2
    assert "UPDATE each" not in sent, sent


def test_trim(ledger: Ledger) -> None:
    """What is older goes from the history, by the database's clock; states stay."""
    old, new = datetime.now(UTC) - timedelta(days=10), datetime.now(UTC) - timedelta(days=5)
    past.record(ledger, [result(old, location=Location(IMAGE, f"file:///{n}")) for n in range(CHUNK + 5)])
    past.record(ledger, [result(new)])
    assert ledger.trim(7 * 86400) == CHUNK + 5
    assert [one.checked_at for one in ledger.history(IMAGE)] == [new]
    assert len(ledger.states([IMAGE])) == CHUNK + 6
    assert ledger.trim(7 * 86400) == 0


def test_withdrawals(ledger: Ledger) -> None:
    """A request is pending at its host until finished, once; the record of who, why and the proof stays."""
    proof = {"keeps": ["file:///a"], "at": THEN}
    first = ledger.request_withdrawal(CACHED, reason="evict", who="admin", proof=proof)
    second = ledger.request_withdrawal(DURABLE, reason="corrupt", who="prune", proof=None)
    [pending] = ledger.pending_withdrawals("host-1")
    assert (pending.id, pending.image_id, pending.url, pending.host) == (first, IMAGE, CACHED.url, "host-1")
    assert (pending.reason, pending.who, pending.finished_at) == ("evict", "admin", None)
    assert pending.proof == {"keeps": ["file:///a"], "at": str(THEN)}
    assert abs(pending.requested_at - datetime.now(UTC)) < timedelta(seconds=30)
    assert ledger.pending_withdrawals("host-2") == []
    ledger.finish_withdrawal(first)
    assert ledger.pending_withdrawals("host-1") == []
    newest, oldest = ledger.withdrawals()
    assert (newest.id, newest.host, newest.finished_at, newest.proof) == (second, None, None, None)
    assert "secret" not in newest.url
    assert oldest.finished_at is not None
    assert oldest.finished_at >= oldest.requested_at
    ledger.finish_withdrawal(first)
    assert ledger.withdrawals()[1].finished_at == oldest.finished_at
    assert [one.id for one in ledger.withdrawals(limit=1)] == [second]


def test_fills(ledger: Ledger, database_url: str) -> None:
    """A fill is seen while its lease holds and it is renewed; a renewal keeps the start, a new lease begins anew."""
    ledger.claim_fill(IMAGE, "b", "http://b/1", 600)
    ledger.claim_fill(IMAGE, "a", "http://a/1", 600)
    ledger.claim_fill(IMAGE, "b", "http://b/2", 600, done=1 << 40)
    assert [(one.host, one.url, one.bytes) for one in ledger.fills(IMAGE, 60)] == [
        ("b", "http://b/2", 1 << 40),
        ("a", "http://a/1", 0),
    ]
    assert all(0 <= one.age_seconds < 30 for one in ledger.fills(IMAGE, 60))
    assert ledger.fills(OTHER, 60) == []
    past = datetime.now(UTC) - timedelta(seconds=120)
    run(database_url, sa.update(fills).where(fills.c.host == "b").values(renewed_at=past))
    assert [one.host for one in ledger.fills(IMAGE, 60)] == ["a"]
    assert [one.host for one in ledger.fills(IMAGE, 300)] == ["b", "a"]
    run(database_url, sa.update(fills).where(fills.c.host == "b").values(expires_at=past))
    assert [one.host for one in ledger.fills(IMAGE, 300)] == ["a"]
    ledger.claim_fill(IMAGE, "b", "http://b/3", 600)
    assert [one.host for one in ledger.fills(IMAGE, 60)] == ["a", "b"]
    ledger.release_fill(IMAGE, "a")
    ledger.release_fill(IMAGE, "a")
    assert [one.url for one in ledger.fills(IMAGE, 60)] == ["http://b/3"]


def test_many_claims_at_once(ledger: Ledger) -> None:
    """Hosts that claim one image together all succeed, with one row each."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.claim_fill(IMAGE, f"h{n % 4}", "http://h", 60), range(40)))
    assert sorted(one.host for one in ledger.fills(IMAGE, 60)) == ["h0", "h1", "h2", "h3"]


def test_no_tables(database_url: str) -> None:
    """Before the first upgrade every call says what to run, and looking makes no table."""
    ledger = Ledger(database_url)
    calls = [
        lambda: ledger.heartbeat(host("a")),
        ledger.hosts,
        lambda: ledger.forget_host("a"),
        lambda: past.record(ledger, [result(THEN)]),
        lambda: ledger.states([IMAGE]),
        lambda: ledger.history(IMAGE),
        lambda: ledger.request_withdrawal(CACHED, reason="r", who="w", proof=None),
        lambda: ledger.pending_withdrawals("a"),
        lambda: ledger.claim_fill(IMAGE, "a", "http://a", 1),
        lambda: ledger.fills(IMAGE, 1),
    ]
    for call in calls:
        with pytest.raises(LedgerError, match="run: replica db upgrade"):
            call()  # type: ignore[operator]
    assert (ledger.version(), ledger.is_current()) == (None, False)
    ledger.close()


def test_tables_of_a_newer_version(ledger: Ledger, database_url: str) -> None:
    """Tables that a newer package upgraded are said to be just that, and are left alone."""
    run(database_url, sa.text("UPDATE replica_alembic_version SET version_num = '9999'"))
    assert not ledger.is_current()
    with pytest.raises(LedgerError, match="newer"):
        ledger.upgrade()
    assert ledger.version() == "9999"


def test_revisions_are_a_line() -> None:
    """Each revision follows the one before: no branches, numbered in order."""
    found = migrations.revisions()
    assert found[-1] == migrations.latest()
    assert all(before < after for before, after in pairwise(found))


def test_the_ledger_in_glances_database(glance_database_url: str) -> None:
    """Beside Glance's tables, in its character set, the ledger works the same."""
    ledger = Ledger(glance_database_url)
    assert ledger.upgrade()
    ledger.heartbeat(host("ä€"))
    ledger.record([result(None, detail="ä€")])
    assert ([one.name for one in ledger.hosts()], ledger.history(IMAGE)[0].detail) == (["ä€"], "ä€")
    ledger.close()


def test_places_come_by_the_age_of_their_last_look(ledger: Ledger) -> None:
    """All of them once, page by page, also where many were recorded at one moment; `full` goes by full ones."""
    places = [Location(IMAGE, f"file:///{number}") for number in range(12)]
    for number, one in enumerate(places):
        at, evidence = THEN + timedelta(hours=number // 5), Evidence.SIZE if number % 3 else Evidence.FULL
        past.record(ledger, [result(at, evidence=evidence, location=one)])
    past.record(ledger, [result(THEN + timedelta(hours=9), evidence=Evidence.SIZE, location=places[0])])
    end = THEN + timedelta(hours=10)

    def ages(full: bool | None) -> list[datetime]:
        found = list(ledger.by_age(end, full=full, page=3))
        assert len({place for _, place, _ in found}) == len(found)
        known = ledger.lasts([IMAGE])
        assert all(known[image_id, place] == last for image_id, place, last in found)
        return [last.full_checked_at or last.checked_at if full else last.checked_at for _, _, last in found]

    assert len(ages(None)) == 12
    assert (len(ages(True)), len(ages(False))) == (4, 8)
    assert all(found == sorted(found) for found in (ages(None), ages(True), ages(False)))
    assert [last.checked_at for _, _, last in ledger.by_age(THEN + timedelta(hours=1))] == [THEN] * 4
    assert abs(ledger.now() - datetime.now(UTC)) < timedelta(seconds=30)
