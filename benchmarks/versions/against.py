"""This version beside an earlier one, in turns: what each answer and each command takes, and every other benchmark.

    make bench-against BASE=f6fe492                     everything; about two hours on a machine that does nothing else
    .venv/bin/python benchmarks/versions/against.py f6fe492 --only requests tools --scale 0.1 --rounds 5

The earlier version is cloned to build/base-BASE and set up there. `requests` and `tools` count processor seconds of the
servers and programs themselves, so that others on the machine disturb them little; the rest is `benchmarks/all.py`.
Figures are medians over the rounds, the first one dropped, and so is their ratio.
"""

import argparse
import functools
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import report
from clients import Ask, fetch

HERE = Path(__file__).resolve().parents[2]
SMALL, LARGE, STREAMS, EACH = 64 << 10, 256 << 20, 16, 32  # bytes, bytes, bodies at once, small bodies one by one
GIB = 1 << 30
OTHERS = ("herd", "cluster", "fill", "hit", "single", "memory")
COMMANDS = {
    "list -f jsonl": ["list", "-f", "jsonl"],
    "verify, all recent": ["verify", "--all", "--max-age", "7d", "-f", "jsonl"],
    "verify --dry-run": ["verify", "--all", "--dry-run"],
    "prune, damaged": ["prune", "--all", "--state", "corrupt"],
    "prune --keep-cached": ["prune", "--all", "--keep-cached", "20"],
    "prune --duplicates": ["prune", "--all", "--duplicates"],
    "report": ["report"],
    "host list": ["host", "list"],
    "choose --help": ["choose", "--help"],
}
Figures = dict[str, dict[str, list[float]]]  # of one version: name of the row, name of the figure, one for each round


class Side:
    """One version: its clone, and what `side.py` serves of it."""

    def __init__(self, name: str, clone: Path, last: int) -> None:
        self.name, self.clone, self.last = name, clone, last
        self.figures: Figures = {}

    @property
    def python(self) -> str:
        """Of its own environment."""
        return str(self.clone / ".venv/bin/python")

    @contextmanager
    def serving(self, what: str, *numbers: int) -> Iterator[dict[str, Any]]:
        """What it serves, and where."""
        words = [self.python, str(HERE / "benchmarks/versions/side.py"), str(self.clone), what, str(self.last)]
        words += [str(number) for number in numbers]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.name}: side.py ended")
            yield json.loads(line)

    def add(self, row: str, **figures: float) -> None:
        """One round's."""
        for name, value in figures.items():
            self.figures.setdefault(row, {}).setdefault(name, []).append(value)


def turns(sides: Sequence[Side], rounds: int, work: Callable[[Side], None]) -> None:
    """Each in turn, who is first changes; the first round is dropped."""
    for number in range(rounds + 1):
        for side in sides if number % 2 else reversed(sides):
            work(side)
        if number == 0:
            for side in sides:
                side.figures.clear()


def requests(sides: Sequence[Side], scale: float, rounds: int) -> Iterator[report.Row]:
    """What a request takes and what a GiB takes, from bodies of two sizes; statements to the database."""
    large = int(LARGE * scale) // SMALL * SMALL
    with ExitStack() as stack:
        found = {side: stack.enter_context(side.serving("hosts", SMALL, large)) for side in sides}
        turns(sides, rounds, lambda side: _answers(side, found[side], large))
        yield from rows("processor time of an answer", sides)
        for side in sides:
            side.figures.clear()
            for name, ask in _asks(found[side]["replicas"]).items():
                side.add(name, statements=_statements(found[side]["database"], lambda ask=ask: _once(*ask)))
        yield from rows("statements of an answer", sides)


def _asks(host: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, str]]]:
    small, headers = host["urls"][0], dict(host["headers"])
    etag = _once(small, headers).getheader("ETag") or ""
    asks = {
        "hit": (small, headers),
        "range": (host["urls"][1], headers | {"Range": f"bytes=1000-{SMALL + 999}"}),
        "304": (small, headers | {"If-None-Match": etag}),
    }
    signed = host.get("per-host URL")
    return asks | ({"per-host URL": (signed, {}), "per-host 304": (signed, {"If-None-Match": etag})} if signed else {})


def _answers(side: Side, found: Mapping[str, Any], large: int) -> None:
    for kind in ("replicas", "stock-cache"):
        host = found[kind]
        name = "" if kind == "replicas" else "stock cache, "
        single = {}
        for what, ask in _asks(host).items():
            single[what] = _cpu(host, lambda ask=ask: [_once(*ask) for _ in range(EACH)]) / EACH
            side.add(f"{name}{what}", ms=1000 * single[what])
        many = functools.partial(fetch, [Ask(host["urls"][1], host["headers"])] * STREAMS)
        whole = _cpu(host, many) / STREAMS
        side.add(f"{name}{STREAMS} bodies", **{"s/GiB": (whole - single["hit"]) / (large - SMALL) * GIB})


