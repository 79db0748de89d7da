"""Policies against a real Glance and a real ledger: what is asked for, what is not, and what hosts have at the end."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from services.databases.schema import add_image, query
from services.glance.site import GlanceHost, GlanceSite
from stevedore import ExtensionManager
from support.programs import replica
from support.worlds.cached import keep
from support.worlds.scenes import new_bytes

from glance_replicas.cache import Cache
from glance_replicas.cache.eviction import Eviction
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.errors import LedgerError
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.pins import Pins
from glance_replicas.ledger.prefetch_requests import PrefetchRequests, State
from glance_replicas.ledger.schema import tables
from glance_replicas.ledger.usage import Usage
from glance_replicas.location import replica_url
from glance_replicas.model import Host, Pass, Use
from glance_replicas.prefetch.planner import AGAIN_SECONDS, PrefetchPlanner
from glance_replicas.prefetch.policy import Priority
from glance_replicas.settings import Settings

KIB = 1 << 10
_numbers = itertools.count(1)
GOLDEN = "rules: [{name: gold, match: {tag: golden}, copies: all, priority: high}]"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """A Glance to make images with."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        yield made.add_host("127.0.0.2", processes=1, pipeline="stock")


@pytest.fixture
def here(host: GlanceHost, tmp_path: Path) -> Settings:
    """One host of a ledger of its own, which says that it lives, and two more in another zone."""
    settings = Settings(
        host_name="here",
        host_url="http://127.0.0.9:1",
        host_zone="a",
        cache_dir=tmp_path / "cache",
        database=host.site.database_url,
        ledger=f"sqlite:///{tmp_path}/ledger.sqlite",
        can_register=True,
        policies=("rules",),
        rules_file=str(tmp_path / "rules.yaml"),
    )
    Cache(tmp_path / "cache").prepare()
    ledger = Ledger(settings.ledger)
    ledger.upgrade()
    for name, zone in (("here", "a"), ("other1", "b"), ("other2", "b")):
        ledger.heartbeat(Host(name, zone, "http://127.0.0.9:1" if name == "here" else f"http://{name}:1"))
    return settings


def image(host: GlanceHost, *tags: str, size: int = 10 * KIB, **more: Any) -> str:
    """An active image; its tags make it what one test is about."""
    return str(host.client().create(data=new_bytes(size), tags=list(tags), **more)["id"])


def fresh() -> str:
    """A tag that no other test uses."""
    return f"tag-{next(_numbers)}"


def write(settings: Settings, text: str) -> None:
    """This is the rules file from now on."""
    Path(settings.rules_file or "").write_text(text)


def asked(settings: Settings) -> dict[str, str]:
    """What this host is asked for: image and who asked."""
    return {one.image_id: one.who for one in PrefetchRequests(Ledger(settings.ledger).database).list(hosts=["here"])}


def made(settings: Settings) -> PrefetchPlanner:
    """The host's, as its janitor makes it."""
    assert settings.cache_dir is not None
    cache = Cache(settings.cache_dir)
    space = Eviction(cache, settings.max_bytes, settings.min_free_bytes, withdraw=print)
    return PrefetchPlanner(settings, cache, space, Catalogue(settings.database), Ledger(settings.ledger))


def run(settings: Settings, stocking: PrefetchPlanner | None = None) -> list[str]:
    """One pass' step; its problems."""
    done = Pass()
    (stocking or made(settings)).run(done)
    return done.problems


def test_what_a_rule_wants_is_asked_for(host: GlanceHost, here: Settings) -> None:
    """Images that match by tag, property and name, and no others, with the rule's name, priority and pin."""
    tag = fresh()
    wanted = image(host, tag, name="ubuntu-24", os_distro="ubuntu")
    for more in ({"name": "debian"}, {"name": "ubuntu-22", "os_distro": "other"}, {"name": "ubuntu-20"}):
        image(host, tag, **more)
    image(host, name="ubuntu-24", os_distro="ubuntu")
    write(
        here,
        f"rules: [{{name: gold, match: {{tag: {tag}, name: 'ubuntu-*', property: {{os_distro: ubuntu}}}},"
        " copies: all, priority: high, pin: true}]",
    )
    assert run(here) == []
    (one,) = PrefetchRequests(Ledger(here.ledger).database).list()
    assert (one.image_id, one.host, one.who, one.pin) == (wanted, "here", "rule: gold", True)
    assert (one.priority, one.state) == (Priority.HIGH, State.WAITING)
    assert Pins(Ledger(here.ledger).database).of_host("here") == {wanted}


