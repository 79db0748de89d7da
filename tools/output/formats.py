"""Our formats beside cliff's: `jsonl`, and a `value` that keeps a row on a line; and a check of `-c`."""

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from importlib.metadata import EntryPoint
from json.encoder import encode_basestring_ascii as _text
from typing import Any, TextIO

from cliff.columns import FormattableColumn
from cliff.formatters.base import ListFormatter
from cliff.formatters.value import ValueFormatter
from cliff.lister import Lister
from stevedore.extension import Extension, ExtensionManager

from glance_replicas.errors import ConfigError

from .text import visible

_TOGETHER = 500  # lines written at once when nobody waits for one


class AtOnce:
    """Rows that come as fast as they are written: nobody waits for one of them."""

    def __init__(self, rows: Iterable[Sequence[Any]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self._rows)


class JsonLines(ListFormatter):  # type: ignore[misc, unused-ignore]
    """One JSON object per line, for any number of rows; written as soon as it is known unless rows come `AtOnce`."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """No options."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write the rows."""
        names = (json.dumps(name).replace("%", "%%") for name in column_names)
        line = "{" + ", ".join(f"{name}: %s" for name in names) + "}\n"
        lines = (line % tuple([_text(cell) if type(cell) is str else _json(cell) for cell in row]) for row in data)
        each = _TOGETHER if isinstance(data, AtOnce) else 1
        while text := "".join(itertools.islice(lines, each)):
            stdout.write(text)
            stdout.flush()


def _json(value: Any) -> str:
    """As `json.dumps`, which takes its time over the smallest things."""
    if value is None:
        return "null"
    if type(value) is int:
        return str(value)
    if isinstance(value, datetime):
        return _text(value.isoformat())
    if isinstance(value, FormattableColumn):
        value = value.machine_readable()
        return _text(value) if type(value) is str else "null" if value is None else json.dumps(value, default=plain)
    return json.dumps(value, default=plain)


def plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.machine_readable() if isinstance(value, FormattableColumn) else value


class Values(ValueFormatter):  # type: ignore[misc, unused-ignore]
    """Cliff's `value`, a line for each row whatever users write into names: scripts read it by lines."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Iterable[Sequence[Any]],
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Write the rows."""
        for row in data:
            stdout.write(" ".join(map(_one_line, row)) + "\n")

    def emit_one(
        self, column_names: Sequence[str], data: Sequence[Any], stdout: TextIO, parsed_args: argparse.Namespace
    ) -> None:
        """Write the fields, a line for each."""
        stdout.writelines(f"{_one_line(item)}\n" for item in data)


def _one_line(cell: Any) -> str:
    return visible(str(cell.machine_readable() if isinstance(cell, FormattableColumn) else cell))


class Columns:
    """What commands with columns share: our formats, and `-c` of a column that there is not is an error of the user's.

    Cliff passes over such a name as long as another one is right.
    """

    columns: Sequence[str] = ()  # all there may be, where the command does something: asked for before it does

    def _load_formatter_plugins(self) -> Any:
        return formatters(super()._load_formatter_plugins(), lists=isinstance(self, Lister))  # type: ignore[misc]

    def run(self, parsed_args: argparse.Namespace) -> int:
        """As cliff. Raises ConfigError."""
        if self.columns:
            _need_columns(parsed_args, self.columns)
        return super().run(parsed_args)  # type: ignore[misc, no-any-return]

    def _run_after_hooks(self, parsed_args: argparse.Namespace, done: Any) -> Any:
        """Between the work and the first row."""
        if isinstance(done, tuple):
            _need_columns(parsed_args, done[0])
        return super()._run_after_hooks(parsed_args, done)  # type: ignore[misc]


def _need_columns(parsed: argparse.Namespace, there: Sequence[str]) -> None:
    names = {_normal(name) for name in there}
    wrong = [column for column in parsed.columns if _normal(column) not in names]
    if wrong:
        typed = ", ".join(repr(column) for column in wrong)
        raise ConfigError(f"-c {typed}: no such column; there are: {', '.join(dict.fromkeys(there))}")


def _normal(name: str) -> str:
    """As cliff compares them: `-c replica_host` is Replica Host."""
    return name.lower().strip().replace(" ", "_")


def formatters(found: ExtensionManager[Any], *, lists: bool = True) -> ExtensionManager[Any]:
    """Cliff's formatters, with our own `value`, and for lists `jsonl`."""
    kept = [extension for extension in found.extensions if extension.name not in ("value", "jsonl")]
    kept.append(_extension("value", Values, found.namespace))
    found.extensions[:] = [*kept, _extension("jsonl", JsonLines, found.namespace)] if lists else kept
    found._extensions_by_name_cache = None
    return found


def _extension(name: str, plugin: type, group: str) -> Extension[Any]:
    return Extension(name, EntryPoint(name, f"{__name__}:{plugin.__name__}", group), plugin, plugin())
