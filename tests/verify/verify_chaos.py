"""Kill -9 of `replica verify --run`, many times at random points: `python tests/verify/verify_chaos.py --rounds 200`.

Every round starts the program, or two of them at a time, on a run that goes on, and kills it after a random time. After
each kill: what the program had printed more than five seconds before is in the ledger. At the end of each run: every
location has exactly one result, and was read once more at most for each kill that met it before its record.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from services.process import end_reaper
from services.web.faulty import FaultyServer
from support.programs import Programs, Started
from support.worlds.crowd import Crowd

KEPT_SECONDS = 5.0


class Watched:
    """A program, and when each line of its output was first seen."""

    def __init__(self, started: Started) -> None:
        self.started = started
        self._seen: dict[str, float] = {}

    def look(self) -> None:
        """Note what is new."""
        for line in self.started.out().splitlines():
            if line.endswith("}") and '"Verdict"' in line:
                self._seen.setdefault(json.loads(line)["URL"], time.monotonic())

    def kill(self) -> set[str]:
        """SIGKILL; the URLs whose results are older than what may be lost."""
        end = time.monotonic() - KEPT_SECONDS
        self.started.kill()
        return {url for url, at in self._seen.items() if at < end}


def one_run(folder: Path, programs: Programs, chance: random.Random, kills: int) -> dict[str, int]:
    """One run with its kills; what was counted. Raises AssertionError."""
    counts = {"kills": 0, "read again": 0}
    with FaultyServer() as web:
        crowd = Crowd(folder, programs, web)
        crowd.add(200, each=2)
        words = ["--all", "--run", "chaos", "--max-items-per-second", 15, "-f", "jsonl"]
        machines = [crowd.machine(f"127.0.0.{number}") for number in (2, 3)]
        lost = [0] * 400
        while counts["kills"] < kills and sum(crowd.recorded()) < 250:  # the last start is to find something to do
            watched = [Watched(crowd.start(one, *words)) for one in machines[: chance.choice((1, 1, 2))]]
            end = time.monotonic() + chance.uniform(0.3, 8) ** 1.5 / 3
            while time.monotonic() < end:
                time.sleep(0.02)
                for one in watched:
                    one.look()
            old = set().union(*(one.kill() for one in watched))
            counts["kills"] += len(watched)
            crowd.settle()
            kept = dict(zip(crowd.urls(), crowd.recorded(), strict=True))
            assert all(kept[url] == 1 for url in old), "a result older than five seconds was lost"
            assert set(kept.values()) <= {0, 1}, "a result that was kept was made again"
            lost = [reads - kept[url] for url, reads in zip(crowd.urls(), crowd.reads(), strict=True)]
            crowd.expire_claims()
        words[words.index(15)] = 200
        done = crowd.verify(machines[0], *words)
        assert done.status == 0, done.err
        assert crowd.recorded() == [1] * 400
        assert crowd.reads() == [1 + one for one in lost], "a location was read more often than it had to be"
        counts["read again"] += sum(lost)
    return counts


def main() -> int:
    """Rounds in runs of ten or so kills each; the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="kills")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parsed = parser.parse_args()
    chance = random.Random(parsed.seed)
    print(f"seed {parsed.seed}", flush=True)
    kills = again = runs = 0
    with Programs() as programs, tempfile.TemporaryDirectory(prefix="glance-replicas-chaos-") as folder:
        while kills < parsed.rounds:
            counts = one_run(Path(folder, str(runs)), programs, chance, min(12, parsed.rounds - kills))
            kills, again, runs = kills + counts["kills"], again + counts["read again"], runs + 1
            print(f"{kills} kills in {runs} runs, {again} locations read again", flush=True)
    end_reaper()
    return 0


if __name__ == "__main__":
    sys.exit(main())
