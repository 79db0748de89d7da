"""What a verdict means is said in one place, for every verdict there is and for those of newer versions."""

import re

import pytest
from support.documents import ROOT

from glance_replicas.model import Image, Location, Result
from glance_replicas.tools import advice, findings
from glance_replicas.tools.report_page import charts
from glance_replicas.tools.report_page.condition import Condition
from glance_replicas.verdict import Evidence, Nature, Verdict
from glance_replicas.verify.summary import IntactCopies, Summary

IMAGE = Image("x", "active", 1, None)
PLACE = Location("x", "https://web.host/x", {"store": "web"})


def test_each_verdict_has_its_symbol_and_one_of_three_gravities() -> None:
    """Symbols tell them apart; damage comes first, then what is not known; a fault of the path is not known."""
    assert len({one.symbol for one in Verdict}) == len(Verdict)
    assert all(len(one.symbol) == 1 for one in Verdict)
    ordered = sorted(Verdict, key=lambda one: one.gravity)
    assert [one.is_damage for one in ordered] == [True] * 3 + [False] * (len(Verdict) - 3)
    assert ordered[-1] is Verdict.INTACT
    assert {one for one in Verdict if one.is_path_fault} == {Verdict.UNREACHABLE, Verdict.DENIED, Verdict.STALLED}
    assert all(one.is_unknown for one in Verdict if one.is_path_fault)


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_can_be_shown(verdict: Verdict) -> None:
    """On the page, in the sum, and with a next step whose fields are filled in."""
    result = Result(PLACE, verdict, Evidence.FULL)
    assert charts.mark(result) == verdict.symbol
    assert (Condition.of(result), verdict.symbol) in {(kind, mark) for kind, mark, _ in charts.legend()}
    step = advice.next_step(IMAGE, result, IntactCopies())
    assert step
    assert "{" not in step


def test_each_verdict_is_explained() -> None:
    """docs/commands.md has each one, with what it is worth."""
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| ?(damage|not known|) ?\|$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE
    )
    worth = {Nature.INTACT: "", Nature.DAMAGE: "damage"}
    assert {word: kind for word, kind in rows if Verdict(word) == word} == {
        str(one): worth.get(one.nature, "not known") for one in Verdict
    }


def test_a_verdict_of_a_newer_version_is_unknown() -> None:
    """It is read, counted by its own word, and neither damage, nor intact, nor the fault of the path."""
    newer = Verdict("encrypted")
    assert newer is Verdict.UNKNOWN
    assert (newer.is_damage, newer.is_unknown, newer.is_path_fault) == (False, True, False)
    found = Summary()
    found.add(IMAGE, Result(PLACE, Verdict.INTACT, Evidence.FULL))
    assert not found.has_unknown
    found.run = {"intact": 1, "encrypted": 2}
    assert found.has_unknown
    assert not found.has_damage
    assert list(findings.lines(found, ""))[-1] == "the run is over; all of it: 1 intact, 2 encrypted"
