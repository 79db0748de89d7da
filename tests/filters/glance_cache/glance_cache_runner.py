"""Runs Glance's own functional tests of its cache, as they are, with our filter in the pipeline they write.

    python tests/filters/glance_cache/glance_cache_runner.py stock|instead|before [TEST ...]

stock: the pipeline as it is; instead: our filter is what the pipeline calls `cache`; before: it stands before it.
Prints one line of JSON: the id of each test, and null, or the last lines of why it failed or was skipped. Run it in an
empty folder: Glance's tests write there.
"""

import json
import re
import shutil
import sys
import unittest
from pathlib import Path
from typing import Any

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import default_ledger

MODULES = ("glance.tests.functional.test_cache_middleware", "glance.tests.functional.v2.test_cache_api")
TRIES = 3  # of a test that met what is in NOT_OURS
# Glance's API and its threads, in one process, share a SQLite file, which refuses whoever reads, and then writes, while
# another writes: "a request of ours had to wait" is not what these tests are about. Nothing else is tried again.
NOT_OURS = "database is locked"
OURS = "use = egg:glance-replicas#cache\n"
STOCK = re.compile(r"paste\.filter_factory = glance\.api\.middleware\.cache:\s*CacheFilter\.factory\n")


def swapped(text: str, place: str) -> str:
    """The paste file that Glance's tests write, with our filter in it."""
    if place == "stock":
        return text
    if place == "instead":
        changed = STOCK.sub(OURS, text)
    else:
        changed = text.replace("context cache ", "context replica-cache cache ") + "[filter:replica-cache]\n" + OURS
    if changed == text or OURS not in changed:
        raise RuntimeError("the paste file of Glance's tests is not as expected")
    return changed


class Schema:
    """Glance's migrations run once; each later database is a copy of the first, empty one. Our tables are beside it."""

    def __init__(self, migrate: Any) -> None:
        self._migrate = migrate
        self._first = Path("empty.sqlite")

    def __call__(self, version: str = "heads", engine: Any = None) -> None:
        """As `glance.tests.utils.db_sync`."""
        path = Path(engine.url.database)
        ours = Path(default_ledger(f"sqlite:///{path}").removeprefix("sqlite:///"))
        if not self._first.exists():
            self._migrate(version, engine)
            engine.dispose()
            ledger = Ledger(f"sqlite:///{ours}")
            ledger.upgrade()
            ledger.close()
            shutil.copy(path, self._first)
            shutil.copy(ours, "ours.sqlite")
        else:
            shutil.copy(self._first, path)
            shutil.copy("ours.sqlite", ours)


class Result(unittest.TestResult):
    """What became of each test."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.found: dict[str, str | None] = {}
        self.again: list[str] = []  # tests that failed for a reason of their own

    def stopTest(self, test: unittest.TestCase) -> None:
        """Passed unless told otherwise."""
        super().stopTest(test)
        self.found.setdefault(test.id(), None)

    def _add(self, test: unittest.TestCase, details: Any) -> None:
        text = "\n".join(one.as_text() for name, one in (details or {}).items() if name in ("traceback", "reason"))
        self.found[test.id()] = "\n".join(text.strip().splitlines()[-12:]) or "no reason given"
        if any(NOT_OURS in one.as_text() for one in (details or {}).values()):  # the log of the test among them
            self.again.append(test.id())

    def addError(self, test: Any, err: Any = None, details: Any = None) -> None:
        """With testtools' details."""
        self._add(test, details)

    addFailure = addError

    def addSkip(self, test: Any, reason: Any = None, details: Any = None) -> None:
        """A test that does not run proves nothing."""
        self._add(test, details)

    def addSuccess(self, test: Any, details: Any = None) -> None:
        """It passed."""
        self.found[test.id()] = None


def main(place: str, *names: str) -> None:
    """The folder gets what Glance's tests expect to find below it."""
    import glance

    etc = Path("glance/tests")
    etc.mkdir(parents=True)
    (etc / "etc").symlink_to(Path(glance.__file__).parent / "tests" / "etc")
    from glance.tests import functional
    from oslo_config import cfg
    from oslo_db import options

    cfg.CONF.register_opts(options.database_opts, "database")  # some other test of Glance's whole suite does it
    base = functional.SynchronousAPIBase
    write = base.setup_simple_paste

    def setup_simple_paste(self: Any) -> None:
        write(self)
        path = Path(self.paste_config)
        path.write_text(swapped(path.read_text(), place))

    base.setup_simple_paste = setup_simple_paste
    functional.test_utils.db_sync = Schema(functional.test_utils.db_sync)
    found: dict[str, str | None] = {}
    chosen = list(names or MODULES)
    for _ in range(TRIES):
        result = Result()
        unittest.defaultTestLoader.loadTestsFromNames(chosen).run(result)
        found |= result.found
        chosen = result.again
        if not chosen:
            break
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