def test_tags_and_properties_that_were_taken_away(host: GlanceHost, here: Settings) -> None:
    """Glance keeps the rows of deleted tags and properties: they count no more."""
    tag = fresh()
    one, two = image(host, tag), image(host, os_distro=tag)
    write(
        here,
        f"rules: [{{match: {{tag: {tag}}}, copies: all}}, {{match: {{property: {{os_distro: {tag}}}}}, copies: all}}]",
    )
    host.client().request("DELETE", f"/v2/images/{one}/tags/{tag}", ok=True)
    assert host.client().patch(two, [{"op": "remove", "path": "/os_distro"}]).status_code == 200
    run(here)
    assert asked(here) == {}


def test_popular_images(host: GlanceHost, here: Settings) -> None:
    """The most downloaded images that still exist, over all hosts."""
    ids = [image(host) for _ in range(3)]
    gone = image(host)
    uses = Usage(Ledger(here.ledger).database)
    uses.add("other1", {ids[0]: Use(1, 1, 1), ids[1]: Use(3, 1, 1), gone: Use(9, 1, 1)})
    uses.add("other2", {ids[0]: Use(4, 1, 1), ids[2]: Use(2, 1, 1)})
    host.client().delete(gone)
    write(here, "rules: [{match: {popular: {top: 2}}, copies: all}]")
    run(here)
    assert set(asked(here)) == set(ids[:2])


def test_only_its_own_share(host: GlanceHost, here: Settings) -> None:
    """Three hosts that each decide alone ask for two copies of each image, one zone's host for none of the other's."""
    tag = fresh()
    ids = {image(host, tag) for _ in range(6)}
    write(here, f"rules: [{{match: {{tag: {tag}}}, copies: 2}}, {{match: {{tag: {tag}}}, copies: 1, zones: [c]}}]")
    shares = []
    for name, zone in (("here", "a"), ("other1", "b"), ("other2", "b")):
        run(replace(here, host_name=name, host_zone=zone, host_url="http://127.0.0.9:1"))
        shares += [one.image_id for one in PrefetchRequests(Ledger(here.ledger).database).list(hosts=[name])]
    assert sorted(shares) == sorted([*ids, *ids])


def test_what_is_here_is_not_asked_for(host: GlanceHost, here: Settings) -> None:
    """A complete file is enough; one rule's wish for what is there is no request, its pin is carried all the same."""
    tag = fresh()
    there, missing = image(host, tag), image(host, tag)
    path = (here.cache_dir or Path()) / there
    keep(path, host.site.store_file(there).read_bytes())
    write(here, f"rules: [{{match: {{tag: {tag}}}, copies: all, pin: true}}]")
    run(here)
    assert set(asked(here)) == {missing}
    assert Pins(Ledger(here.ledger).database).of_host("here") == {there, missing}


def test_a_changed_file_takes_effect_at_once(host: GlanceHost, here: Settings) -> None:
    """The file is read again when it changes, and else only every few minutes; without a file nothing is wished."""
    first, second = fresh(), fresh()
    one, two = image(host, first), image(host, second)
    stocking = made(here)
    assert run(here, stocking) != [], "the file is named and is not there"
    write(here, f"rules: [{{match: {{tag: {first}}}, copies: all}}]")
    assert run(here, stocking) == []
    assert set(asked(here)) == {one}
    late = image(host, first)
    run(here, stocking)
    assert set(asked(here)) == {one}, "it is not time yet"
    write(here, f"rules: [{{match: {{tag: [{first}, {second}]}}, copies: all}}]")
    run(here, stocking)
    assert set(asked(here)) == {one, two, late}
    assert run(replace(here, rules_file=None)) == []


def test_a_bad_file_changes_nothing(host: GlanceHost, here: Settings) -> None:
    """It is a problem of the pass that names the file and the key; what was asked for before stays."""
    tag = fresh()
    one = image(host, tag)
    stocking = made(here)
    write(here, f"rules: [{{match: {{tag: {tag}}}, copies: all}}]")
    run(here, stocking)
    write(here, f"rules: [{{match: {{tag: {tag}}}, copys: all}}]")
    (problem,) = run(here, stocking)
    assert "rules.yaml: rule 1: copys is none of" in problem
    assert asked(here) == {one: "rule: rule 1"}


