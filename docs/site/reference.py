"""docs/reference/ as the commands and the table of options have it: `make reference` writes it.

Every page is made of the command's own parser, docstring, columns and example, so that it says what `--help` says. With
`--check` nothing is written, and the exit status is 1 when a page is not as it would be.
"""

import argparse
import importlib.metadata
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cliff.lister import Lister

from glance_replicas import options
from glance_replicas.tools.main import Replica

FOLDER = Path(__file__).resolve().parent.parent / "reference"
FIRST = "<!-- Written by `make reference` from the program itself. -->"
GROUPS = {
    "On a glance-api host": ("list", "verify", "repair", "prune", "audit", "audit log", "report"),
    "Hosts and their copies": ("host", "check", "janitor", "copy", "copy list", "copy cancel", "pin add", "pin list",
                               "pin remove", "rules"),
    "Our tables": ("db upgrade", "db check", "db purge"),
    "On any machine, as a user of the cloud": ("choose", "get"),
}  # fmt: skip
OPENSTACK = "With OpenStackClient"
GUIDES = {
    "verify": "verify.md",
    "repair": "repair.md",
    "prune": "prune.md",
    "audit": "audit.md",
    "audit log": "audit.md#the-record-of-removals",
    "report": "operations.md#the-report",
    "host": "operations.md#the-hosts",
    "check": "install.md#4-check",
    "janitor": "operations.md#the-janitor",
    "copy": "operations.md#copies-ahead-of-need",
    "pin add": "operations.md#what-goes-when-room-is-needed",
    "rules": "operations.md#keeping-copies-ahead-of-need",
    "db upgrade": "upgrade.md",
    "db purge": "operations.md#our-tables",
    "choose": "clients.md",
    "get": "clients.md",
}
STATUS = re.compile(r"\s*Exit status: (.*?)\.?\s*$", re.DOTALL)
WIDTH = 110


def commands() -> dict[str, Any]:
    """The class of each command by what is typed."""
    entries = importlib.metadata.entry_points
    found = {f"replica {one.name.replace('_', ' ')}": one.load() for one in entries(group="glance_replicas.commands")}
    for one in entries(group="openstack.image.v2"):
        if one.value.startswith("glance_replicas."):
            found[f"openstack {one.name.replace('_', ' ')}"] = one.load()
    return found


def pages() -> dict[str, str]:
    """The text of each file."""
    known = commands()
    found = {f"{name.replace(' ', '-')}.md": "\n".join(page(name, one)) for name, one in known.items()}
    found["index.md"] = "\n".join(index(known))
    found["options.md"] = "\n".join(option_page())
    return {name: f"{text.rstrip()}\n" for name, text in found.items()}


def page(name: str, command: Any) -> Iterator[str]:
    """What is known of one command."""
    parser = command(Replica(), None).get_parser(name)
    own = [action for action in parser._actions if is_own(parser, action)]
    text, statuses = described(command)
    yield from (FIRST, "", f"# {name}", "", text, "", *indented(usage(name, parser, own)), "", "Example:", "")
    yield from (f"    {command.example}", "")
    if own:
        yield from ("| argument | meaning |", "|---|---|", *map(argument, own), "")
    if issubclass(command, Lister):
        names = getattr(command, "columns", ()) or sys.modules[command.__module__].COLUMNS
        yield from folded(f"Columns: {', '.join(f'`{one}`' for one in dict.fromkeys(names))}.")
        yield from ("", "How to choose and to sort them, and other formats: [commands](../commands.md#output).", "")
    yield from ("| exit status | meaning |", "|---|---|", *(f"| {one} | {what} |" for one, what in statuses), "")
    yield "Those of every command, and the options that all have: [commands](../commands.md)."
    guide = "clients.md#openstackclient" if name.startswith("openstack") else GUIDES.get(name.partition(" ")[2])
    if guide and (FOLDER.parent / guide.partition("#")[0]).exists():
        yield from ("", f"In use: [{guide.partition('#')[0]}](../{guide}).")


