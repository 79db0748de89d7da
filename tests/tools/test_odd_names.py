"""Names that users choose: one line for each row in what scripts read by lines, and unchanged in csv and json."""

import csv
import io
import json
import re
from collections.abc import Iterator

import pytest
from support.programs import Desk

pytest_plugins = ["support.desk"]

FORGED = "x\n11111111-2222-4333-8444-555555555555 corrupt"
NAMES = [FORGED, "a\tb", "a\rb", "a\u2028b", "a\x1b[2Jb", "=HYPERLINK(1)", "a\u202eb", "a\x85b", "plain name", "a\\nb"]


@pytest.fixture(scope="module")
def images(desk: Desk) -> dict[str, str]:
    """Image ids and their names."""
    found = {desk.image(b"bytes", name): name for name in NAMES}
    for image in found:
        desk.add_file(image, b"bytEs", f"second\x1b[2J\u2028{NAMES[0][:2]}" if image == next(iter(found)) else "second")
    return found


@pytest.mark.parametrize("command", ["list", "verify", "repair", "prune"])
def test_one_line_for_each_row(desk: Desk, images: dict[str, str], command: str) -> None:
    """`-f value` cannot be forged: as many lines as rows, each of printable characters, and the rows are right."""
    columns = ("-c", "Image", "-c", "Name", "-c", "URL")
    rows = desk.run(command, *images, "-f", "json").rows
    text = desk.run(command, *images, "-f", "value", *columns).out
    lines = text.split("\n")
    assert len(lines) - 1 == len(rows) >= len(images)
    assert lines[:-1] == text.splitlines()
    assert all(line.isprintable() for line in lines)
    assert sorted(line.split()[0] for line in lines if line) == sorted(row["Image"] for row in rows)


@pytest.mark.parametrize("command", ["list", "verify", "repair", "prune"])
def test_names_come_back_unchanged(desk: Desk, images: dict[str, str], command: str) -> None:
    """csv (cliff writes it with an escape character), json and jsonl are for programs: they read the name."""
    written = desk.run(command, *images, "-f", "csv", "-c", "Image", "-c", "Name").out
    assert {
        row["Image"]: row["Name"] for row in csv.DictReader(io.StringIO(written, newline=""), escapechar="\\")
    } == images
    assert {row["Image"]: row["Name"] for row in desk.run(command, *images, "-f", "json").rows} == images
    lines = desk.run(command, *images, "-f", "jsonl").out.split("\n")
    rows = [json.loads(line) for line in lines if line]
    assert {row["Image"]: row["Name"] for row in rows if "Image" in row} == images


def test_names_of_files_make_no_line(desk: Desk) -> None:
    """What `audit` finds in a store has the name somebody gave it: one line each all the same; JSON gives it back."""
    path = desk.site.store_dir / f"{FORGED}\x1b[2J"
    path.write_bytes(b"dark")
    words = ("audit", "--store", "fast", "--grace", "0s")
    try:
        rows, done = desk.run(*words, "-f", "json").rows, desk.run(*words, "-f", "value", "-c", "Name")
    finally:
        path.unlink()
    assert str(path) in {row["Name"] for row in rows}, rows
    assert len(done.out.split("\n")) - 1 == len(rows)
    assert all(line.isprintable() for line in (*done.out.split("\n"), *done.err.split("\n")))


def test_what_is_said_below_a_table_is_one_line_each(desk: Desk, images: dict[str, str]) -> None:
    """No name ends a line of the advice, begins another, or changes the terminal."""
    done = desk.run("verify", *images)
    for line in (*done.out.split("\n"), *done.err.split("\n")):
        assert line.isprintable()
        assert not line.startswith("11111111")


