"""Rows of results: as a table, as JSON, against their targets."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Value = float | int | str | None


@dataclass
class Row:
    """What one system did in one benchmark. `goals`: (what, measured, limit, whether it holds)."""

    bench: str
    system: str
    values: dict[str, Value]
    goals: list[tuple[str, float, str, bool]] = field(default_factory=list)


def at_most(what: str, measured: float, limit: float) -> tuple[str, float, str, bool]:
    """A goal that small numbers meet."""
    return what, round(measured, 4), f"<= {limit:g}", measured <= limit


def at_least(what: str, measured: float, limit: float) -> tuple[str, float, str, bool]:
    """A goal that large numbers meet."""
    return what, round(measured, 4), f">= {limit:g}", measured >= limit


def table(rows: Sequence[Row]) -> str:
    """Every benchmark with its systems, then every goal."""
    parts = []
    for bench in dict.fromkeys(row.bench for row in rows):
        mine = [row for row in rows if row.bench == bench]
        names = list(dict.fromkeys(name for row in mine for name in row.values))
        lines = [[bench, *names]] + [[row.system, *(_text(row.values.get(name)) for name in names)] for row in mine]
        parts.append(_aligned(lines))
    goals = [goal for row in rows for goal in row.goals]
    if goals:
        lines = [["goal", "measured", "wanted", ""]]
        lines += [[what, f"{value:.4g}", limit, "yes" if met else "NO"] for what, value, limit, met in goals]
        parts.append(_aligned(lines))
    return "\n\n".join(parts)


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    padded = [
        [
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def save(rows: Sequence[Row], folder: Path, machine: dict[str, Any], name: str = "results") -> None:
    """`results.json`, or another name, with the rows and what they were measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processors": os.cpu_count(),
        "model": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def main(doc: str | None, run: Callable[[float], list[Row]]) -> None:
    """The command line of one benchmark: `--scale 0.1` for a tenth of all sizes. Saved under the program's name."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the real sizes, to try things out")
    before = machine()
    rows = run(parser.parse_args().scale)
    save(rows, Path("build/benchmarks"), before, Path(sys.argv[0]).stem)
    print(table(rows))
    sys.stdout.flush()
