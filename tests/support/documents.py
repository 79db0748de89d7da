"""The documents, the command lines in them, and what this version has to say of each line."""

import argparse
import ast
import contextlib
import functools
import importlib.metadata
import io
import re
import shlex
from typing import Any

from glance_replicas.tools.main import Replica
from support import ROOT

REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
WRITTEN = [
    *(ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
IMAGE = "9863bc76-76f8-4a32-8c20-74babcdad767"
_VARIES = "\0"
PROGRAM = r"(?:replica|replica-(?:list|verify|prune)|openstack image replica|make) [a-z-]"
SAMPLES = {"N": "1", "AGE": "7d", "SIZE": "500G", "$LARGE": IMAGE, "$IMAGE": IMAGE, "IMAGE": IMAGE, "ID": IMAGE}


def lines_in_blocks(text: str) -> list[str]:
    """Command lines that stand in a block of code, indented or fenced, behind a prompt or not; continued ones whole."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = re.findall(rf"^ {{4,}}(?:\$ )?({PROGRAM}.*)$", joined, re.MULTILINE)
    for block in re.findall(r"^```(?:console|sh|bash|shell)?\n(.*?)^```", joined, re.MULTILINE | re.DOTALL):
        found += re.findall(rf"^(?:\$ )?({PROGRAM}.*)$", block, re.MULTILINE)
    return found


def lines_in_prose(text: str) -> list[str]:
    """Command lines in backticks: often a part of one."""
    return re.findall(rf"(?<!`)`({PROGRAM}[^`]*)`", text)


def words(line: str) -> list[str]:
    """As a shell gives them to the first program of the line."""
    lexer = shlex.shlex(re.split(r" {2,}", line)[0], posix=True, punctuation_chars=";|>&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    found = []
    for word in lexer:
        if set(word) <= set(";|>&"):
            break
        found.append(word)
    return found


@functools.cache
def classes() -> dict[tuple[str, ...], Any]:
    """The class of each command by its words, the longest first."""
    entries = importlib.metadata.entry_points
    known = {("replica", *one.name.split("_")): one for one in entries(group="glance_replicas.commands")}
    known |= {("openstack", *one.name.split("_")): one for one in entries(group="openstack.image.v2")}
    return dict(sorted(known.items(), key=lambda item: -len(item[0])))


@functools.cache
def parsers(name: tuple[str, ...]) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The program's and the command's."""
    app = Replica()
    return app.parser, classes()[name].load()(app, None).get_parser(" ".join(name))


def command_of(line: str) -> tuple[tuple[str, ...], list[str]] | None:
    """The name of the command, and the words behind its name."""
    typed = words(line)
    if typed[0].startswith("replica-"):
        typed[:1] = typed[0].split("-", 1)
    while len(typed) > 2 and typed[1] == "--config-file":
        del typed[1:3]
    for name in classes():
        if tuple(typed[: len(name)]) == name:
            return name, typed[len(name) :]
    return None


def problems(line: str) -> list[str]:
    """What is wrong with a command line, or a part of one: no such command, target or option."""
    if line.startswith("make "):
        return [f"no target {one}: {line}" for one in words(line)[1:] if "=" not in one and one not in targets()]
    found = command_of(line)
    if found is None:
        return [f"no command: {line}"]
    name, rest = found
    known = {option for one in parsers(name) for action in one._actions for option in action.option_strings}
    return [f"no option {one}: {line}" for one in rest if one.startswith("--") and one.partition("=")[0] not in known]


def parse_faults(line: str) -> list[str]:
    """What the real parser says to a whole command line; names in capitals stand for a value."""
    found = None if line.startswith("make ") else command_of(line)
    if found is None:
        return problems(line)
    name, rest = found
    outer, inner = parsers(name)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, left = outer.parse_known_args([SAMPLES.get(word, word) for word in rest if word != "..."])
            inner.parse_args(left)
    except SystemExit:
        return [f"{said.getvalue().strip().splitlines()[-1]}: {line}"]
    return []


@functools.cache
def targets() -> set[str]:
    """What make knows."""
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def log_lines(text: str) -> list[str]:
    """What the table under "Logs" quotes."""
    table = text.split("\n## Logs\n")[1].split("\n## ", maxsplit=1)[0]
    return [
        line for row in re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE) for line in re.findall(r"`([^`]+)`", row)
    ]


def fixed(line: str) -> str:
    """A quoted line with a mark for what varies, as `texts_of_the_code` has it."""
    return re.sub(r"\b(why|[A-Z]+)\b|\.\.\.", _VARIES, line).strip(f"{_VARIES}: ,")


def texts_of_the_code() -> list[str]:
    """Every string in `replicas/` and `middleware/`, with a mark for what varies."""
    found = []
    for path in (*(ROOT / "replicas").rglob("*.py"), *(ROOT / "middleware").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(one.value) if isinstance(one, ast.Constant) else _VARIES for one in node.values)
                )
    return [re.sub(r"%[-.\d]*[srdf]", _VARIES, text) for text in found]