URLS = [
    *("", "x", "://", "http://[", "file://[::1", "http://h:port/x", "http://h:99999/x", "http://", "file:", "file://"),
    *("swift://", "swift+https://a:b@[/c/o", "s3://", "s3+https://AKIA:se/cret@[/b/o", "rbd://", "rbd://a/b/c"),
    *("cinder://", "vsphere://[?dsName=x", "file:///%00", "file:///%zz", "\u202e://\x1b[2J", "http://h/\n\x85/x"),
]
METADATA = [
    *("", "{", "[]", "5", "null", '"x"', '{"store": 5}', '{"store": null}', '{"store": ["fast"]}', '{"store": "gone"}'),
    *('{"replica_host": 5}', '{"replica_host": ["api1"]}', '{"replica_host": ""}', '{"replica_host": "a\\nb"}'),
    *('{"replica_zone": {}, "replica_host": "api1"}', '{"backend": "fast"}', '{"\\ud800": "\\ud800"}'),
]


@pytest.fixture(scope="module")
def odd(desk: Desk) -> Iterator[list[str]]:
    """Images with an intact copy, each with one more row as nobody should have written it; they are deleted again."""
    made = []
    for url, metadata in (*((url, '{"store": "fast"}') for url in URLS), *(("file:///none", one) for one in METADATA)):
        made.append(desk.image(b"bytes"))
        desk.site.add_location(made[-1], url, {"store": "odd"})
        text = "UPDATE image_locations SET meta_data = :text WHERE image_id = :id AND value = :url"
        desk.site.rows(text, text=metadata, id=made[-1], url=url)
    yield made
    for image in made:
        desk.site.rows("UPDATE image_locations SET deleted = 1, status = 'deleted' WHERE image_id = :id", id=image)
        desk.site.rows("UPDATE images SET deleted = 1, status = 'deleted' WHERE id = :id", id=image)
        desk.site.store_file(image).unlink()


PROGRAMS = ["list", "verify", "prune", "prune --duplicates", "repair", "report", "report --worst 99", "prune --cached"]
CLAIMS = {one for one in METADATA if '"replica_host": ' in one}  # to be ours, which `prune --cached` takes
NAMED = {  # whose rows are named, where it is not all of them
    "prune --duplicates": set(METADATA[1:6]),  # no metadata can be read: what twins of it there are is not known
    "prune --cached": {*METADATA[1:6], *CLAIMS},
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_rows_that_cannot_be_understood(desk: Desk, odd: list[str], program: str) -> None:
    """No row stops a program, whatever its URL and its metadata are: no traceback, an exit status of ours, and the
    image of each row that it could take for something else is named."""
    if program.startswith("report"):
        desk.run("verify", *odd)
    done = desk.run(*program.split(), *odd)
    said = done.out + done.err
    assert "Traceback" not in done.err, done.err[-3000:]
    assert done.status in (0, 1, 3), done.err
    assert "se/cret" not in said
    named = [label for image, label in zip(odd, [*URLS, *METADATA], strict=True) if image in said]
    if program == "report":
        assert "10 of 39 images with trouble; to see all of them, add: --worst 39" in done.out
    else:
        wanted = NAMED.get(program)
        assert named == [one for one in (*URLS, *METADATA) if wanted is None or one in wanted]


def test_an_audit_of_rows_that_cannot_be_understood(desk: Desk, odd: list[str]) -> None:
    """No such row stops `audit`, which takes no file of an intact row for one that nobody knows.

    Rows that name the store and nothing that can be in it are said, with their images: of these it judged nothing.
    """
    words = ("audit", "--store", "fast", "--grace", "0s")
    done = desk.run(*words, "-f", "json")
    assert "Traceback" not in done.err, done.err[-3000:]
    assert done.status in (1, 3), done.err  # 1: other tests have left dark files there
    assert not {str(desk.site.store_file(image)) for image in odd} & {row["Name"] for row in done.rows}
    told = desk.run(*words)
    counted = re.search(r"(\d+) rows name this store and nothing that can be in it", told.out + told.err)
    assert counted, told.out
    assert int(counted[1]) >= len(URLS)  # other tests may have left such rows, too
    assert [image for image in odd if f"next: replica verify {image}" in told.out + told.err] == odd[: len(URLS)]
