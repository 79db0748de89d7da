"""The report as one page for a browser: everything in it, nothing loaded, nothing that names of images could start.

The policy in the page lets only its own style and its own script run, by their hashes. Without JavaScript everything
but the list of images is there.
"""

import base64
import hashlib
import itertools
import os
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from glance_replicas.errors import ConfigError

from ..output.text import short, size, visible
from . import charts, list_data
from .condition import Condition
from .report_model import ImageRow, ReportModel

SEEN, FOLDED = 8, 100  # problems that are seen at once, and that are a click away


def write(path: Path, total: ReportModel, rows: Sequence[ImageRow]) -> None:
    """The page is at `path`, whole; what was there before is replaced at once or stays. Raises ConfigError.

    Killed before the last step it leaves a hidden `.NAME.XXXXXXXX.part`, which nothing reads.
    """
    text = render(total, rows)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o640)  # it names the images of all projects
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"--html {path}: {(error.strerror or 'cannot be written').lower()}") from error


def render(total: ReportModel, rows: Sequence[ImageRow]) -> str:
    """The page: `rows`, the worst first, of the images that were added up."""
    found = ((row, *problem) for row in rows if row.severity.is_trouble for problem in row.problems())
    problems = list(itertools.islice(found, FOLDED))
    return _template(total).render(
        style=_part("page.css"),
        script=_part("page.js"),
        total=total,
        seen=problems[:SEEN],
        folded=problems[SEEN:],
        rest=sum(1 for _ in found),
        data=list_data.data(total, rows),
    )


def _template(total: ReportModel) -> jinja2.Template:
    """Texts are escaped wherever they stand in it, and its JSON ends no script element."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    made.globals |= {"charts": charts, "Condition": Condition}
    made.filters |= {"ago": lambda last: list_data.ago(total, last) if last.checked_at else "-", "hash": _hash}
    made.filters |= {"short": short, "size": size, "visible": lambda text: visible(str(text))}
    made.filters |= {"thousands": "{:,}".format, "words": charts.words}
    return made.get_template("page.html")


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
