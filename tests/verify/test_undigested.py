"""Images without a digest, as Nova's snapshots on Ceph are: told from what could not be asked, and compared."""

import json
from typing import Any

import pytest
from support.programs import Desk

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 500_000  # more than a sample


def undigested(desk: Desk, data: bytes = DATA) -> str:
    """An image of which Glance knows the size alone."""
    image = desk.image(data, "snapshot")
    text = "UPDATE images SET checksum = NULL, os_hash_algo = NULL, os_hash_value = NULL WHERE id = :id"
    desk.site.rows(text, id=image)
    return image


def summary(desk: Desk, *words: object) -> tuple[int, dict[str, Any]]:
    """The exit status of `verify`, and its sum."""
    done = desk.run("verify", *words, "-f", "jsonl")
    return done.status, json.loads(done.out.splitlines()[-1])["summary"]


def test_no_digest_is_told_from_no_answer(desk: Desk) -> None:
    """3 for both; with --allow-unverifiable 0 for the one and 3 for the other, and the sum counts them apart."""
    images = [desk.image(DATA), undigested(desk)]
    assert summary(desk, *images)[0] == 3
    status, counts = summary(desk, *images, "--allow-unverifiable")
    assert (status, counts["undigested"], counts["differing"]) == (0, 1, 0)
    assert counts["verdicts"] == {"intact": 1, "unverifiable": 1}
    done = desk.run("verify", *images, "--allow-unverifiable")
    assert "2 locations verified: 1 intact, 1 unverifiable; 1 of images without a digest" in done.out
    assert "next:" not in done.out
    desk.add_replica(images[1], "http://127.0.0.9:1")
    assert summary(desk, *images, "--allow-unverifiable")[0] == 3


@pytest.mark.parametrize("damage", [DATA[:-1], None])
def test_damage_that_needs_no_digest_is_found(desk: Desk, damage: bytes | None) -> None:
    """A wrong length and a file that is gone are status 1 all the same."""
    image = undigested(desk)
    desk.add_file(image, damage)
    assert summary(desk, image, "--allow-unverifiable")[0] == 1


def test_copies_that_differ_are_reported(desk: Desk) -> None:
    """One byte in one of two copies: status 1, whatever is allowed, and both places are named."""
    image = undigested(desk)
    path = desk.add_file(image, DATA[:-1] + b"!")
    done = desk.run("verify", image, "--allow-unverifiable")
    assert done.status == 1
    (line,) = (one for one in done.out.splitlines() if "copies differ" in one)
    assert f"file://{path}" in line
    assert str(desk.site.store_file(image)) in line
    assert summary(desk, image)[1]["differing"] == 1


@pytest.mark.parametrize("evidence", ["size", "stored", "sample", "full"])
def test_no_look_calls_such_a_copy_intact(desk: Desk, evidence: str) -> None:
    """What lists show of it is never a plain intact."""
    image = undigested(desk)
    desk.add_file(image, DATA)
    assert desk.run("verify", image, "--evidence", evidence).status == 3
    assert desk.run("verify", image, "--evidence", evidence, "--allow-unverifiable").status == 0
    assert {row["Verdict"] for row in desk.run("list", image, "-f", "json").rows} == {"unverifiable"}


def test_what_was_read_in_full_is_known_to_be(desk: Desk) -> None:
    """The last full verification is kept; nothing is overdue, and a night that allows it reads nothing again."""
    image = undigested(desk)
    assert desk.run("verify", image).status == 3
    assert len(desk.ledger.states([image], full=True)) == 1
    assert desk.run("verify", image, "--freshness", "--overdue", "1h").status == 0
    status, counts = summary(desk, image, "--max-age", "1h", "--allow-unverifiable")
    assert (status, counts["checked"], counts["skipped"]) == (0, 0, 1)
    assert summary(desk, image, "--max-age", "1h")[1]["checked"] == 1


def test_a_report_that_allows_it(desk: Desk) -> None:
    """Images without a digest are no trouble to a report that allows them; what could not be asked still is."""
    images = [desk.image(DATA), undigested(desk)]
    assert desk.run("verify", *images).status == 3
    assert desk.run("report", *images).status == 3
    done = desk.run("report", *images, "--allow-unverifiable")
    assert (done.status, images[1] in done.out) == (0, False)
    assert desk.run("report", images[1], "--allow-unverifiable").status == 0
    assert desk.run("report", *images, "--allow-unverifiable", "-f", "json").rows["copies_without_digest"] == 1
    desk.add_replica(images[1], "http://127.0.0.9:1")
    assert desk.run("verify", images[1]).status == 3
    done = desk.run("report", *images, "--allow-unverifiable")
    assert (done.status, images[1] in done.out) == (3, True)
