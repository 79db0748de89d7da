"""What is installed: the wheel, which holds more than modules."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"replicas": "glance_replicas", "middleware": "glance_replicas/middleware", "tools": "glance_replicas/tools"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds; built from a copy, as a build leaves files behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", target, source]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = target.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_the_wheel_has_every_file(installed: Path) -> None:
    """Modules, `py.typed`, and the template, style and script of the report's page."""
    for folder, package in FOLDERS.items():
        here = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()}
        wanted = {path for path in here if "__pycache__" not in path.parts and path.suffix != ".mako"}  # developers'
        assert not [path for path in wanted if not (installed / package / path).is_file()]


def test_the_page_is_made_from_the_wheel(installed: Path) -> None:
    """A report needs nothing of the source tree."""
    use = (
        "from datetime import UTC, datetime; from glance_replicas.tools.report_page import page, report_model; "
        "print(page.__file__, page.render(report_model.ReportModel(datetime.now(UTC), [], 1.0), []))"
    )
    done = subprocess.run(
        [sys.executable, "-c", use], env={"PYTHONPATH": str(installed)}, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(str(installed)), done.stderr
    assert "<h2>Stores and hosts</h2>" in done.stdout
