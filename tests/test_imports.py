"""Who may import whom: the folders are the layers (ARCHITECTURE.md)."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FACTS, PLAIN = "facts", "plain functions"
# Each folder builds on those above it, and on none beside it. The modules right in `replicas/` are plain functions,
# two of them facts; those right in `tools/` are what its folders share.
LAYERS = [
    (FACTS,),
    (PLAIN,),
    ("database", "disk"),
    ("cache", "catalogue", "ledger"),
    ("stores",),
    ("verify",),
    ("check", "client", "removal"),
    ("transfer",),
    ("audit", "host", "repair"),
    ("prefetch",),
    ("janitor",),
    ("middleware", "tools.output"),
    ("tools.options",),
    ("tools",),
    ("tools.cloud", "tools.gather", "tools.report_page"),
    ("tools.commands",),
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ONLY_FACTS = ("errors", "model", "verdict")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours, with its room: its folder, or what it is right in `replicas/`."""
    for top in ("replicas", "middleware", "tools"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if path != ROOT / "replicas" / "__init__.py":
                yield room_of(inside(path)), path


def inside(path: Path) -> tuple[str, ...]:
    """The module's name inside our package, as its parts."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return tuple(part for part in (parts[1:] if parts[0] == "replicas" else parts) if part != "__init__")


def room_of(module: tuple[str, ...]) -> str:
    """The room of a module, or of what is imported from one."""
    if module[0] == "tools":
        return ".".join(module[:2]) if (ROOT / Path(*module[:2])).is_dir() else "tools"
    if (ROOT / "replicas" / module[0]).is_dir() or module[0] == "middleware":
        return module[0]
    return FACTS if module[0] in ONLY_FACTS else PLAIN


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """What a file imports of ours, wherever in it: the module, or the name in a module, as its parts."""
    package = path.relative_to(ROOT).parent.parts
    package = package[1:] if package[0] == "replicas" else package
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            named = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                named = package[: len(package) - node.level + 1] + named
            elif named[:1] == ("glance_replicas",):
                named = named[1:]
            else:
                continue
            yield from ((*named, alias.name) for alias in node.names if not alias.name.startswith("__"))


def test_every_folder_has_a_layer() -> None:
    """A new folder is put into a layer before it is used; no layer names a folder that is gone."""
    assert {room for room, _ in modules()} == LEVEL.keys()


@pytest.mark.parametrize(("room", "path"), list(modules()), ids=lambda value: str(getattr(value, "name", value)))
def test_direction(room: str, path: Path) -> None:
    """A module imports only what is in its own folder, or below it."""
    for parts in imported(path):
        other = room_of(parts)
        assert other == room or LEVEL[other] < LEVEL[room], f"{path}: {room}/ may not import {'.'.join(parts)}"


@pytest.mark.parametrize("path", [path for _, path in modules()], ids=lambda path: "/".join(inside(path)))
def test_modules_and_functions_are_short(path: Path) -> None:
    """A module is at most 300 lines, a function 40; a migration is as long as what it changes."""
    text = path.read_text()
    assert text.count("\n") <= 300, f"{path} holds more than one idea"
    functions = (one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    long = [one.name for one in functions if (one.end_lineno or one.lineno) - one.lineno >= 40]
    assert not long or "migrations" in path.parts, f"{path}: {long}"


def test_folders_are_small() -> None:
    """No folder of ours has more than 15 modules beside its `__init__`."""
    tops = ("replicas", "middleware", "tools", "tests", "benchmarks")
    paths = (path for top in tops for path in (ROOT / top).rglob("*.py") if path.name != "__init__.py")
    assert not {str(folder): number for folder, number in Counter(path.parent for path in paths).items() if number > 15}


def test_every_folder_is_installed() -> None:
    """A folder that setup.cfg does not name is in no installation, and no type of it is checked."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = {inside(path / "__init__.py") for path in {path.parent for _, path in modules()}}
    named = setup["options"]["packages"].split()
    assert sorted(".".join(("glance_replicas", *folder)) for folder in folders) == sorted(named)


def test_clients_need_no_glance() -> None:
    """`replica choose` and `replica get` work on a laptop that has neither Glance nor its stores."""
    block = (
        "import sys; sys.modules.update(dict.fromkeys(['glance', 'glance_store', 'swiftclient', 'webob', 'oslo_db']))"
    )
    use = "from glance_replicas.client import choose, document, download"
    use = f"{use}; from glance_replicas.tools import main; from glance_replicas.tools.cloud import choose, get"
    subprocess.run([sys.executable, "-c", f"{block}; {use}"], check=True, cwd="/")


def test_wrong_name_is_refused() -> None:
    """Importing the folder instead of the package says what to do."""
    done = subprocess.run(
        [sys.executable, "-c", "import replicas"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "pip install -e ." in done.stderr


def test_what_is_slow_to_load_waits_until_it_is_needed(tmp_path: Path) -> None:
    """A program over file and http stores starts without the libraries of others: more than half of its start."""
    conf = tmp_path / "glance-api.conf"
    conf.write_text("[database]\nconnection = sqlite://\n[glance_store]\nstores = file,http\n")
    slow = "{'alembic', 'boto3', 'eventlet', 'keystoneauth1', 'swiftclient'}"
    use = (
        "import sys; from glance_replicas import settings; from glance_replicas.stores import sources; "
        "from glance_replicas.catalogue import images; from glance_replicas.ledger import ledger; "
        "from glance_replicas.tools.commands import list, verify; from glance_replicas.verify import flow; "
        f"sources.from_settings(settings.load([{str(conf)!r}])); "
        f"print('loaded:', *{slow} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["loaded:"], done.stderr
