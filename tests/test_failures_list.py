"""docs/failures.md names tests that there are, and every case."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
LIST = (TESTS.parent / "docs" / "failures.md").read_text()


def text_of(file: str) -> str:
    """A file of tests, in whatever folder it is; nothing when there is none."""
    return "".join(path.read_text() for path in TESTS.rglob(f"{file}.py"))


def test_every_case_is_answered() -> None:
    """Every case of caches, tools, attackers and reports, once, with a test, a reason or the word open."""
    rows = re.findall(r"^\| (\d+) \| .+? \| (.+) \|$", LIST, re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*range(1, 66), *range(1, 84), *range(1, 144)]
    assert all("::test_" in text or "cannot occur" in text or "*open*" in text for _, text in rows)


def test_the_tests_exist() -> None:
    """A test that was renamed or removed is noticed here."""
    named = set(re.findall(r"(test_\w+)::(test_\w+)", LIST))
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not re.search(rf"^def {name}\(", text_of(file), re.MULTILINE)
    ]
    assert named
    assert missing == []
