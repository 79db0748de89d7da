"""The kind of store that docs/add-a-backend.md adds from outside this package, as a distribution of its own."""

import re
import subprocess
import sys
from pathlib import Path

from services import environment, need

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-backend.md"


def install(folder: Path) -> Path:
    """The distribution is built of the page's two files and installed into a folder, which is returned."""
    project, target = folder / "attic-store", folder / "installed"
    project.mkdir()
    blocks = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for name, text in blocks:
        (project / name).write_text(text)
    assert {name for name, _ in blocks} == {"pyproject.toml", "attic_store.py"}
    command = [need("uv"), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--offline"]
    python = ["--python", sys.executable, "--target", target]
    subprocess.run([*command, *python, project], check=True, env=environment(), timeout=60)
    return target
