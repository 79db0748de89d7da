"""A verification without a command: as an API, a janitor or a test calls it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from services.databases.schema import sqlite_database
from support.worlds.shelf import DATA, Shelf

from glance_replicas import settings
from glance_replicas.catalogue.selection import Selection
from glance_replicas.errors import ConfigError, Refused
from glance_replicas.ledger.best_effort import BestEffortLedger
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.flow import Verification, VerifyOptions
from glance_replicas.verify.schedule import EVERYTHING, Sample, Schedule
from glance_replicas.verify.work_queue import WorkQueue

ALL = Selection()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path, sqlite_database(tmp_path / "glance.sqlite"))
    yield made
    made.close()


def verification(
    shelf: Shelf, options: VerifyOptions, selection: Selection = ALL, *, ledger: Ledger | None = None
) -> tuple[Verification, list[str]]:
    """It, and what it notes."""
    conf, notes = shelf.store.parent / "glance-api.conf", list[str]()
    conf.write_text(f"[database]\nconnection = {shelf.database}\n")
    known = BestEffortLedger(ledger or shelf.ledger, notes.append)
    made = Verification(settings.load([str(conf)]), shelf.catalogue, known, selection, options, note=notes.append)
    return made, notes


def verdicts(shelf: Shelf, work: Verification) -> dict[str, Verdict]:
    """Of each image with one location."""
    return {image.id: result.verdict for image, result in work.results(shelf.sources)}


def three(shelf: Shelf) -> tuple[str, str, str]:
    """An image that is intact, one that is not, and one whose file is gone."""
    intact, corrupt, missing = shelf.image(), shelf.image(), shelf.image()
    shelf.add_file(intact)
    shelf.add_file(corrupt, DATA[::-1])
    shelf.add_file(missing, None)
    return intact, corrupt, missing


def test_what_it_finds_is_recorded_and_added_up(shelf: Shelf) -> None:
    """Every location once; the ledger has the verdicts, and the summary what they mean."""
    intact, corrupt, missing = three(shelf)
    work, notes = verification(shelf, VerifyOptions())
    assert [item.image.id for item in work.planned()] == [intact, corrupt, missing]
    work, notes = verification(shelf, VerifyOptions())
    expected = {intact: Verdict.INTACT, corrupt: Verdict.CORRUPT, missing: Verdict.MISSING}
    assert verdicts(shelf, work) == expected
    assert {image_id: one.verdict for (image_id, _), one in shelf.ledger.states(expected).items()} == expected
    summary = work.summary
    assert (summary.checked, summary.due, summary.has_damage, summary.has_unknown) == (3, 3, True, False)
    assert {image.id for image, _ in summary.problems()} == {corrupt, missing}
    assert notes == []


def test_what_is_fresh_is_left_out(shelf: Shelf) -> None:
    """Of all images by their keys, of named ones by what the ledger says of each; damage is never fresh."""
    intact, corrupt, missing = three(shelf)
    verdicts(shelf, verification(shelf, VerifyOptions())[0])
    for selection in (ALL, Selection(ids=(intact, corrupt, missing))):
        work, _ = verification(shelf, VerifyOptions(max_age_seconds=3600), selection)
        assert set(verdicts(shelf, work)) == {corrupt, missing}
        assert (work.summary.due, work.summary.skipped) == (2, 1)


def test_ids_that_are_no_images_are_told(shelf: Shelf) -> None:
    """A line for each, and the answer is not all there is to know; so is an image that nobody can download."""
    bare, absent = shelf.image(), "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
    work, notes = verification(shelf, VerifyOptions(), Selection(ids=(bare, absent)))
    assert verdicts(shelf, work) == {}
    assert notes == [
        f"image {absent}: there is no such image in the catalogue",
        f"image {bare} has no location at all: nobody can download it",
    ]
    assert (work.summary.nowhere, work.summary.absent) == (1, 1)
    assert work.summary.has_damage
    assert work.summary.has_unknown


def test_without_a_ledger_all_is_verified_and_said_once(shelf: Shelf, tmp_path: Path) -> None:
    """Its tables are missing: no verdict is read or kept, one line says so, and every location is read."""
    three(shelf)
    work, notes = verification(
        shelf, VerifyOptions(max_age_seconds=3600), ledger=Ledger(f"sqlite:///{tmp_path}/none.sqlite")
    )
    assert len(verdicts(shelf, work)) == 3
    assert [line.split(":")[0] for line in notes] == ["verdicts are neither read nor kept"]


def test_a_run_is_joined_with_the_same_options_only(shelf: Shelf) -> None:
    """What was found in it is not verified again; another depth is another run."""
    images = three(shelf)
    work, notes = verification(shelf, VerifyOptions(run="nightly"))
    found = work.results(shelf.sources)
    first = next(found)[0].id
    assert first in images
    found.close()  # type: ignore[attr-defined]  # a generator
    with pytest.raises(Refused, match="evidence: full there, size here"):
        verification(shelf, VerifyOptions(run="nightly", evidence=Evidence.SIZE))
    again, more = verification(shelf, VerifyOptions(run="nightly"))
    assert "goes on" in more[0]
    assert verdicts(shelf, again).keys() == set(images) - {first}
    assert again.summary.run == {"intact": 1, "corrupt": 1, "missing": 1}
    assert "begun" in notes[0]


@pytest.mark.parametrize("more", [{"max_age_seconds": 1.0}, {"sample": Sample("1M", bytes=1 << 20)}])
def test_a_run_takes_all_it_selects(more: dict[str, float | Sample]) -> None:
    """What would leave locations out of a run is refused before anything is asked."""
    with pytest.raises(ConfigError, match="a run verifies everything"):
        VerifyOptions(run="nightly", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("evidence", [Evidence.FULL, Evidence.SIZE])
def test_however_many_the_order_is_the_same(shelf: Shelf, evidence: Evidence) -> None:
    """Kept, by their keys, or in the order of the ledger: never verified first, then the least recently verified."""
    ids = [shelf.image() for _ in range(7)]
    for image_id in ids:
        shelf.add_file(image_id)
    for image_id in (ids[3], ids[0], ids[5], ids[1]):
        verdicts(shelf, verification(shelf, VerifyOptions(), Selection(ids=(image_id,)))[0])
    orders = []
    for kept, keys in ((100, 100), (0, 100), (0, 0)):
        queue = WorkQueue(ALL, Schedule(evidence, shelf.ledger.now()), EVERYTHING, kept=kept, keys=keys)
        images = BestEffortLedger(shelf.ledger).with_lasts(shelf.catalogue.images())
        found = [item.image.id for item in queue.stream(images, shelf.catalogue, shelf.ledger, lambda _: None)]
        orders.append([ids.index(image_id) for image_id in found])
    assert orders == [[2, 4, 6, 3, 0, 5, 1]] * 3
