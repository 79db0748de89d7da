"""Every benchmark, one table at the end; `results.json` and `results.svg` in the folder given (build/benchmarks)."""

import argparse
import sys
import traceback
from pathlib import Path

import cluster
import fill
import herd
import hit
import memory
import plot
import report
import single

BENCHMARKS = {"herd": herd, "cluster": cluster, "fill": fill, "hit": hit, "single": single, "memory": memory}


def main() -> int:
    """Exit status 1 when a benchmark could not be run; a goal that is missed is a result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the real sizes, to try things out")
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    given = parser.parse_args()
    machine = report.machine()
    rows: list[report.Row] = []
    broken = []
    for name in given.only:
        try:
            rows += BENCHMARKS[name].run(given.scale)
        except Exception:  # noqa: BLE001  # the others are still worth having
            traceback.print_exc()
            broken.append(name)
        report.save(rows, given.out, machine)
    plot.save(rows, given.out / "results.svg")
    print(report.table(rows))
    print(f"\n{given.out}/results.json and results.svg; load average before: {machine['load_before']:.1f}")
    if broken:
        print(f"could not be run: {', '.join(broken)}", file=sys.stderr)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
