"""`replica prune` on a real site: what goes, what never goes, and what is written down."""

import functools
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from services.web.faulty import FaultyServer
from support.programs import Desk

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.ledger.ledger import Withdrawal
from glance_replicas.removal.causes import DAMAGED
from glance_replicas.removal.flow import ACT_SECONDS, Removal, Step
from glance_replicas.removal.proof import Proof, Refusal
from glance_replicas.removal.removal_facts import RemovalFacts, RemovalOrder
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.sources import Sources

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000


@pytest.fixture(scope="module")
def web() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def written(desk: Desk, image: str) -> list[Withdrawal]:
    """The withdrawals of this image in the ledger."""
    ledger = desk.ledger
    try:
        return [one for one in ledger.withdrawals(1000) if one.image_id == image]
    finally:
        ledger.close()


def test_without_yes_nothing_happens(desk: Desk) -> None:
    """The plan with its proof is shown, the catalogue and the ledger stay as they are."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    before = desk.urls(image)
    done = desk.run("prune", image, "-f", "json")
    (row,) = done.rows
    assert (done.status, row["Action"]) == (0, "remove")
    assert row["Proof"]["keeps"][0]["url"] == f"file://{desk.site.store_file(image)}"
    assert "1 location can go; nothing was done, add --yes to do it" in done.err
    assert desk.urls(image) == before
    assert written(desk, image) == []


@pytest.mark.parametrize(("damage", "state"), [(DATA[::-1], "corrupt"), (b"short", "wrong_size"), (None, "missing")])
def test_a_damaged_copy_goes(desk: Desk, damage: bytes | None, state: str) -> None:
    """With --yes the row goes and the proof is written down; the bytes are left where they are, and that is said."""
    image = desk.image(DATA)
    path = desk.add_file(image, damage)
    done = desk.run("prune", image, "--state", state, "--yes")
    assert done.status == 0
    assert "1 removed" in done.out
    assert f"left in store fast at file://{path}" in done.out
    assert desk.urls(image) == [f"file://{desk.site.store_file(image)}"]
    assert path.exists() is (damage is not None)
    (line,) = written(desk, image)
    assert line.reason.startswith(state)
    assert line.proof is not None
    assert json.dumps(dict(line.proof)).count("intact") == 1
    assert "@" in line.who
    assert line.finished_at is not None
    assert desk.host.client().download(image).content == DATA


def test_the_last_copies_stay_when_all_are_bad(desk: Desk) -> None:
    """Two damaged copies and no intact one: both are refused, exit 1."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"bad")
    desk.add_file(image, b"worse")
    done = desk.run("prune", image, "--yes")
    assert done.status == 1
    assert done.out.count("no other durable copy of the image is proven intact") >= 2
    assert len(desk.urls(image)) == 2


def test_a_cached_copy_does_not_replace_a_durable_one(desk: Desk, web: FaultyServer) -> None:
    """The only durable copy is damaged, a cached one is intact: nothing goes."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"bad")
    web.put(f"/replicas/{image}", DATA)
    desk.add_replica(image, web.url)
    done = desk.run("prune", image, "--yes")
    assert done.status == 1
    assert "the image has no other durable copy" in done.out
    assert len(desk.urls(image)) == 2


@pytest.mark.parametrize("faults", [{"status": 503}, {"status": 403}, {"html": True}, {"truncate_at": 100}])
def test_what_cannot_be_asked_stays(desk: Desk, web: FaultyServer, faults: dict[str, object]) -> None:
    """A copy that answers badly, rather than being bad, is kept: exit 3."""
    image = desk.image(DATA)
    desk.site.add_location(image, web.put(f"/plain/{image}", DATA, **faults), {"store": "web"})
    done = desk.run("prune", image, "--yes")
    assert done.status == 3
    assert ("may be another page" if "html" in faults else "its state is not known") in done.out
    assert len(desk.urls(image)) == 2


def test_the_same_file_under_two_names_is_one_copy(desk: Desk) -> None:
    """A hard link does not make --min-durable 2 true."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    second = desk.site.store_dir / f"link-{image}"
    second.hardlink_to(desk.site.store_file(image))
    desk.site.add_location(image, f"file://{second}", {"store": "fast"})
    done = desk.run("prune", image, "--min-durable", "2", "--yes")
    assert done.status == 1
    assert "1 other durable copy is proven intact, 2 must stay" in done.out
    assert len(desk.urls(image)) == 3


