"""The ledger answers slowly, in part, or in words of another version: hosts go on with what can be asked."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services.databases.schema import query
from support.worlds.cloud import Cloud

from glance_replicas.database import transactions
from glance_replicas.host import store_names
from glance_replicas.ledger import host_registry, migrations
from glance_replicas.ledger.host_registry import is_alive
from glance_replicas.ledger.ledger import Ledger, place_key
from glance_replicas.ledger.orphans import Kind, Orphans, Sighting
from glance_replicas.ledger.prefetch_requests import PrefetchRequests
from glance_replicas.ledger.prefetch_requests import State as Copied
from glance_replicas.model import HOST_KEY, Host, Location, Result
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.worlds.cloud"]

IMAGE = "11111111-2222-4333-8444-555555555555"
PLACE = Location(IMAGE, "file:///images/1", {"store": "fast"}, 7)


@pytest.fixture
def locked(cloud: Cloud) -> sa.Engine:
    """Another connection to the ledger, to hold its lock."""
    return sa.create_engine(f"sqlite:///{cloud.site.folder / 'glance-replicas.sqlite'}", poolclass=sa.NullPool)


def test_the_list_of_hosts_is_whole_while_it_is_asked_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread asks the ledger for the hosts all others see every host there was, at every moment."""
    here = cloud.host("here")
    cloud.host("there")
    monkeypatch.setattr(host_registry, "_KEEP_SECONDS", 0.0)
    assert set(here.host_registry.all()) == {"here", "there"}
    seen, ended = [], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.append(len(here.host_registry.all()))

    watchers = [threading.Thread(target=watch) for _ in range(4)]
    for one in watchers:
        one.start()
    time.sleep(1.0)
    ended.set()
    for one in watchers:
        one.join()
    assert len(seen) > 100
    assert set(seen) == {2}


