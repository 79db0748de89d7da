"""Who may import whom: edges -> flows -> rules and I/O -> plain functions -> facts (ARCHITECTURE.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    "errors model",
    "ledger_redaction "
    "body cache.entry cache.notes cache.partial_file causes checksum chosen crypt database disk_read document "
    "glance_tables ledger_database ledger_rows ledger_tables location metalink migrations networks options ownership "
    "part policy recording removal removal.last_copy removal.last_durable settings signing store_loss throttle "
    "together within",
    "cache cache.directory catalogue check choose consistency copies freshness ledger looks need pins prune purge "
    "removal.known repair rules runs sources strays uses verify",
    "activity audit byte_range cache.doubts cache.eviction cache.host_lock cache.own_file cache.places copier download "
    "fill fill_limits follow host host.cache_calls host.mark host.presence host.rename host.server_note host.standing "
    "host.store_names host.user host.withheld hosts janitor keeper listings look orders pinning put_back reconcile "
    "relay removal.keeping removal.orders restore route rules_file scrub stocking witness writers",
    "middleware tools",
]
# One unit each.
PACKAGES = (*(f"replicas/{name}" for name in ("check", "listings", "sources", "writers")), "middleware", "tools")
ROOMS = ("cache", "host", "removal")  # packages whose modules have a layer each; the package only names what is in them
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
SIDEWAYS = (1, 3, 4)  # in these layers modules may build on each other; rules and I/O modules may not


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours by the name of its unit: a module, `room.module`, or a package such as sources or tools."""
    for path in sorted(ROOT.glob("replicas/*.py")):
        if path.name != "__init__.py":
            yield path.stem, path
    for room in ROOMS:
        for path in sorted((ROOT / "replicas" / room).glob("*.py")):
            yield (room if path.stem == "__init__" else f"{room}.{path.stem}"), path
    for unit in PACKAGES:
        for path in sorted((ROOT / unit).glob("*.py")):
            yield ("body" if path.stem == "body" else Path(unit).name), path


def imported(path: Path) -> Iterator[str]:
    """The units of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = absolute(path, node)
            if module is not None:
                yield from (unit_of(module, alias.name) for alias in node.names if not alias.name.startswith("__"))


def absolute(path: Path, node: ast.ImportFrom) -> tuple[str, ...] | None:
    """What is imported from, inside our package; None: it is not ours."""
    named = tuple((node.module or "").split(".")) if node.module else ()
    if not node.level:
        return named[1:] if named[:1] == ("glance_replicas",) else None
    inside = path.relative_to(ROOT).parent.parts
    inside = inside[1:] if inside[0] == "replicas" else inside
    return inside[: len(inside) - node.level + 1] + named


def unit_of(module: tuple[str, ...], name: str) -> str:
    """The unit that `from module import name` needs."""
    place = (*module, name)
    if place[0] in ROOMS and f"{place[0]}.{place[1]}" in LEVEL:
        return f"{place[0]}.{place[1]}"
    return "body" if "body" in place[:-1] else place[0]


def test_every_module_has_a_layer() -> None:
    """A new module is put into a layer before it is used."""
    assert {unit for unit, _ in modules()} <= LEVEL.keys()


@pytest.mark.parametrize(("unit", "path"), list(modules()), ids=lambda value: str(getattr(value, "name", value)))
def test_direction(unit: str, path: Path) -> None:
    """A module imports only what is below it, or beside it where that is allowed."""
    for other in imported(path):
        assert other in LEVEL, f"{path} imports {other}, which has no layer"
        own = other == unit or (unit in ROOMS and other.startswith(f"{unit}."))
        beside = LEVEL[other] == LEVEL[unit] and (LEVEL[unit] in SIDEWAYS or own)
        assert LEVEL[other] < LEVEL[unit] or beside, f"{path}: {unit} may not import {other}"


def test_clients_need_no_glance() -> None:
    """`replica choose` and `replica get` work on a laptop that has neither Glance nor its stores."""
    block = (
        "import sys; sys.modules.update(dict.fromkeys(['glance', 'glance_store', 'swiftclient', 'webob', 'oslo_db']))"
    )
    use = "from glance_replicas import choose, document, download; from glance_replicas.tools import choose, get, main"
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
        "import sys; from glance_replicas import catalogue, ledger, settings, sources; "
        "from glance_replicas.tools import list, verify, verifying; "
        f"sources.from_settings(settings.load([{str(conf)!r}])); "
        f"print('loaded:', *{slow} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["loaded:"], done.stderr