def test_cached_copies_go_by_order(desk: Desk) -> None:
    """--cached withdraws the row even of a host out of reach; its janitor finds the rest to do in the ledger."""
    image = desk.image(DATA)
    desk.add_replica(image, "http://127.0.0.9:1")
    done = desk.run("prune", image, "--cached", "--yes")
    assert done.status == 0
    assert "the file goes with the next pass of the janitor of host api9" in done.out
    assert desk.urls(image) == [f"file://{desk.site.store_file(image)}"]
    (line,) = written(desk, image)
    assert (line.host, line.finished_at) == ("api9", None)


def test_cached_copies_stay_when_the_durable_one_is_damaged(desk: Desk) -> None:
    """--cached never takes what may be the last good bytes."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"bad")
    desk.add_replica(image, "http://127.0.0.9:1")
    done = desk.run("prune", image, "--cached", "--yes")
    assert done.status == 1
    assert "no durable copy of the image is proven intact" in done.out
    assert len(desk.urls(image)) == 2
    assert written(desk, image) == []


def test_host_means_its_copies_only(desk: Desk) -> None:
    """--host takes the copies of that host from every image, and no others."""
    host = f"h{uuid.uuid4().hex[:8]}"
    images = [desk.image(DATA) for _ in range(2)]
    for image in images:
        desk.add_replica(image, "http://127.0.0.9:1", host=host)
        desk.add_replica(image, "http://127.0.0.8:1", host="other")
    assert desk.run("prune", "--host", host, "--yes").status == 0
    for image in images:
        assert desk.urls(image) == [
            f"file://{desk.site.store_file(image)}",
            f"http://127.0.0.8:1/replicas/{image}",
        ]


def test_a_users_own_location_is_left_alone(desk: Desk) -> None:
    """Metadata of ours on a URL that is none of ours: not touched, and mentioned."""
    image = desk.image(DATA)
    desk.site.add_location(image, "http://127.0.0.9:1/mine", {"store": "web", "replica_host": "api9"})
    done = desk.run("prune", image, "--cached", "--yes")
    assert "nothing to prune" in done.out
    assert "left alone, no registration of ours" in done.err
    assert len(desk.urls(image)) == 2


def test_too_many_removals_are_none(desk: Desk) -> None:
    """One more than --max-removals: nothing is done, exit 1; exactly as many: done."""
    host = f"h{uuid.uuid4().hex[:8]}"
    for image in (images := [desk.image(DATA) for _ in range(2)]):
        desk.add_replica(image, "http://127.0.0.9:1", host=host)
    done = desk.run("prune", "--host", host, "--max-removals", "1", "--yes")
    assert done.status == 1
    assert "2 removals are more than --max-removals 1, and none was done" in done.err
    assert all(len(desk.urls(image)) == 2 for image in images)
    assert desk.run("prune", "--host", host, "--max-removals", "2", "--yes").status == 0


def test_all_takes_what_the_ledger_knows(desk: Desk) -> None:
    """--all prunes what a verification has found damaged, and looks again first."""
    image, healed = desk.image(DATA), desk.image(DATA)
    desk.add_file(image, None)
    path = desk.add_file(healed, b"bad")
    assert desk.run("verify", image, healed).status == 1
    path.write_bytes(DATA)
    found = desk.run(
        "prune", "--all", "--state", "missing", "--state", "wrong_size", "--max-removals", "500", "-f", "json"
    )
    assert image in [row["Image"] for row in found.rows]
    assert healed not in [row["Image"] for row in found.rows]


def test_nothing_to_prune_is_said(desk: Desk) -> None:
    """An intact image: exit 0 and the words."""
    done = desk.run("prune", desk.image(DATA), "--yes")
    assert (done.status, done.out) == (0, "nothing to prune\n")


def test_no_ledger_no_removal(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without its tables prune shows its plan, but --yes refuses, and names the command that makes them."""
    image = desk.image(DATA)
    desk.add_file(image, None)
    conf = tmp_path_factory.mktemp("conf") / "glance-api.conf"
    text = desk.host.config_file.read_text()
    conf.write_text(text.replace(desk.ledger_url, f"sqlite:///{conf.parent}/empty.sqlite"))
    plan = desk.programs.run("--config-file", conf, "prune", image)
    assert (plan.status, "1 location can go" in plan.out) == (0, True)
    done = desk.programs.run("--config-file", conf, "prune", image, "--yes")
    assert done.status == 1
    assert "every change has to be recorded; run: replica db upgrade" in done.err
    assert len(desk.urls(image)) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing named"),
        (["--yes"], "nothing named"),
        (["--all", "--cached", "--state", "corrupt"], "not allowed with argument"),
        (["--all", "--state", "unreachable"], "invalid choice: 'unreachable'"),
        (["--all", "--min-durable", "0"], "'0' is not a whole number above 0"),
    ],
)
def test_what_is_asked_wrongly(desk: Desk, words: list[str], said: str) -> None:
    """Exit 2 and the reason."""
    done = desk.run("prune", *words)
    assert done.status == 2
    assert said in done.err