def test_more_than_fits_is_not_asked_for(host: GlanceHost, here: Settings) -> None:
    """Wishes stop below the low watermark, the most wanted first, and the rest is named as a problem, not fetched."""
    high, low = fresh(), fresh()
    first = [image(host, high) for _ in range(4)]
    rest = [image(host, low) for _ in range(8)]
    image(host, high, size=200 * KIB)  # fits no host of this size: not a wish at all
    write(
        here,
        f"rules: [{{name: low, match: {{tag: {low}}}, copies: all}},"
        f" {{name: high, match: {{tag: {high}}}, copies: all, priority: high}}]",
    )
    small = replace(here, max_bytes=100 * KIB, low_watermark_percent=75)
    (problem,) = run(small)
    found = asked(small)
    assert sorted(found.values()) == ["rule: high"] * 4 + ["rule: low"] * 3
    assert set(first) <= set(found) <= set(first) | set(rest)
    assert f"5 copies that are wished for ({5 * 10 * KIB} bytes) do not fit" in problem


def test_what_ended_is_not_asked_for_at_once(host: GlanceHost, here: Settings) -> None:
    """A copy that failed or was cancelled is asked for again after an hour, not in every pass; an open one stands."""
    tag = fresh()
    failed, cancelled, still = (image(host, tag) for _ in range(3))
    write(here, f"rules: [{{match: {{tag: {tag}}}, copies: all}}]")
    run(here)
    copies = PrefetchRequests(Ledger(here.ledger).database)
    copies.failed(failed, "here", "no source")
    copies.cancel([cancelled], ["here"])
    run(here)
    assert {one.image_id for one in copies.list(states=[State.WAITING])} == {still}
    then = datetime.now(UTC) - timedelta(seconds=AGAIN_SECONDS + 60)
    Ledger(here.ledger).database.change(tables.copies.update().values(finished_at=then))
    run(here)
    assert {one.image_id for one in copies.list(states=[State.WAITING])} == {failed, cancelled, still}


def test_without_a_ledger_nothing_is_decided(host: GlanceHost, here: Settings) -> None:
    """A host that cannot see the others does not take itself for the only one."""
    write(here, "rules: [{match: {name: '*'}, copies: 1}]")
    with pytest.raises(LedgerError):
        run(replace(here, ledger=f"sqlite:///{here.cache_dir}/none.sqlite"))


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution with policies of its own."""
    folder = tmp_path / "site-packages"
    (folder / "tested-1.dist-info").mkdir(parents=True)
    (folder / "tested-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tested\nVersion: 1\n")
    (folder / "tested-1.dist-info" / "entry_points.txt").write_text(
        "[glance_replicas.policies]\nlargest = tested:Largest\nbroken = tested:Broken\nodd = tested:Odd\n"
        "mixed = tested:Mixed\nabsent = tested:NoSuchName\n"
    )
    (folder / "tested.py").write_text(
        """
from glance_replicas.ledger.pins import Pins
from glance_replicas.prefetch.policy import Priority, Wish

class Largest:
    def __init__(self, settings):
        self.name = settings.host_name

    def wishes(self, world):
        assert world.here == self.name and len(world.hosts) == 3
        largest = max(world.images(), key=lambda one: one.image.size)
        yield Wish(largest.image.id, "the largest", Priority.NORMAL)

class Broken(Largest):
    def wishes(self, world):
        yield Wish(next(world.images()).image.id, "a wish before the end")
        raise RuntimeError("out of order")

class Odd(Largest):
    def wishes(self, world):
        yield "an image"

class Mixed(Largest):
    def wishes(self, world):
        yield "an image"
        for one in world.images():
            yield Wish(one.image.id, "mixed")
        yield Wish("no id", "mixed")