def described(command: Any) -> tuple[str, list[tuple[str, str]]]:
    """The docstring, and what its sentence about exit statuses says."""
    summary, _, rest = textwrap.dedent(f"    {command.__doc__}").strip().partition("\n\n")
    found = STATUS.search(rest)
    assert found is not None, f"{command}: its docstring does not end with 'Exit status: ...'"
    text = " ".join(found[1].split())
    statuses = [one.strip().partition(" ") for one in re.split(r"[;,] (?:or )?(?=\d )", text)]
    paragraphs = [summary, *rest[: found.start()].split("\n\n")]
    joined = "\n\n".join("\n".join(folded(" ".join(one.split()))) for one in paragraphs if one.strip())
    return joined, [(number.rstrip(","), what or "done") for number, _, what in statuses]


def is_own(parser: argparse.ArgumentParser, action: argparse.Action) -> bool:
    """Whether the command brings it; the others are cliff's, for how rows are written."""
    ours = [*parser._positionals._group_actions, *parser._optionals._group_actions]
    return action in ours and "--help" not in action.option_strings


def usage(name: str, parser: argparse.ArgumentParser, own: list[argparse.Action]) -> str:
    """One line, or more, as argparse writes them."""
    formatter = argparse.HelpFormatter(name, width=WIDTH)
    groups = [group for group in parser._mutually_exclusive_groups if set(group._group_actions) <= set(own)]
    formatter.add_usage(None, own, groups, prefix="")
    return formatter.format_help().strip()


def argument(action: argparse.Action) -> str:
    """One row."""
    value = (
        "" if action.nargs == 0 else action.metavar or ",".join(map(str, action.choices or [])) or action.dest.upper()
    )
    names = ", ".join(action.option_strings)
    shown = f"{names} {value}" if names and value else names or value
    return f"| `{cell(shown)}` | {cell(action.help or '')} |"


def cell(text: str) -> str:
    """As a table takes it."""
    return " ".join(text.split()).replace("|", "\\|").replace("%%", "%")


def indented(text: str) -> list[str]:
    """A block of code."""
    return textwrap.indent(text, "    ").splitlines()


def folded(text: str) -> list[str]:
    """A paragraph."""
    return textwrap.wrap(text, WIDTH + 6, break_long_words=False, break_on_hyphens=False)


def index(known: dict[str, Any]) -> Iterator[str]:
    """Every command with its first sentence."""
    yield from (FIRST, "", "# Commands and options", "")
    yield from folded(
        "What all commands have in common (selection, exit statuses, output, verdicts): [commands](../commands.md)."
        " Options of `[replicas]` in glance-api.conf: [options](options.md). `replica-list`, `replica-verify` and"
        " `replica-prune` are programs of their own that do the same as `replica list`, `replica verify` and"
        " `replica prune`."
    )
    groups = {title: [f"replica {one}" for one in names] for title, names in GROUPS.items()}
    groups[OPENSTACK] = sorted(name for name in known if name.startswith("openstack"))
    assert {name for names in groups.values() for name in names} == set(known)
    for title, names in groups.items():
        yield from ("", f"## {title}", "", "| command | |", "|---|---|")
        for name in names:
            first = cell(known[name].__doc__.strip().partition("\n\n")[0])
            yield f"| [{name}]({name.replace(' ', '-')}.md) | {first} |"
    yield from ("", "```{toctree}", ":hidden:", ":glob:", "", "replica-*", "openstack-*", "```")


def option_page() -> Iterator[str]:
    """Every option of `[replicas]`."""
    yield from (FIRST, "", "# Options of glance-api.conf", "")
    yield from folded(
        "All in `[replicas]`. The same as a file to copy from:"
        " [etc/glance-replicas.conf.sample](../../etc/glance-replicas.conf.sample). An unknown option, or a value that"
        " is none, stops the start of glance-api and is named."
    )
    yield from ("", "| option | default | |", "|---|---|---|", *map(option, options.ALL))


def option(one: Any) -> str:
    """One row."""
    default = "" if one.default in (None, []) else f"`{one.default}`"
    limits = (("least", getattr(one.type, "min", None)), ("most", getattr(one.type, "max", None)))
    bounds = [f"At {word} {value}." for word, value in limits if value]
    return f"| `{one.name}` | {default} | {cell(' '.join([one.help, *bounds]))} |"


def main() -> int:
    """Write them, or say which are old."""
    made, there = pages(), {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    old = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if "--check" in sys.argv[1:]:
        sys.stdout.writelines(f"docs/reference/{name} is old: run make reference\n" for name in old)
        return 1 if old else 0
    for name in old:
        (FOLDER / name).unlink(missing_ok=True)
        if name in made:
            (FOLDER / name).write_text(made[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
