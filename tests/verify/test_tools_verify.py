"""`replica list` and `replica verify` on a real site: what an operator reads, and the exit status."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from services.web.faulty import FaultyServer
from support.programs import Desk

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000

NOW = "2026-01-01 00:00:00"


def rows(desk: Desk, *words: object) -> list[dict[str, Any]]:
    return list(desk.run(*words, "-f", "json").rows)


@pytest.fixture(scope="module")
def web() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def test_an_intact_image_is_intact(desk: Desk) -> None:
    """Exit 0, a table, and a sum that says how many were looked at."""
    done = desk.run("verify", desk.image(DATA))
    assert (done.status, done.err) == (0, "")
    assert "1 location verified: 1 intact" in done.out


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [(DATA[:-1] + b"!", "corrupt"), (bytes(len(DATA)), "corrupt"), (DATA[:-1], "wrong_size"), (None, "missing")],
)
def test_damage_is_named_with_the_next_command(desk: Desk, damage: bytes | None, verdict: str) -> None:
    """Exit 1; the line names image, place and fault, the next one the command that removes it."""
    image = desk.image(DATA, "alpine")
    path = desk.add_file(image, damage)
    done = desk.run("verify", image)
    assert done.status == 1
    assert f"image {image} (alpine): {verdict} in store fast at file://{path}" in done.out
    assert f"    next: replica repair {image}; or, to remove it: replica prune {image} --state {verdict}\n" in done.out
    assert f"2 locations verified: 1 intact, 1 {verdict}" in done.out


def test_bad_ones_come_first(desk: Desk) -> None:
    """In the table damage stands above what is intact."""
    image = desk.image(DATA)
    desk.add_file(image, None)
    assert [row["Verdict"] for row in rows(desk, "verify", image)] == ["missing", "intact"]


def test_the_last_copy_is_not_offered_for_removal(desk: Desk) -> None:
    """When no intact copy was seen the advice is to keep everything."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"gone bad")
    done = desk.run("verify", image)
    assert done.status == 1
    assert "keep everything, and restore the image" in done.out
    assert "prune" not in done.out


