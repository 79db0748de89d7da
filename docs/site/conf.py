"""The documents as a site: `make docs` builds it from the files as they are, README.md being its first page.

Nothing of another server is loaded by its pages. What the navigation names is NAVIGATION; a page that it does not
name is a warning, and a warning fails the build.
"""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
NAVIGATION = {
    "Try it": ["docs/tutorial"],
    "Install": ["docs/install", "docs/upgrade"],
    "Operate": [
        *(
            "docs/operations",
            "docs/verify",
            "docs/repair",
            "docs/prune",
            "docs/audit",
            "docs/troubleshooting",
            "docs/databases",
        ),
        *("docs/clients", "docs/benchmarks"),
    ],
    "Reference": ["docs/reference/index", "docs/commands", "docs/reference/options", "docs/faults", "CHANGELOG"],
    "Security": ["docs/security", "docs/access"],
    "Develop": [
        *("ARCHITECTURE", "CONTRIBUTING", "tests/README", "docs/add-a-backend", "docs/glance", "docs/failures"),
        "docs/glance-tests",
    ],
    "Decisions": sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("docs/decisions/*.md")),
}

project = "glance-replicas"
project_copyright = "the authors of glance-replicas, Apache-2.0"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/decisions/*.md", "docs/reference/*.md", "tests/README.md"]
exclude_patterns = ["build", ".*", "*.egg-info"]
templates_path = ["templates"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a page of a decision begins as it likes
html_theme = "furo"
html_title = "glance-replicas"
html_show_sphinx = False
html_use_index = False
html_copy_source = False
html_additional_pages = {"index": "first.html"}


def with_navigation(_app: Any, name: str, source: list[str]) -> None:
    """Append the navigation to the first page: on the pages of a repository it would be in the way."""
    if name != root_doc:
        return
    for caption, pages in NAVIGATION.items():
        there = [page for page in pages if (ROOT / f"{page}.md").exists()]
        source[0] += "\n".join(["", "```{toctree}", f":caption: {caption}", ":hidden:", "", *there, "```", ""])


def setup(app: Any) -> None:
    """As Sphinx calls it."""
    app.connect("source-read", with_navigation)
