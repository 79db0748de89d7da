"""Hosts that share what is each one's own, by mistake or after a change: a directory, a URL, a machine renamed."""

import json
import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from services.databases.schema import add_image
from services.glance.site import GlanceHost, GlanceSite
from support.programs import Programs, replica
from support.worlds.cloud import Cloud, filled

from glance_replicas.host import mark, store_names
from glance_replicas.host.local_host import LocalHost
from glance_replicas.host.mark import Mark
from glance_replicas.host.standing import rival
from glance_replicas.janitor.passes import Janitor
from glance_replicas.ledger.pins import Pins
from glance_replicas.ledger.prefetch_requests import PrefetchRequests
from glance_replicas.model import Host, Pass

pytest_plugins = ["support.worlds.cloud", "support.desk"]


def again(local: LocalHost, **changes: object) -> LocalHost:
    """The host after a restart with other options."""
    return LocalHost.assemble(replace(local.settings, **changes))  # type: ignore[arg-type]


def owners(cloud: Cloud, name: str) -> list[tuple[str, str]]:
    """Host and URL of each registration of an image."""
    rows = cloud.site.locations(name)
    return [(one["metadata"]["replica_host"], one["url"]) for one in rows if "replica_host" in one["metadata"]]


def run(local: LocalHost) -> Pass:
    """One pass of a host's janitor, as cron runs it."""
    return Janitor(local).run_once()


@pytest.mark.parametrize("changes", [{"host_url": None}, {"can_register": False}], ids=["no URL", "no http store"])
def test_what_registers_nothing_says_what_to_do(cloud: Cloud, changes: dict[str, object]) -> None:
    """A host without a URL, or without an http store: what to set, and that glance-api has to be started again."""
    local = again(cloud.host("lost"), **changes)
    assert local.registration.own_url("x") is None
    assert re.search(r"; (set|add) one .*restart glance-api$", local.registration.why_unregistered())


# Two hosts in one directory: Oracle OpenStack guide, "Setting up Glance" (a share on /var/lib/glance of every node).