def _cpu(host: Mapping[str, Any], work: Callable[[], object]) -> float:
    """Processor seconds that the server took meanwhile; the clock of a process, clock_getcpuclockid(3)."""

    def spent() -> float:
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in host["pids"])

    before = spent()
    work()
    return spent() - before


def _once(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=dict(headers))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def _statements(database: str, work: Callable[[], object]) -> int:
    """How many statements of SQL it takes, the fewest of some times: others ask, too."""
    engine = sa.create_engine(database, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        log = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one()).with_name("server.log")
        connection.exec_driver_sql("ALTER SYSTEM SET log_statement = 'all'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        time.sleep(1)
        counts = []
        for _ in range(5):
            before = log.stat().st_size
            work()
            counts.append(len(re.findall(rb"LOG:  statement: ", log.read_bytes()[before:])))
        connection.exec_driver_sql("ALTER SYSTEM RESET log_statement")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    return min(counts)


def tools(sides: Sequence[Side], scale: float, rounds: int) -> Iterator[report.Row]:
    """Commands on a catalogue of 100,000 images, a million locations: processor seconds, memory, statements."""
    with ExitStack() as stack:
        found = {side: stack.enter_context(side.serving("catalogue", int(100_000 * scale))) for side in sides}
        for name, words in COMMANDS.items():
            turns(sides, rounds, lambda side, name=name, words=words: _command(side, found[side], name, words))
            for side in sides:
                work = lambda side=side, words=words: _run(side, found[side], words)  # noqa: E731
                side.add(name, statements=_statements(found[side]["database"], work))
            yield from rows("commands", sides)


def _command(side: Side, found: Mapping[str, Any], name: str, words: Sequence[str]) -> None:
    used = _run(side, found, words)
    side.add(name, **{"cpu s": used.ru_utime + used.ru_stime, "MiB": used.ru_maxrss / 1024})


def _run(side: Side, found: Mapping[str, Any], words: Sequence[str]) -> Any:
    command = [str(side.clone / ".venv/bin/replica"), "--config-file", found["configuration"], *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 3):
        raise RuntimeError(f"{side.name}: {words}: {process.returncode}")
    return used


def other(part: str, sides: Sequence[Side], scale: float, rounds: int) -> Iterator[report.Row]:
    """A part of `benchmarks/all.py`, each version its own."""

    def run(side: Side) -> None:
        out = HERE / "build" / "benchmarks" / f"against-{side.name}"
        words = [side.python, "benchmarks/all.py", "--only", part, "--scale", str(scale), "--out", str(out)]
        subprocess.run(words, cwd=side.clone, check=True, stdout=subprocess.DEVNULL)
        for row in json.loads((out / "results.json").read_text())["rows"]:
            numbers = {name: float(value) for name, value in row["values"].items() if isinstance(value, int | float)}
            side.add(f"{row['bench']}: {row['system']}", **numbers)

    turns(sides, rounds, run)
    yield from rows(part, sides)


def rows(bench: str, sides: Sequence[Side]) -> Iterator[report.Row]:
    """Each figure of both versions: medians, and the median of the ratios of the rounds."""
    base, now = (side.figures for side in sides)
    for row, figures in now.items():
        for name, values in figures.items():
            before = base.get(row, {}).get(name)
            if before:
                pairs = [mine / its for mine, its in zip(values, before, strict=True) if its]
                medians = {"base": statistics.median(before), "now": statistics.median(values)}
                ratio = {"now / base": statistics.median(pairs)} if pairs else {}
                yield report.Row(bench, f"{row}, {name}", {**medians, **ratio})


def clone_of(base: str) -> Path:
    """The earlier version, cloned and set up."""
    clone = HERE / "build" / f"base-{base}"
    if not (clone / ".venv/installed").exists():
        if not clone.exists():
            subprocess.run(["git", "clone", "-q", str(HERE), str(clone)], check=True)
        subprocess.run(["git", "-C", str(clone), "checkout", "-q", base], check=True)
        subprocess.run(["make", "-C", str(clone), "setup"], check=True)
    return clone


def main() -> None:
    """One table at the end; saved as build/benchmarks/against.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="the commit of the earlier version, or the folder of its clone that is set up")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the real sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=["requests", "tools", *OTHERS])
    given = parser.parse_args()
    machine = report.machine()
    clone = Path(given.base).resolve() if Path(given.base).is_dir() else clone_of(given.base)
    sides = [Side("base", clone, 2), Side("now", HERE, 12)]
    found: list[report.Row] = []
    for part in given.only or ["requests", "tools", *OTHERS]:
        for side in sides:
            side.figures.clear()
        measure = {"requests": requests, "tools": tools}.get(part)
        lines = measure(sides, given.scale, given.rounds) if measure else other(part, sides, given.scale, given.rounds)
        for row in lines:
            found.append(row)
            print(row.bench, row.system, row.values, file=sys.stderr, flush=True)
        report.save(found, HERE / "build/benchmarks", machine, "against")
    print(report.table(found))


if __name__ == "__main__":
    main()
