"""The samples in etc/ and the commands in the documents are those of this version."""

import configparser
import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from services import environment, need

from glance_replicas import options, pipeline

ROOT = Path(__file__).resolve().parent.parent
ETC = ROOT / "etc"
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
STOCK_PASTE = Path(sys.prefix) / "etc" / "glance" / "glance-api-paste.ini"


def ini(path: Path) -> configparser.ConfigParser:
    """A file of sections, names as they are written."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    return parser


def test_sample_options_are_the_generated_ones(tmp_path: Path) -> None:
    """`oslo-config-generator --config-file etc/oslo-config-generator.conf` changes nothing."""
    sample = tmp_path / "sample"
    command = [
        need("oslo-config-generator"),
        "--config-file",
        "etc/oslo-config-generator.conf",
        "--output-file",
        sample,
    ]
    subprocess.run(command, cwd=ROOT, check=True, env=environment(), timeout=60)
    assert (ETC / "glance-replicas.conf.sample").read_text() == sample.read_text()


def test_options_in_the_documents() -> None:
    """docs/install.md explains every option as the table of options has it."""
    text = (ROOT / "docs" / "install.md").read_text()
    found = text.partition("<!-- options: begin -->\n")[2].partition("<!-- options: end -->")[0]
    assert found == "".join(f"{line}\n" for line in ["| option | default | |", "|---|---|---|", *map(row, options.ALL)])


def row(option: Any) -> str:
    """One option as a row of a table."""
    default = "" if option.default in (None, []) else f"`{option.default}`"
    limits = (("least", getattr(option.type, "min", None)), ("most", getattr(option.type, "max", None)))
    bounds = [f"At {word} {value}." for word, value in limits if value]
    return f"| `{option.name}` | {default} | {' '.join([option.help, *bounds])} |"


@pytest.mark.parametrize("flavor", ["replicas", "keystone+replicas"])
def test_sample_pipelines_are_in_order(flavor: str) -> None:
    """`replica check` finds nothing wrong with the sample's flavors, and Glance finds their composites."""
    text = (ETC / "glance-api-paste.ini").read_text()
    assert list(pipeline.faults(pipeline.roles(text, flavor))) == []
    assert f"composite:glance-api-{flavor}" in ini(ETC / "glance-api-paste.ini").sections()


def test_sample_pipeline_is_glances_own_beside_ours() -> None:
    """Every section of the installed Glance's paste file is in the sample as it is."""
    sample, stock = ini(ETC / "glance-api-paste.ini"), ini(STOCK_PASTE)
    for section in stock.sections():
        for name, value in stock.items(section):
            assert sample.get(section, name) == value, (section, name)


def settings_of(path: Path) -> "subprocess.CompletedProcess[str]":
    """What loading the settings from a file prints, in a process of its own: oslo.config's are global."""
    program = f"from glance_replicas import settings; print(settings.load([{str(path)!r}]).host_name)"
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_sample_configuration(tmp_path: Path) -> None:
    """The lines for glance-api.conf load once there is a key; the placeholder is refused, and named."""
    text = (
        ETC / "glance-api-replicas.conf"
    ).read_text() + "\n[database]\nconnection = sqlite:////nowhere/glance.sqlite\n"
    path = tmp_path / "glance-api.conf"
    path.write_text(text)
    assert "signing_keys" in settings_of(path).stderr
    path.write_text(text.replace("k1:SECRET", f"k1:{'0123456789abcdef' * 4}"))
    assert settings_of(path).stdout == "api1\n"


def test_sample_nginx(tmp_path: Path) -> None:
    """nginx takes the sample."""
    path = tmp_path / "nginx.conf"
    sample = (ETC / "nginx.conf").read_text().replace("/var/log/nginx", str(tmp_path))
    path.write_text(f"pid {tmp_path}/pid; error_log {tmp_path}/error; events {{}} http {{ {sample} }}")
    done = subprocess.run(
        [need("nginx"), "-t", "-c", path, "-p", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_sample_units() -> None:
    """The units start programs and files that there are, and systemd finds nothing to say about their words."""
    units = sorted((ETC / "systemd").iterdir())
    assert [unit.name for unit in units] == ["glance-api.service", "replica-janitor.service", "replica-janitor.timer"]
    starts = [ini(unit).get("Service", "ExecStart") for unit in units if unit.suffix == ".service"]
    assert [Path(words.split()[0]).name for words in starts] == ["uwsgi", "replica"]
    assert problems(starts[1].partition("/bin/")[2]) == []
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", *units]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        assert not re.search("Unknown|Failed to parse|Invalid", said), said


def commands() -> dict[str, Any]:
    """The commands of `replica` by name."""
    entries = importlib.metadata.entry_points(group="glance_replicas.commands")
    return {entry.name.replace("_", " "): entry for entry in entries}


def problems(line: str) -> list[str]:
    """What is wrong with a `replica ...` or `replica-...` line of a document: no such command, no such option."""
    words = shlex.split(re.split("  +", line)[0], comments=True)
    words = words[0].split("-", 1) + words[1:] if words[0] != "replica" else words
    name = next((name for name in commands() if words[1 : 1 + len(name.split())] == name.split()), None)
    if name is None:
        return [f"no command: {line}"]
    known = "".join(action for action in known_options(name))
    return [f"no option {word}: {line}" for word in words if word.startswith("--") and f" {word} " not in known]


def known_options(name: str) -> list[str]:
    """The options of a command and of the program, each between spaces."""
    from glance_replicas.tools.main import Replica

    app = Replica()
    parsers = [app.parser, commands()[name].load()(app, None, cmd_name=name).get_parser(name)]
    return [f" {word} " for parser in parsers for action in parser._actions for word in action.option_strings]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documents(path: Path) -> None:
    """Every command line in an indented block or in backticks is one that this version understands."""
    text = path.read_text()
    lines = re.findall(r"^ {4,}((?:replica|replica-(?:list|verify|prune)) [a-z-].*)$", text, re.MULTILINE)
    lines += re.findall(r"`((?:replica|replica-(?:list|verify|prune)) [a-z-][^`]*)`", text)
    assert [problem for line in lines for problem in problems(line)] == []


def test_readme_names_what_make_knows() -> None:
    """The set-up commands of the README are there."""
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^ {4}make (\w+)", text, re.MULTILINE))
    assert targets == {"setup", "demo", "test"}
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert (ROOT / "bin" / "system-packages").exists()
