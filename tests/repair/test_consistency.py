"""The rule of audits: what is dark, what is lost, and everything that is neither."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glance_replicas.audit.consistency import Rows, dark, empty_part, exceeds, is_young, lost
from glance_replicas.model import Location
from glance_replicas.stores.contract import Listed

ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(*names: str, waiting: tuple[str, ...] = ()) -> Rows:
    """The catalogue: active rows, and rows that are not listed."""
    made = Rows()
    for number, name in enumerate(names):
        made.add(name, Location("i", name, row=number), True)
    for name in waiting:
        made.add(name, Location("i", name), False)
    return made


def listed(*names: str) -> Mapping[str, Listed]:
    return {name: Listed(name, 1, NOW) for name in names}


def names(found: list[Listed]) -> set[str]:
    return {one.name for one in found}


@given(st.sets(st.sampled_from("abcdefg")), st.sets(st.sampled_from("abcdefg")), st.sets(st.sampled_from("abcdefg")))
def test_the_two_differences(before: set[str], there: set[str], after: set[str]) -> None:
    """Dark is listed and in neither catalogue; lost is in both and not listed; nothing is both."""
    one, other = rows(*"abcdefg"), rows(*"abcdefg")  # a row keeps its number
    for made, kept in ((one, before), (other, after)):
        made.named = {name: place for name, place in made.named.items() if name in kept}
        made.claimed &= kept
    found, gone = names(dark(one, listed(*there).values(), other)), set(lost(one, listed(*there), other))
    assert found == there - before - after
    assert gone == (before & after) - there


def test_a_row_made_anew_is_not_lost() -> None:
    """The same name under another row before and after: something is going on, and nothing is said of it."""
    before, after = rows("a"), rows("other", "a")
    assert lost(before, {}, after) == {}


def test_a_row_that_waits_for_the_scrubber_spares_its_file() -> None:
    """Delayed delete: neither dark nor lost."""
    both = rows(waiting=("a",))
    assert names(dark(both, listed("a").values(), both)) == set()
    assert lost(both, {}, both) == {}


@pytest.mark.parametrize(
    ("row", "file"),
    [("/s/A", "/s/a"), ("/s/a%20b", "/s/a b"), ("/s//a", "/s/a"), ("/s/a", "/s/A"), ("/s/é", "/s/%c3%a9")],
)
def test_another_spelling_is_not_dark(row: str, file: str) -> None:
    """Case, percent-encoding and doubled slashes tell no two things apart where that would make one of them dark."""
    assert dark(rows(row), listed(file).values(), rows(row)) == []


def test_segments_belong_to_their_object() -> None:
    """Segments of an object that a row names are not dark, those of others are, each with its image."""
    both = rows(f"glance/{ID}")
    other = ID.replace("0", "1")
    there = listed(f"glance/{ID}-00001", f"glance/{ID}.a-00001", f"glance/{other}-00001", f"glance/{ID}.md5")
    found = dark(both, there.values(), both)
    assert names(found) == {f"glance/{other}-00001", f"glance/{ID}.md5"}
    assert {one.name: one.image_id for one in found} == {f"glance/{other}-00001": other, f"glance/{ID}.md5": None}


@pytest.mark.parametrize("name", ["x", f"{ID}.json", f"{ID}~", f"a{ID}", f"/s/{ID}/x", "", f"{ID}-1"])
def test_no_name_of_an_image(name: str) -> None:
    """What Glance would not name so has no image: it is never removed."""
    assert Listed(name, None, None).image_id is None


def test_an_empty_part_is_no_answer() -> None:
    """One of two folders lists nothing though rows name something in it; empty by right is no problem."""
    both = rows("/a/x", "/b/y")
    assert empty_part(("/a/", "/b/"), both, listed("/a/x")) == "/b/"
    assert empty_part(("/a/", "/c/"), both, listed("/a/x")) is None
    assert empty_part(("",), both, listed()) == ""


@pytest.mark.parametrize(
    ("age", "young"), [(timedelta(0), True), (timedelta(seconds=99), True), (timedelta(seconds=100), False)]
)
def test_grace(age: timedelta, young: bool) -> None:
    """Just under the grace time it is young, at it no more; a time to come, or none, is young."""
    assert is_young(Listed("a", 1, NOW - age), NOW, 100) is young
    assert is_young(Listed("a", 1, NOW + timedelta(days=1)), NOW, 100)
    assert is_young(Listed("a", 1, None), NOW, 100)


@pytest.mark.parametrize(
    ("part", "whole", "more"), [(10, 100, False), (11, 100, True), (1, 10, False), (1, 9, True), (0, 0, False)]
)
def test_the_share(part: int, whole: int, more: bool) -> None:
    """Exactly the percentage is allowed, one more is not."""
    assert exceeds(part, whole, Fraction(1, 10)) is more