def test_a_guest_registers_nothing(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """The second host in a directory has a heartbeat and no row, says whose it is, and leaves the owner its files."""
    first = cloud.host("first")
    assert run(first).problems == []
    second = again(cloud.host("second"), cache_dir=first.settings.cache_dir)
    name = cloud.cached(first)
    cloud.site.add_location(name, second.settings.host_url + f"/replicas/{name}", {"replica_host": "second"})
    assert second.registration.own_url(name) is None
    assert "is that of host first" in second.registration.why_unregistered()
    done = run(second)
    assert "image_cache_dir" in done.problems[0]
    assert "host first" in done.problems[0]
    assert cloud.rows(name) == ["first"]
    assert first.cache.complete.exists(name)
    assert {one.name for one in first.ledger.hosts()} == {"first", "second"}
    assert "registers no copies" in caplog.text
    late = cloud.image()
    assert second.fill_setup.plan(second.catalogue.image(late)) is not None  # type: ignore[arg-type]
    assert run(first).registered == 0


def test_an_eviction_by_a_guest_takes_the_owners_row(cloud: Cloud) -> None:
    """What a guest evicts goes from the owner's registrations first: no row names a file that is gone (promise 1)."""
    first = cloud.host("first")
    run(first)
    second = again(cloud.host("second"), cache_dir=first.settings.cache_dir)
    name = cloud.cached(first)
    second.registration.withdraw(name)
    assert cloud.rows(name) == []


def test_the_owner_is_silent_for_long(cloud: Cloud) -> None:
    """A directory whose owner has not touched its mark for three heartbeats is taken over; back again, that one is the
    guest."""
    first = cloud.host("first")
    run(first)
    name = cloud.cached(first)
    second = again(cloud.host("second"), cache_dir=first.settings.cache_dir)
    long_ago = time.time() - 300
    os.utime(first.cache.own("owner"), (long_ago, long_ago))
    assert run(second).registered == 1
    assert sorted(cloud.rows(name)) == ["first", "second"]
    assert "host second" in run(first).problems[0]
    assert cloud.rows(name) == ["second"]


@pytest.mark.parametrize("text", ["", "[]", "no JSON", '{"host": 5}', '{"host": "x", "url": 7, "before": "y"}'])
def test_a_mark_that_says_nothing(cloud: Cloud, text: str) -> None:
    """Whatever stands in the mark, or nothing: a pass ends, and its host has the directory or is told who has it."""
    here = cloud.host("here")
    run(here)
    here.cache.own("owner").write_text(text)
    done = run(again(here))
    assert done.problems == ([] if '"x"' not in text else done.problems[:1])


# The host name changes: Nova's stable-compute-uuid, LP nova #1419785.


def test_a_host_that_is_renamed(cloud: Cloud) -> None:
    """Under a new name, with the same URL and directory: the rows name it after one pass, no pass repeats work, and the
    old name is gone from the ledger, its pins and requests carried over."""
    old = cloud.host("api2")
    run(old)
    names = [cloud.cached(old) for _ in range(3)]
    lost = cloud.cached(old)
    Pins(old.ledger.database).add([names[0]], ["api2"], "w")
    PrefetchRequests(old.ledger.database).request([cloud.image()], ["api2"], who="w")
    old.cache.path(lost).unlink()
    new = again(old, host_name="api2.example.com")
    assert new.standing.problem() is None
    first, second, third = run(new), run(new), run(new)
    assert [one.registered for one in (first, second, third)] == [3, 0, 0]
    assert [one.problems for one in (first, second, third)] == [[], [], []]
    for name in names:
        assert owners(cloud, name) == [("api2.example.com", f"{old.settings.host_url}/replicas/{name}")]
    assert cloud.rows(lost) == []
    assert [one.name for one in new.ledger.hosts()] == ["api2.example.com"]
    assert [one.host for one in Pins(new.ledger.database).all()] == ["api2.example.com"]
    assert {one.host for one in PrefetchRequests(new.ledger.database).list()} == {"api2.example.com"}


def test_renamed_on_another_machine(cloud: Cloud) -> None:
    """The same URL and directory under another name on another machine is another host, until the first is silent."""
    old = cloud.host("api2")
    run(old)
    found = mark.read(old.cache)
    assert found is not None
    other = Mark("api3", found.url, "another machine")
    assert mark.claim(old.cache, other, 180).host == "api2"
    assert mark.claim(old.cache, other, 0).host == "api3"


def test_another_zone_is_written_into_the_rows(cloud: Cloud) -> None:
    """A host whose zone changed has the new one in its rows after a pass, which the next does not repeat."""
    here = cloud.host("here")
    name = cloud.cached(here)
    moved = again(here, host_zone="elsewhere")
    assert [run(moved).registered for _ in range(2)] == [1, 0]
    (row,) = (one for one in cloud.site.locations(name) if "replica_host" in one["metadata"])
    assert row["metadata"]["replica_zone"] == "elsewhere"


# Two hosts behind one URL: Launchpad blueprint glance-cache-path.


def test_two_hosts_behind_one_url(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """The second registers nothing and says why, in no pass; rows of the first stay, whatever the second evicts."""
    first = cloud.host("first")
    run(first)
    second = again(cloud.host("second"), host_url=first.settings.host_url)
    second.ledger.forget_host("second")
    name = cloud.cached(first)
    other = cloud.image()
    for local in (first, second):
        local.cache.prepare()
    filled(second, name)
    filled(second, other)
    for _ in range(3):
        done = run(second)
        assert done.registered == 0
        assert "is that of host first" in done.problems[0]
        assert run(first).registered == 0
    assert "never a load balancer" in caplog.text
    assert (cloud.rows(name), cloud.rows(other)) == (["first"], [])
    second.registration.withdraw(name)
    assert cloud.rows(name) == ["first"]
    assert [one.name for one in first.ledger.hosts()] == ["first"]


def living(name: str, url: str = "u", age: float = 1.0) -> Host:
    return Host(name, None, url, datetime.now(UTC), age_seconds=age)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([], None),
        ([living("b")], "b"),
        ([living("b", url="v")], None),
        ([living("b", age=1000)], None),
        ([living("b"), living("a")], None),  # both at one time: the first by name
        ([living("b"), living("m")], "b"),
        ([living("old")], None),
    ],
)
def test_who_has_a_url(hosts: list[Host], expected: str | None) -> None:
    """Whoever lives there already; of two at one time the first by name; a former name is no other host."""
    own = Mark("a" if any(one.name == "a" for one in hosts) else "m", "u", "x", before=("old",))
    found = rival(own, hosts, lambda host: host.age_seconds < 180)
    assert (found.name if found else None) == expected


def test_no_ledger_is_no_rival(cloud: Cloud, tmp_path: Path) -> None:
    """Without a ledger a host registers as ever (promise 3)."""
    here = again(cloud.host("here"), ledger=f"sqlite:///{tmp_path / 'garbage.sqlite'}")
    (tmp_path / "garbage.sqlite").write_bytes(b"no database" * 100)
    assert here.standing.problem() is None


def configured(site: GlanceSite, name: str, **options: dict[str, str]) -> GlanceHost:
    """A host that is not started; programs read its configuration."""
    return site.add_host(f"127.0.0.{3 + len(site.hosts)}", name=name, options=options, start=False)