"""
    )
    monkeypatch.syspath_prepend(folder)
    ExtensionManager.ENTRY_POINT_CACHE.clear()  # a process looks for entry points once
    yield
    ExtensionManager.ENTRY_POINT_CACHE.clear()


@pytest.mark.usefixtures("plugins")
def test_a_policy_of_ones_own(host: GlanceHost, here: Settings) -> None:
    """An installed entry point decides beside the rules."""
    tag = fresh()
    one, largest = image(host, tag), image(host, size=900 * KIB)
    write(here, f"rules: [{{name: gold, match: {{tag: {tag}}}, copies: all}}]")
    assert run(replace(here, policies=("largest", "rules"))) == []
    assert asked(here) == {largest: "the largest", one: "rule: gold"}


def test_an_image_with_capitals_in_its_id_is_one_of_them(host: GlanceHost, here: Settings) -> None:
    """Any user may make one: it is wished for as the others are, and costs none of them its copy."""
    tag = fresh()
    wanted = {image(host, tag), image(host, tag, id="ABCDEF01-2345-4678-9ABC-DEF012345678"), image(host, tag)}
    write(here, f"rules: [{{name: gold, match: {{tag: {tag}}}, copies: all}}]")
    assert run(here) == []
    assert asked(here).keys() == wanted


def test_capitals_stop_no_rule_on_any_database(here: Settings, glance_database_url: str) -> None:
    """The same where the catalogue and the ledger are on SQLite, PostgreSQL and MariaDB: the images made before and
    after the odd one are asked for, and it under Glance's own spelling."""
    url = glance_database_url
    names = [f"70000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    names.insert(2, "ABCDEF01-2345-4678-9ABC-DEF012345678")
    tagged = "INSERT INTO image_tags (image_id, value, created_at, updated_at, deleted)"
    for name in names:
        add_image(url, name, b"bytes")
        query(url, f"{tagged} VALUES (:id, 'gold', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, :no)", id=name, no=False)
    mine = replace(here, database=url, ledger=url)
    ledger = Ledger(url)
    ledger.upgrade()
    ledger.heartbeat(Host("here", "a", "http://127.0.0.9:1"))
    ledger.close()
    write(mine, "rules: [{name: gold, match: {tag: gold}, copies: all}]")
    assert [run(mine) for _ in range(2)] == [[], []]
    assert asked(mine).keys() == set(names)


def test_an_empty_image_is_asked_for_by_no_pass(host: GlanceHost, here: Settings) -> None:
    """No host keeps a copy of nothing: no pass asks for one, nor complains of it."""
    tag = fresh()
    empty, one = image(host, tag, size=0), image(host, tag)
    write(here, f"rules: [{{match: {{tag: {tag}}}, copies: all}}]")
    assert [run(here) for _ in range(2)] == [[], []]
    assert (empty in asked(here), one in asked(here)) == (False, True)


@pytest.mark.usefixtures("plugins")
def test_one_odd_wish_costs_no_other(host: GlanceHost, here: Settings) -> None:
    """What is no wish for an image is a problem of the pass, named once; the policy's wishes before and after count."""
    one = image(host)
    (problem,) = run(replace(here, policies=("mixed",)))
    assert problem == "stocking: policy mixed: 2 of its answers are no requests for an image"
    assert one in asked(here)


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "words"),
    [("broken", "out of order"), ("odd", "no request"), ("absent", "NoSuchName"), ("nobody", "nobody")],
)
def test_a_broken_policy_costs_its_own_wishes_only(host: GlanceHost, here: Settings, name: str, words: str) -> None:
    """It is a problem of the pass; what it wished before it broke is not asked for, the others' wishes are."""
    tag = fresh()
    one = image(host, tag)
    write(here, f"rules: [{{name: gold, match: {{tag: {tag}}}, copies: all}}]")
    (problem,) = run(replace(here, policies=(name, "rules")))
    assert problem.startswith(f"stocking: policy {name}: ")
    assert words in problem
    assert asked(here) == {one: "rule: gold"}


def test_hosts_end_up_with_what_the_rules_want(tmp_path: Path) -> None:
    """Three hosts, one file on disk: after their passes each image is where it is wanted, verified and registered.

    A changed file takes effect with the next passes, and nothing goes because of it.
    """
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{match: {tag: golden}, copies: all, pin: true}, {match: {tag: plain}, copies: 2}]")
    options = {"replicas": {"rules_file": str(rules), "janitor": "false"}}
    with GlanceSite(tmp_path / "site") as site:
        serving = site.add_host("127.0.0.2", processes=1, options=options)
        others = [site.add_host(f"127.0.0.{n}", options=options, start=False) for n in (3, 4)]
        hosts = [serving, *others]
        ledger = Ledger(site.ledger_url)
        for one in hosts:
            ledger.heartbeat(Host(one.name, one.zone, one.url))
        golden, plain, other = image(serving, "golden"), image(serving, "plain"), image(serving, "other")

        def passes() -> dict[str, int]:
            for one in hosts:
                done = replica().run("--config-file", one.config_file, "janitor", "--once")
                assert done.status == 0, done.err
            return {name: sum(_has(one, name) for one in hosts) for name in (golden, plain, other)}

        assert passes() == {golden: 3, plain: 2, other: 0}
        assert len(Pins(ledger.database).all([golden])) == 3
        rules.write_text("rules: [{match: {tag: other}, copies: 1}]")
        assert passes() == {golden: 3, plain: 2, other: 1}
        ledger.close()


def _has(host: GlanceHost, image_id: str) -> bool:
    """A verified file with the right bytes and a row, or neither."""
    path, url = host.cache_dir / image_id, replica_url(host.url, image_id)
    rows = [row["url"] for row in host.site.locations(image_id)]
    assert path.exists() == (url in rows)
    if path.exists():
        assert path.read_bytes() == host.site.store_file(image_id).read_bytes()
        assert not path.stat().st_mode & 0o222
    return path.exists()
