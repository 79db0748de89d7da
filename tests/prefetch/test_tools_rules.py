"""replica rules: what a rules file wants of a real site, and what of it is there."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.programs import Desk

from glance_replicas.model import Host

pytest_plugins = ["support.desk"]


@pytest.fixture
def tagged(desk: Desk) -> tuple[str, str]:
    """Two tagged images, one of them on api5; api5 and api6 live, in two zones."""
    ledger = desk.ledger
    for name, zone in (("api5", "z5"), ("api6", "z6")):
        ledger.heartbeat(Host(name, zone, f"http://127.0.0.{name[-1]}:9292", datetime.now(UTC)))
    ledger.close()
    here, nowhere = desk.image(b"one", "first", tags=["rules"]), desk.image(b"two", "second", tags=["rules"])
    desk.add_replica(here, "http://127.0.0.5:9292", host="api5")
    return here, nowhere


def test_sums_and_hosts(desk: Desk, tagged: tuple[str, str], tmp_path: Path) -> None:
    """Each rule with its sums; with --images each image with the hosts that have it and that are to have it."""
    here, nowhere = tagged
    file = tmp_path / "rules.yaml"
    file.write_text("""
    rules:
      - {name: both zones, match: {tag: rules}, copies: 1, per_zone: true, zones: [z5, z6]}
      - {name: three of one, match: {tag: rules, name: first}, copies: 3, zones: [z5, z6]}
      - {name: none, match: {tag: nothing has this}, copies: all}
    """)
    done = desk.run("rules", file, "-f", "json")
    assert done.status == 0
    assert [list(row.values()) for row in done.rows] == [
        ["both zones", 2, 4, 1, 3],
        ["three of one", 1, 3, 1, 2],
        ["none", 0, 0, 0, 0],
    ]
    rows = desk.run("rules", file, "--images", "-f", "json").rows
    hosts = {(row["Rule"], row["Image"]): (row["Wanted"], row["Present"], row["Missing"]) for row in rows}
    assert hosts == {
        ("both zones", here): (2, "api5", "api6"),
        ("both zones", nowhere): (2, None, "api5 api6"),
        ("three of one", here): (3, "api5", "api6 1 more host"),
    }


def test_what_is_wrong_is_said(desk: Desk, tmp_path: Path) -> None:
    """No file, a bad one and an absent one are mistakes of the caller: status 2, and the reason."""
    assert "rules_file is not set" in desk.run("rules").err
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{match: {tag: a}, copys: 1}]")
    done = desk.run("rules", file)
    assert (done.status, "did you mean copies?" in done.err) == (2, True)
    assert desk.run("rules", tmp_path / "none.yaml").status == 2
