"""How results look: columns that read well in a table and stay plain data for programs, JSON lines, progress."""

import argparse
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from json.encoder import encode_basestring_ascii as _text
from typing import TYPE_CHECKING, Any, TextIO

from cliff.columns import FormattableColumn
from cliff.formatters.base import ListFormatter
from cliff.formatters.value import ValueFormatter
from cliff.lister import Lister
from stevedore.extension import Extension, ExtensionManager

from glance_replicas.errors import ConfigError

if TYPE_CHECKING:
    from glance_replicas.client.document import State

NOTHING = "-"
_TOGETHER = 500  # lines written at once when nobody waits for one
_DIGEST = re.compile(r"\b[0-9a-f]{32,}\b")


def size(number: float | None) -> str:
    """Bytes in the largest binary unit below them."""
    if number is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def age(seconds: float) -> str:
    """A duration in the one unit that says enough: `40 s`, `3 h`."""
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{max(0, int(seconds / divisor))} {unit}"
    return f"{int(seconds / 86400)} d"


def count(number: int, one: str, more: str | None = None) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def short(text: str) -> str:
    """The text with digests cut to what tells them apart."""
    return _DIGEST.sub(lambda match: match[0][:12] + "...", text)


def visible(text: str) -> str:
    """The text with control characters, which users may write into names, as escapes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class Bytes(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A number of bytes, or None."""

    def human_readable(self) -> str:
        """In units."""
        return size(self._value)


class Percent(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A part of one, or None."""

    def human_readable(self) -> str:
        """In percent."""
        return NOTHING if self._value is None else f"{100 * self._value:.0f} %"


class Age(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """Seconds, or None."""

    def human_readable(self) -> str:
        """In one unit."""
        return NOTHING if self._value is None else age(self._value)


class When(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A moment in UTC, or None: `3 h ago`; ISO 8601 for programs.

    `now` by the clock that the moment is of, which is the ledger's and not this machine's.
    """

    def __init__(self, moment: datetime | None, now: datetime) -> None:
        super().__init__(moment)
        self._now = now

    def human_readable(self) -> str:
        """As an age."""
        return NOTHING if self._value is None else f"{age((self._now - self._value).total_seconds())} ago"

    def machine_readable(self) -> Any:
        """As ISO 8601."""
        return None if self._value is None else self._value.isoformat()


class Text(FormattableColumn[Any]):  # type: ignore[misc, unused-ignore]
    """A text, or None."""

    def human_readable(self) -> str:
        """`-` for none; nothing that would change the terminal."""
        if self._value is None:
            return NOTHING
        return short(visible(str(self._value)))


def seen(state: "State | None") -> When:
    """When a copy was last looked at, as old as whoever told it said; else by this machine's clock."""
    moment, age_seconds = (state.checked_at, state.age_seconds) if state else (None, None)
    if moment is None or age_seconds is None:
        return When(moment, datetime.now(UTC))
    return When(moment, moment + timedelta(seconds=age_seconds))


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
        lines = (line % tuple([_text(one) if type(one) is str else _json(one) for one in row]) for row in data)
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
        stdout.writelines(f"{_one_line(one)}\n" for one in data)


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
    names = {_normal(one) for one in there}
    wrong = [one for one in parsed.columns if _normal(one) not in names]
    if wrong:
        typed = ", ".join(repr(one) for one in wrong)
        raise ConfigError(f"-c {typed}: no such column; there are: {', '.join(dict.fromkeys(there))}")


def _normal(name: str) -> str:
    """As cliff compares them: `-c replica_host` is Replica Host."""
    return name.lower().strip().replace(" ", "_")


def formatters(found: ExtensionManager[Any], *, lists: bool = True) -> ExtensionManager[Any]:
    """Cliff's formatters, with our own `value`, and for lists `jsonl`."""
    kept = [one for one in found.extensions if one.name not in ("value", "jsonl")]
    kept.append(_extension("value", Values, found.namespace))
    found.extensions[:] = [*kept, _extension("jsonl", JsonLines, found.namespace)] if lists else kept
    found._extensions_by_name_cache = None
    return found


def _extension(name: str, plugin: type, group: str) -> Extension[Any]:
    return Extension(name, EntryPoint(name, f"{__name__}:{plugin.__name__}", group), plugin, plugin())


class Progress:
    """One line on a terminal that is rewritten as work goes on; nothing elsewhere."""

    def __init__(self, stream: TextIO, total: int, quiet: bool = False) -> None:
        self._stream, self.total = stream, total
        self._shown = stream.isatty() and not quiet
        self._start, self._last, self._done, self._bytes = time.monotonic(), 0.0, 0, 0

    def step(self, length: int | None, text: str = "") -> None:
        """One more is done; `length` in bytes."""
        self.show(self._done + 1, self._bytes + (length or 0), text)

    def show(self, done: int, length: int, text: str = "") -> None:
        """So many are done by now; `length` bytes in all."""
        self._done, self._bytes = done, length
        now = time.monotonic()
        if self._shown and (now - self._last > 0.2 or self._done == self.total):
            self._last = now
            rate = self._bytes / max(now - self._start, 0.001)
            line = f"{self._done} of {self.total}  {size(self._bytes)}  {size(rate)}/s  {text}"
            self._stream.write(f"\r\033[K{line[:100]}")
            self._stream.flush()

    def end(self) -> None:
        """The line is gone."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
