"""Which worker runs which test files, and what the whole run says of its time at the end."""

import functools
import re
from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# The fixtures of slow servers as test modules name them. A worker that has started one gets all files that need it.
SLOW = {
    "Ceph": re.compile(r"\b(ceph|gateway|cinder)(: [A-Z]|\"\))|stores\.gateway\b|places\.(attached|blocks)\b"),
    "Galera": re.compile(r"\bgalera: Galera\b"),
    "Swift": re.compile(r"\b(swift|keystone)(: [A-Z]|\"\))|worlds\.deep\b"),
}


class Scheduling(LoadFileScheduling):
    """Files in their order, but those that need a slow server go to the worker that has it while there are others."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)
        self._root, self._owners = config.rootpath, dict[str, WorkerController]()

    def _assign_work_unit(self, node: WorkerController) -> None:
        needs = {file: needed(self._root / file) for file in self.workqueue}
        own = [file for file, name in needs.items() if self._owners.get(name) is node]
        free = [file for file, name in needs.items() if name not in self._owners]
        for file in (own + free)[:1]:
            if needs[file]:
                self._owners.setdefault(needs[file], node)
            self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


@functools.cache
def needed(file: Path) -> str:
    """The slow server that the tests of a file need; empty where they need none."""
    text = file.read_text()
    return next((name for name, words in SLOW.items() if words.search(text)), "")


def summary(reporter: pytest.TerminalReporter) -> None:
    """The files that took most time, how much all of them did, and when each worker was done."""
    seconds, done = Counter[str](), dict[str, float]()
    for report in (one for found in reporter.stats.values() for one in found if isinstance(one, pytest.TestReport)):
        seconds[report.nodeid.partition("::")[0]] += report.duration
        worker = getattr(report, "worker_id", "this process")
        done[worker] = max(done.get(worker, 0), report.stop)
    reporter.section("seconds by file")
    for name, taken in seconds.most_common(40):
        reporter.line(f"{taken:7.0f}  {name}")
    reporter.line(f"{seconds.total():7.0f}  in {len(seconds)} files")
    last = max(done.values(), default=0)
    for worker, when in sorted(done.items()):
        reporter.line(f"{last - when:7.0f}  before the end {worker} was done")