def test_the_last_list_grows_old(cloud: Cloud, locked: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that is away leaves the hosts it named, whose heartbeats grow old until they count as dead."""
    here = cloud.host("here")
    cloud.host("there")
    monkeypatch.setattr(host_registry, "_KEEP_SECONDS", 0.0)
    assert is_alive(here.host_registry.all()["there"], here.settings)
    with locked.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        began = time.monotonic()
        found = here.host_registry.all()
        assert time.monotonic() - began < 3, "a list that cannot be had costs little"
        assert set(found) == {"here", "there"}
        age = found["there"].age_seconds
        time.sleep(0.5)
        assert here.host_registry.all()["there"].age_seconds >= age + 0.5
        monkeypatch.setattr(here.host_registry, "_listed_at", time.monotonic() - 3600)
        assert not is_alive(here.host_registry.all()["there"], here.settings), "nobody heard of it for an hour"
        connection.exec_driver_sql("ROLLBACK")


def test_a_host_that_has_just_come_is_read_from(cloud: Cloud) -> None:
    """A copy of a host that reported after this one's list was made, or its fill, is a source before the stores."""
    here = cloud.host("here")
    assert set(here.host_registry.all()) == {"here"}
    there = cloud.host("there")
    copied = here.catalogue.image(cloud.cached(there))
    assert copied is not None
    assert [one.host for one in here.source_selection.order(copied, fills=True)] == ["there", None]
    assert here.host_registry.sign(copied.cached[0]) != copied.cached[0].url
    time.sleep(1.1)
    filling = here.catalogue.image(cloud.image())
    assert filling is not None
    third = cloud.host("third")
    third.source_selection.renew(filling, 0)
    assert [one.host for one in here.source_selection.order(filling, fills=True)] == ["third", None]


def test_the_first_fill_beside_a_host_that_has_just_come(cloud: Cloud) -> None:
    """A host that thought it was alone sees the fill of one that came since, though no row names that one yet."""
    here = cloud.host("here")
    assert set(here.host_registry.all()) == {"here"}
    there = cloud.host("there")
    image = here.catalogue.image(cloud.image())
    assert image is not None
    there.source_selection.renew(image, 0)
    assert [one.host for one in here.source_selection.order(image, fills=True)] == ["there", None]


def test_names_of_no_host_are_no_flood(cloud: Cloud) -> None:
    """Rows that name hosts nobody knows, as users may write them, have the ledger asked once a second at most."""
    here = cloud.host("here")
    here.host_registry.all()
    asked = []
    sa.event.listen(
        here.ledger.database._engine, "before_cursor_execute", lambda *words: asked.append("replica_hosts" in words[2])
    )
    began = time.monotonic()
    rows = [Location(IMAGE, f"http://127.0.0.9:1/replicas/{IMAGE}", {HOST_KEY: f"none-{one}"}) for one in range(500)]
    for row in rows:
        assert here.host_registry.sign(row) == row.url
    assert 1 <= sum(asked) <= 2 + time.monotonic() - began


def test_a_list_that_came_late_is_kept(cloud: Cloud, locked: sa.Engine) -> None:
    """The first list comes too late for who asked: the next has it at once, not when the breaker lets him ask again."""
    here = cloud.host("here")
    cloud.host("there")
    with locked.connect() as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        assert set(here.host_registry.all()) == {"here"}
        connection.exec_driver_sql("ROLLBACK")
    end = time.monotonic() + 5
    while set(here.host_registry.all()) != {"here", "there"}:
        assert time.monotonic() < end, "what the ledger answered is lost"
        time.sleep(0.05)


def test_one_question_that_fails_silences_no_other(cloud: Cloud) -> None:
    """A table that another version has and this database not: what else the ledger knows is asked for all the same."""
    here = cloud.host("here")
    cloud.host("there")
    here.ledger.record([Result(PLACE, Verdict.CORRUPT, Evidence.FULL)])
    query(cloud.site.ledger_url, "ALTER TABLE replica_fills RENAME TO replica_fills_of_another_version")
    image = here.catalogue.active(cloud.image())
    assert image is not None
    assert here.source_selection.renew(image, 0) == ()
    assert set(here.host_registry.all()) == {"here", "there"}
    assert here.host_registry.states(IMAGE), "verdicts are read after a claim that failed"
    copy = Location(IMAGE, here.registration.own_url(IMAGE) or "", {HOST_KEY: "here"})
    assert here.host_registry.sign(copy).count("sig=") == bool(here.settings.signing_keys)


def test_tables_a_version_behind(tmp_path: Path, cloud: Cloud) -> None:
    """Hosts that run before `replica db upgrade` know each other and the verdicts, at every earlier version."""
    for revision in migrations.revisions():
        url = f"sqlite:///{tmp_path / revision}.sqlite"
        bind = transactions.engine(url)
        with transactions.transaction(bind) as connection:
            migrations.upgrade(connection, revision)
        bind.dispose()
        query(
            url,
            "INSERT INTO replica_hosts (name, url, heartbeat, files, bytes_used, bytes_free, version) "
            "VALUES ('old', 'http://127.0.0.9', strftime('%Y-%m-%d %H:%M:%f000', 'now'), 0, 0, 0, '1')",
        )
        with closing(Ledger(url)) as ledger:
            assert [one.name for one in ledger.hosts()] == ["old"], revision
            assert ledger.states([IMAGE]) == {}
            ledger.heartbeat(Host("new", None, "http://127.0.0.8"))
            store_names.tell(ledger.database, "new", "web")
            assert [one.name for one in ledger.hosts()] == ["new", "old"], revision


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0", max_codepoint=0xFFFF), max_size=20)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verdict=WORDS, other=WORDS)
def test_words_of_a_newer_version(ledger: Ledger, database_url: str, verdict: str, other: str) -> None:
    """Whatever stands in the columns of ours is read: a word nobody here knows is unknown, and condemns nothing."""
    copies, orphans = PrefetchRequests(ledger.database), Orphans(ledger.database)
    ledger.record([Result(PLACE, Verdict.INTACT, Evidence.FULL)])
    ledger.request_withdrawal(PLACE, reason=other, who=other, proof={})
    copies.request([IMAGE], ["host"], who="a test")
    orphans.saw("host:here", [Sighting("name", Kind.DARK, None, 1)])
    for table, columns in {
        "states": {"verdict": verdict, "evidence": other, "full_verdict": verdict},
        "checks": {"verdict": verdict, "evidence": other},
        "copies": {"state": other[:10]},
        "strays": {"kind": other[:10]},
        "withdrawals": {"proof": other},
    }.items():
        query(database_url, f"UPDATE replica_{table} SET {', '.join(f'{one} = :{one}' for one in columns)}", **columns)
    key = (IMAGE, place_key(PLACE))
    expected = Verdict(verdict) if verdict in set(map(str, Verdict)) else Verdict.UNKNOWN
    assert ledger.states([IMAGE])[key].verdict is expected
    assert ledger.states([IMAGE], full=True)[key].verdict is expected
    assert ledger.lasts([IMAGE])[key].verdict is expected
    assert next(ledger.by_age(datetime(2100, 1, 1, tzinfo=UTC)))[2].verdict is expected
    assert expected.is_damage == (verdict in ("missing", "corrupt", "wrong_size"))
    assert ledger.history(IMAGE)[0].evidence.depth <= Evidence.FULL.depth
    assert copies.list()[0].state in Copied
    assert orphans.list()[0].kind in Kind
    assert ledger.withdrawals()[0].proof is not None
