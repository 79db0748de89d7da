"""`make fuzz`: every target under atheris, which looks for bytes that reach new branches; a table at the end.

Exit status 1 when an input broke a target: the input is kept, and the command that runs it again is printed.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).parent.parent
FOUND = TESTS.parent / "build" / "fuzz"
_STATS = re.compile(r"stat::number_of_executed_units: +(\d+)")
_COVERAGE = re.compile(r"cov: (\d+)")
_LONGEST = 1024  # bytes of an input


def main() -> int:
    """All targets, or one in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together (1000000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed, the same inputs")
    parser.add_argument("--only", help="one target")
    parser.add_argument("--input", type=Path, help="run one kept input of the target --only")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    if given.inside:
        return _inside(given.only, given.inputs, given.seed)
    from fuzzing.targets import TARGETS

    if given.input:
        TARGETS[given.only](given.input.read_bytes())
        return 0
    chosen = [given.only] if given.only else list(TARGETS)
    parts = sum(TARGETS[name].share for name in chosen)
    print(f"seed {given.seed}\n{'target':12} {'inputs':>9} {'seconds':>8} {'per second':>10} {'branches':>8}  result")
    with ThreadPoolExecutor(os.cpu_count()) as beside:
        shares = [given.inputs * TARGETS[name].share // parts + 1 for name in chosen]
        results = list(beside.map(_run, chosen, shares, itertools.repeat(given.seed)))
    print(f"{'all':12} {sum(inputs for inputs, _ in results):9}")
    return int(not all(is_clean for _, is_clean in results))


def _run(name: str, inputs: int, seed: int) -> tuple[int, bool]:
    """Inputs that ran, and whether all of them held."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--inside", "--only", name, "--inputs", str(inputs), "--seed", str(seed)]
    began = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    seconds = time.monotonic() - began
    ran, branches = _STATS.search(done.stderr), _COVERAGE.findall(done.stderr)
    count = int(ran[1]) if ran else 0
    is_clean = done.returncode == 0 and count >= inputs
    reached, result = branches[-1] if branches else "-", "clean" if is_clean else "BROKEN"
    print(f"{name:12} {count:9} {seconds:8.1f} {count / seconds:10.0f} {reached:>8}  {result}", flush=True)
    if not is_clean:
        print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
        for kept in sorted(folder.iterdir()):
            print(f"{sys.executable} {__file__} --only {name} --input {kept}", file=sys.stderr)
    return count, is_clean


def _inside(name: str, inputs: int, seed: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["glance_replicas"]):
        from fuzzing.targets import TARGETS
    options = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={_LONGEST}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={FOUND / name}/"], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