def test_a_cached_copy_is_where_to_restore_from(desk: Desk, web: FaultyServer) -> None:
    """With the durable copy damaged and a cached one intact, the advice names the cached one."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"gone bad")
    web.put(f"/replicas/{image}", DATA)
    url = desk.add_replica(image, web.url)
    assert f"next: replica repair {image}, from the one cached on api9 at {url}" in desk.run("verify", image).out


def test_out_of_reach_is_not_damage(desk: Desk) -> None:
    """A refused connection is exit 3, and nobody is told to prune."""
    image = desk.image(DATA)
    desk.add_replica(image, "http://127.0.0.9:1")
    done = desk.run("verify", image)
    assert done.status == 3
    assert "unreachable cached on api9" in done.out
    assert f"make sure that host api9 answers, then: replica verify {image}" in done.out


def test_damage_wins_over_not_known(desk: Desk) -> None:
    """Both at once: exit 1, both are stated."""
    image = desk.image(DATA)
    desk.add_replica(image, "http://127.0.0.9:1")
    desk.add_file(image, None)
    done = desk.run("verify", image)
    assert done.status == 1
    assert "3 locations verified: 1 intact, 1 missing, 1 unreachable" in done.out


def test_size_evidence_reads_nothing_and_says_so(desk: Desk, web: FaultyServer) -> None:
    """--evidence size passes a corrupt copy of the right length, reads no body, and the result says `size`."""
    image = desk.image(DATA)
    web.put(f"/replicas/{image}", bytes(len(DATA)))
    desk.add_replica(image, web.url)
    found = rows(desk, "verify", image, "--evidence", "size")
    assert [(row["Verdict"], row["Evidence"]) for row in found] == [("intact", "size")] * 2
    assert web.reads(f"/replicas/{image}") == 0


def test_recent_results_are_skipped_and_damage_is_not(desk: Desk) -> None:
    """--max-age leaves out what was intact, as deep, and always looks at damage again."""
    image = desk.image(DATA)
    desk.add_file(image, None)
    desk.run("verify", image, "--evidence", "size")
    assert len(rows(desk, "verify", image, "--max-age", "1h")) == 2  # a size is not as deep as full
    again = desk.run("verify", image, "--max-age", "1h")
    assert again.status == 1
    assert "1 location verified: 1 missing; 1 skipped, found intact lately" in again.out


def test_dry_run_looks_at_nothing(desk: Desk, web: FaultyServer) -> None:
    """--dry-run lists what would be looked at, and nothing is read or recorded."""
    image = desk.image(DATA)
    web.put(f"/replicas/{image}", DATA)
    desk.add_replica(image, web.url)
    assert len(rows(desk, "verify", image, "--dry-run")) == 2
    assert not web.requests(f"/replicas/{image}")
    assert {row["Verdict"] for row in rows(desk, "list", image)} == {None}


def test_json_lines_stream_and_end_with_the_sum(desk: Desk) -> None:
    """-f jsonl: one object per location, the sum last; the advice is on stderr."""
    image = desk.image(DATA)
    desk.add_file(image, None)
    done = desk.run("verify", image, "-f", "jsonl")
    *found, last = [json.loads(line) for line in done.out.splitlines()]
    assert sorted(row["Verdict"] for row in found) == ["intact", "missing"]
    assert last["summary"]["verdicts"] == {"intact": 1, "missing": 1}
    assert f"replica prune {image}" in done.err


def test_a_rate_is_kept(desk: Desk) -> None:
    """--max-bytes-per-second makes reading 2 MiB at 1 MiB a second last about two seconds."""
    image = desk.image(bytes(2 << 20))
    (row,) = rows(desk, "verify", image, "--max-bytes-per-second", "1M")
    assert 1.5 < row["Seconds"] < 6


def test_filters_choose_locations(desk: Desk) -> None:
    """--kind, --host, --name and --owner each leave the rest out."""
    name = f"unique-{uuid.uuid4()}"
    image = desk.image(DATA, name)
    desk.add_replica(image, "http://127.0.0.9:1", host="api7")
    for words, kinds in (
        (["--kind", "cached"], ["cached"]),
        (["--kind", "durable"], ["file"]),
        (["--kind", "file"], ["file"]),
        (["--kind", "rbd"], []),
        (["--host", "api7"], ["cached"]),
        (["--owner", "p1"], ["file", "cached"]),
        (["--owner", "p2"], []),
    ):
        assert [row["Kind"] for row in rows(desk, "list", "--name", name, *words)] == kinds, words


def test_filters_by_what_images_and_locations_are(desk: Desk) -> None:
    """--tag and --property, repeated, want all of them; --store, --zone, --state leave the rest out; so in verify."""
    name = f"unique-{uuid.uuid4()}"
    image, other = desk.image(DATA, name), desk.image(DATA, name)
    desk.add_replica(image, "http://127.0.0.9:1", host="api7")
    for value in ("a", "b"):
        tag = "INSERT INTO image_tags (image_id, value, created_at, deleted) VALUES (:image, :value, :now, false)"
        desk.site.rows(tag, image=image, value=value, now=NOW)
    made = "INSERT INTO image_properties (image_id, name, value, created_at, deleted) VALUES (:i, :n, :v, :now, false)"
    desk.site.rows(made, i=image, n="os", v="debian", now=NOW)
    desk.site.rows(made, i=other, n="os", v="Debian", now=NOW)
    desk.run("verify", other)
    for words, found in (
        (["--tag", "a"], [image, image]),
        (["--tag", "a", "--tag", "b"], [image, image]),
        (["--tag", "a", "--tag", "c"], []),
        (["--property", "os=debian"], [image, image]),
        (["--property", "os=debian", "--property", "arch=x"], []),
        (["--store", "fast", "--kind", "durable"], sorted([image, other])),
        (["--store", "nowhere"], []),
        (["--zone", "z9"], [image]),
        (["--zone", "z8"], []),
        (["--state", "intact"], [other]),
        (["--state", "never"], [image, image]),
    ):
        assert [row["Image"] for row in rows(desk, "list", "--name", name, *words)] == found, words
    done = desk.run("verify", "--name", name, "--tag", "a", "--kind", "durable", "-f", "json")
    assert [row["Image"] for row in json.loads(done.out)] == [image]
    assert desk.run("list", "--property", "os").status == 2


def test_list_shows_the_last_verdict(desk: Desk) -> None:
    """Before a verification there is no verdict; after it verdict, evidence and time."""
    image = desk.image(DATA)
    assert rows(desk, "list", image)[0]["Verdict"] is None
    desk.run("verify", image)
    (row,) = rows(desk, "list", image)
    assert (row["Verdict"], row["Evidence"], row["Size"]) == ("intact", "full", len(DATA))
    assert row["Checked"].endswith("+00:00")


def test_no_password_is_shown(desk: Desk) -> None:
    """The user and password of a location's URL appear in no output."""
    image = desk.image(DATA)
    desk.site.add_location(image, "swift+http://user:secret@127.0.0.9:1/v1/c/o", {"store": "fast"})
    for words in (["list", image], ["verify", image, "-f", "json"], ["verify", image]):
        done = desk.run(*words)
        assert "127.0.0.9" in done.out
        assert "secret" not in done.out + done.err


