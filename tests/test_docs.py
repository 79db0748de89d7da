"""The documents say what this version does: commands, options, targets, names; and they build as a site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from services import environment
from support import documents
from support.documents import REFERENCE, ROOT, WRITTEN

ARCHITECTURE = ROOT / "ARCHITECTURE.md"


def said(command: list[str]) -> str:
    """What a program prints, of either kind."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_commands_in_backticks_are_known(path: Path) -> None:
    """Every `replica`, `openstack image replica` and `make` in backticks names a command and options there are."""
    lines = documents.lines_in_prose(path.read_text())
    assert [problem for line in lines for problem in documents.problems(line)] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_commands_in_blocks_are_parsed(path: Path) -> None:
    """Every such command line in a block of code is one that the real parser takes."""
    lines = documents.lines_in_blocks(path.read_text())
    assert [problem for line in lines for problem in documents.parse_faults(line)] == []


def test_examples_are_parsed() -> None:
    """So is the example of each command, in its help and in the reference."""
    examples = [
        command.load().example for command in documents.classes().values() if "glance_replicas" in command.value
    ]
    assert len(examples) > 25
    assert [problem for line in examples for problem in documents.parse_faults(line)] == []


def test_parser_refuses_what_is_wrong() -> None:
    """The checks above can fail."""
    assert documents.parse_faults("replica prune IMAGE --cached --dead-hosts")
    assert documents.parse_faults("replica verify IMAGE --evidence deep")
    assert documents.problems("replica verify --no-such IMAGE")
    assert documents.problems("replica nosuch")
    assert documents.problems("make nosuch")


def test_reference_is_that_of_the_program() -> None:
    """`make reference` changes nothing."""
    assert said([sys.executable, "docs/site/reference.py", "--check"]) == ""
    assert len(REFERENCE) > 30


@pytest.mark.slow
def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """`make docs`: every link, anchor and page is right, and no page takes a script, style, font or image of others."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "-c", "docs/site", "."]
    command += ["-d", str(tmp_path / "trees"), str(tmp_path / "site")]
    assert said(command) == ""
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 50
    foreign = r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//"
    assert [page.name for page in pages if re.search(foreign, page.read_text())] == []
    styles = list((tmp_path / "site").rglob("*.css"))
    assert [one.name for one in styles if re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", one.read_text())] == []


def test_names_in_the_architecture() -> None:
    """Every module and folder that ARCHITECTURE.md names, and every one of the decisions, is there."""
    texts = [ARCHITECTURE, *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    named = {
        name
        for text in texts
        for name in re.findall(r"`((?:replicas|middleware|tools|tests)/[\w/]+(?:\.py)?)`", text.read_text())
    }
    assert len(named) > 30
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    rooms = re.findall(r"^\| `(\w+/)` \|", ARCHITECTURE.read_text(), re.MULTILINE)
    assert len(rooms) > 12
    assert [room for room in rooms if not any((ROOT / top / room).is_dir() for top in ("", "replicas"))] == []
    for room, line in re.findall(r"^\| `(\w+)/` \|(.*)", ARCHITECTURE.read_text(), re.MULTILINE):
        inside = {path.stem for path in (ROOT / "replicas" / room).glob("*")}
        assert not inside or set(re.findall(r"`(\w+)`", line)) <= inside, room
    linked = re.findall(r"\]\(docs/decisions/([\w-]+\.md)\)", ARCHITECTURE.read_text())
    assert set(linked) == {path.name for path in texts[1:]}


def test_readme_names_what_make_knows() -> None:
    """The set-up commands of the README are there."""
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^ {4}make (\w+)", text, re.MULTILINE)) == {"setup", "demo", "test"}
    assert (ROOT / "bin" / "system-packages").exists()


def test_facts_about_glance_name_tests_there_are() -> None:
    """Each test that docs/glance.md names is there, so that a fact that is no longer one breaks something."""
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "glance.md").read_text())
    assert len(found) >= 5
    assert [f"{file}::{name}" for file, name in found if f"def {name}(" not in (ROOT / file).read_text()] == []


@pytest.mark.parametrize("document", WRITTEN, ids=lambda path: path.name)
def test_lines_of_documents_are_at_most_120_columns(document: Path) -> None:
    """Outside tables and code blocks, so that a difference of two versions can be read."""
    is_code, long = False, []
    for number, line in enumerate(document.read_text().splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if len(line) > 120 and not is_code and not line.startswith("    ") and not line.lstrip().startswith("|"):
            long.append(f"{document.name}:{number}")
    assert long == []


def test_lines_of_the_log_are_those_of_the_code() -> None:
    """What docs/operations.md quotes of the log stands so in the code; N, WHO, `why` and the like for what varies."""
    quoted = documents.log_lines((ROOT / "docs" / "operations.md").read_text())
    assert len(quoted) > 25
    texts = documents.texts_of_the_code()
    assert [line for line in quoted if not any(documents.fixed(line) in text for text in texts)] == []