def checked(host: GlanceHost) -> str:
    """What `replica check` says."""
    return replica().run("--config-file", host.config_file, "check").out


def once(host: GlanceHost) -> str:
    """What `replica janitor --once` says."""
    done = replica().run("--config-file", host.config_file, "janitor", "--once")
    return done.out + done.err


def test_check_names_the_other_host(site: GlanceSite) -> None:
    """`replica check` on the second host of a directory, of a URL, or with another name for the http store is an error
    that names the first; on the first it is silent about them."""
    first = configured(site, "first")
    once(first)
    guest = configured(site, "guest", DEFAULT={"image_cache_dir": str(first.cache_dir)})
    assert "error: image_cache_dir" in checked(guest)
    assert "is that of host first" in checked(guest)
    assert "is that of host first" in once(guest)
    behind = configured(site, "behind", replicas={"host_url": first.url})
    assert f"error: host_url {first.url} is that of host first, which lives" in checked(behind)
    assert "is that of host first, which lives" in once(behind)
    image_id = "80000000-0000-4000-8000-00000000000c"
    add_image(site.database_url, image_id, b"x")
    row = {"replica_host": "first", "store": "web"}
    site.add_location(image_id, f"{first.url}/replicas/{image_id}", row)
    other = configured(site, "other", DEFAULT={"enabled_backends": "fast:file, cache:http"})
    assert "registrations of host first name the store web, and the http store is called cache here" in checked(other)
    for words in ("is that of host", "name the store", "calls its http store"):
        assert words not in checked(first)


def test_check_names_the_other_store_id_whatever_the_rows_say(site: GlanceSite, programs: Programs) -> None:
    """After a host's own GETs wrote its own store id into every row, `replica check` names both ids on both hosts."""

    def run(host: GlanceHost, *words: str) -> str:
        return programs.run("--config-file", host.config_file, *words).out

    first, alike = configured(site, "first"), configured(site, "alike")
    other = configured(site, "other", DEFAULT={"enabled_backends": "fast:file, cache:http"})
    image_id = "80000000-0000-4000-8000-00000000000d"
    add_image(site.database_url, image_id, b"x")
    for host in site.hosts:
        run(host, "janitor", "--once")
    for host in (first, other):
        row = {"replica_host": host.name, "store": "cache"}  # what a GET through `other` leaves
        site.add_location(image_id, f"{host.url}/replicas/{image_id}", row)
    said = run(other, "check")
    for name in ("first", "alike"):
        assert f"error: host {name} calls its http store web, and the http store is called cache here" in said
    assert "host other calls" not in said
    assert "name the store cache, and the http store is called web here" in run(first, "check")
    site.rows("UPDATE image_locations SET meta_data = REPLACE(meta_data, 'cache', 'web')")
    said = run(first, "check")  # what a GET through `first` leaves
    assert "error: host other calls its http store cache, and the http store is called web here" in said
    assert f"host {alike.name} calls" not in said
    site.ledger_rows("UPDATE replica_hosts SET heartbeat = '2020-01-01 00:00:00.000000' WHERE name = 'other'")
    assert "calls its http store" not in run(first, "check"), "a dead host answers no GET"


def test_the_name_of_the_store_is_written_once(cloud: Cloud) -> None:
    """Passes of a host write the name of its http store when it is another one, and the host's row once otherwise."""
    here, writes = cloud.host("here", http_store="web"), list[str]()

    def listen(*words: Any) -> None:
        writes.extend(re.findall(r"^(?:INSERT INTO|UPDATE) replica_hosts", words[2]))

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        for this, expected in ((here, 3), (here, 1), (again(here, http_store="www"), 2)):  # it counts its rows once
            writes.clear()
            assert run(this).problems == []
            assert len(writes) == expected
            assert store_names.told(this.ledger.database) == {"here": this.settings.http_store}
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listen)


def test_a_store_id_of_another_host_is_left_alone(cloud: Cloud) -> None:
    """A row into which another Glance wrote its own store id is registered: no pass writes it anew."""
    here = cloud.host("here")
    name = cloud.cached(here)
    (row,) = (one for one in cloud.site.locations(name) if "replica_host" in one["metadata"])
    there = json.dumps({**row["metadata"], "store": "cache"})
    cloud.site.rows("UPDATE image_locations SET meta_data = :there WHERE id = :row", there=there, row=row["id"])
    assert [run(here).registered for _ in range(2)] == [0, 0]
    assert here.registration.register(here.catalogue.image(name)) is False  # type: ignore[arg-type]
    (after,) = (one for one in cloud.site.locations(name) if "replica_host" in one["metadata"])
    assert (after["id"], after["metadata"]["store"]) == (row["id"], "cache")