def test_names_cannot_write_on_the_terminal(desk: Desk) -> None:
    """Control characters that a user put into a name are shown as escapes."""
    done = desk.run("list", desk.image(DATA, "evil\x1b[2Jname"))
    assert "evil\\x1b[2Jname" in done.out
    assert "\x1b" not in done.out


def test_an_image_without_locations_is_damage(desk: Desk) -> None:
    """An active image that nobody can download is exit 1, not `all intact`."""
    image = desk.image(DATA)
    desk.site.rows("UPDATE image_locations SET deleted = 1, status = 'deleted' WHERE image_id = :image", image=image)
    done = desk.run("verify", image)
    assert done.status == 1
    assert f"image {image} has no location at all" in done.err


@pytest.mark.parametrize("command", ["list", "verify"])
def test_an_unknown_image_is_not_all_good(desk: Desk, command: str) -> None:
    """An id without a row is exit 3 and named."""
    unknown = uuid.uuid4()
    done = desk.run(command, unknown)
    assert done.status == 3
    assert f"image {unknown}: there is no such image in the catalogue" in done.err


def test_a_queued_image_is_said_to_be_queued(desk: Desk) -> None:
    """An image that has no bytes yet is told from one that does not exist."""
    queued = desk.host.client().create("later")["id"]
    assert "its status is queued" in desk.run("verify", queued).err


def test_nothing_named_is_a_usage_error(desk: Desk) -> None:
    """Without ids, filters or --all nothing is looked at."""
    done = desk.run("verify")
    assert done.status == 2
    assert "nothing named: give image ids, or a filter such as" in done.err


def test_selecting_nothing_is_not_all_good(desk: Desk) -> None:
    """A filter that matches no location is exit 3."""
    done = desk.run("verify", "--host", "no-such-host")
    assert done.status == 3
    assert "nothing to verify" in done.err


def test_all_looks_at_everything(desk: Desk) -> None:
    """--all takes in every image of the site, the oldest look first."""
    listed = rows(desk, "list")
    due = rows(desk, "verify", "--all", "--dry-run", "--evidence", "size")
    assert len(due) == len(listed) > 5
    times = [row["Checked"] or "" for row in due]
    assert times == sorted(times)
