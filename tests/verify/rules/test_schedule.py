"""Where a look is due, and how long ago places were verified."""

from datetime import UTC, datetime, timedelta

import pytest

from glance_replicas.model import Last
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.freshness import NEVER, OLDER, Freshness
from glance_replicas.verify.schedule import Schedule, judged_at

NOW = datetime(2026, 1, 31, tzinfo=UTC)
SIZE, FULL, STORED = Evidence.SIZE, Evidence.FULL, Evidence.STORED
INTACT, CORRUPT, UNREACHABLE = Verdict.INTACT, Verdict.CORRUPT, Verdict.UNREACHABLE
UNVERIFIABLE = Verdict.UNVERIFIABLE


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def schedule(evidence: Evidence = FULL, hours: float = 24, **more: bool) -> Schedule:
    return Schedule(evidence, NOW, ago(hours), **more)


@pytest.mark.parametrize(
    ("last", "spared"),
    [
        (None, False),
        (Last(INTACT, FULL, ago(1), INTACT, ago(1)), True),
        (Last(INTACT, FULL, ago(25), INTACT, ago(25)), False),
        (Last(INTACT, SIZE, ago(1)), False),
        (Last(INTACT, SIZE, ago(1), INTACT, ago(2)), True),
        (Last(INTACT, SIZE, ago(1), INTACT, ago(25)), False),
        (Last(CORRUPT, FULL, ago(1), CORRUPT, ago(1)), False),
        (Last(UNREACHABLE, FULL, ago(1), INTACT, ago(2)), False),
        (Last(INTACT, FULL, ago(-1), INTACT, ago(-1)), False),
        (Last(INTACT, SIZE, ago(1), Verdict.MISSING, ago(2)), False),
        (Last(UNVERIFIABLE, FULL, ago(1), UNVERIFIABLE, ago(1)), False),
    ],
)
def test_only_what_is_intact_as_deep_and_recent_is_spared(last: Last | None, spared: bool) -> None:
    """Damage, unknowns, shallower looks, old ones and those of a clock that was ahead leave a location due."""
    assert schedule().is_fresh(last) is spared


@pytest.mark.parametrize(
    ("last", "spared"),
    [
        (Last(UNVERIFIABLE, FULL, ago(1), UNVERIFIABLE, ago(1)), True),
        (Last(UNVERIFIABLE, SIZE, ago(1), UNVERIFIABLE, ago(2)), True),
        (Last(UNVERIFIABLE, SIZE, ago(1)), False),
        (Last(UNVERIFIABLE, Evidence.SAMPLE, ago(1), INTACT, ago(2)), False),
        (Last(UNREACHABLE, FULL, ago(1), UNVERIFIABLE, ago(2)), False),
        (Last(CORRUPT, FULL, ago(1), CORRUPT, ago(1)), False),
    ],
)
def test_what_cannot_be_verified_is_spared_where_that_is_accepted(last: Last, spared: bool) -> None:
    """A look as deep not long ago is enough; a sample that differed, or no answer, is not."""
    assert schedule(accepts_unverifiable=True).is_fresh(last) is spared


@pytest.mark.parametrize(
    ("last", "evidence", "spared"),
    [
        (Last(CORRUPT, FULL, ago(1), CORRUPT, ago(1)), FULL, True),
        (Last(UNREACHABLE, FULL, ago(1), INTACT, ago(25)), FULL, True),
        (Last(Verdict.WRONG_SIZE, SIZE, ago(1)), FULL, True),
        (Last(INTACT, FULL, ago(-1), INTACT, ago(-1)), FULL, True),
        (Last(INTACT, SIZE, ago(1), INTACT, ago(25)), FULL, False),
        (Last(INTACT, SIZE, ago(1)), STORED, True),
        (Last(CORRUPT, FULL, ago(25), CORRUPT, ago(25)), FULL, False),
    ],
)
def test_in_a_run_each_place_has_one_look(last: Last, evidence: Evidence, spared: bool) -> None:
    """Whatever came of it, and even if its clock was ahead: else a run would never end."""
    assert schedule(evidence, run=True).is_fresh(last) is spared


def test_a_look_in_full_that_failed_was_tried() -> None:
    """What cannot be reached does not stay in front of everything else as never verified."""
    assert schedule().tried_at(Last(UNREACHABLE, FULL, ago(1))) == ago(1)
    assert schedule().tried_at(Last(INTACT, SIZE, ago(1))) is None
    assert schedule(SIZE).tried_at(Last(INTACT, SIZE, ago(1))) == ago(1)


def test_a_histogram_counts_each_location_once() -> None:
    """By the last verification that told something; unknowns leave the age as it was, and sizes are added up."""
    found = Freshness(NOW, overdue_seconds=48 * 3600)
    lasts = [
        Last(INTACT, FULL, ago(1), INTACT, ago(1)),
        Last(INTACT, SIZE, ago(1), INTACT, ago(30)),
        Last(UNREACHABLE, FULL, ago(1), INTACT, ago(49)),
        Last(CORRUPT, FULL, ago(24 * 29), CORRUPT, ago(24 * 29)),
        Last(INTACT, SIZE, ago(1)),
        None,
    ]
    for last in lasts:
        found.add(judged_at(last, FULL), 10)
    counts = {band.name: (band.locations, band.bytes) for band in found.bands()}
    assert counts == {
        "hour": (1, 10),
        "day": (0, 0),
        "week": (2, 20),
        "4 weeks": (0, 0),
        OLDER: (1, 10),
        NEVER: (2, 20),
    }
    assert found.overdue == 4