@pytest.fixture
def removal(desk: Desk) -> Iterator[Removal]:
    """What the command uses, in this process, so that a test may step in between plan and act."""
    catalogue, ledger = Catalogue(desk.site.database_url), desk.ledger
    reasons = RemovalFacts(catalogue, ledger, dead_after_seconds=3600)
    order = RemovalOrder(functools.partial(reasons.damaged, states=DAMAGED))
    yield Removal(catalogue, ledger, Sources([file_reader.Reader([desk.site.store_dir])]), order, workers=2)
    catalogue.close()
    ledger.close()


def planned(desk: Desk, removal: Removal, image: str) -> Step:
    """The one step of a plan for this image."""
    found = Catalogue(desk.site.database_url).image(image)
    assert found is not None
    (step,) = removal.plan(found, found.locations)
    assert isinstance(step.answer, Proof)
    return step


def withdraw_row(desk: Desk, row: int) -> None:
    desk.site.rows("UPDATE image_locations SET deleted = 1, status = 'deleted' WHERE id = :row", row=row)


def test_a_copy_that_vanished_since_the_plan_is_not_relied_on(desk: Desk, removal: Removal) -> None:
    """The catalogue is read again under the lock: the copy of the proof is gone, so the target stays."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    step = planned(desk, removal, image)
    withdraw_row(desk, desk.site.locations(image)[0]["id"])
    done = removal.act(step)
    assert isinstance(done.answer, Refusal)
    assert not done.removed
    assert len(desk.urls(image)) == 1
    (line,) = written(desk, image)
    assert line.finished_at is not None, "a request that was refused stays open for a janitor"


def test_of_two_prunes_one_removes(desk: Desk, removal: Removal) -> None:
    """The row went between plan and act: the second prune says so and removes nothing else."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    step = planned(desk, removal, image)
    withdraw_row(desk, desk.site.locations(image)[1]["id"])
    done = removal.act(step)
    assert isinstance(done.answer, Refusal)
    assert "no longer in the catalogue" in done.answer.reason
    assert len(desk.urls(image)) == 1


def test_an_image_deleted_since_the_plan_is_no_error(desk: Desk, removal: Removal) -> None:
    """Deleting the image meanwhile ends in a refusal, not in a fault."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    step = planned(desk, removal, image)
    desk.host.client().delete(image)
    assert not removal.act(step).removed


def test_old_looks_are_looked_at_again(desk: Desk, removal: Removal) -> None:
    """The copy relied on went bad after the plan; looks that have aged are repeated, and the target stays."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    step = planned(desk, removal, image)
    desk.site.store_file(image).write_bytes(DATA[::-1])
    aged = replace(step, verified=replace(step.verified, ended=step.verified.ended - timedelta(seconds=ACT_SECONDS)))
    done = removal.act(aged)
    assert isinstance(done.answer, Refusal)
    assert "no other durable copy of the image is proven intact" in done.answer.reason
    assert len(desk.urls(image)) == 2
    assert written(desk, image) == []
