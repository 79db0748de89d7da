"""What Glance's own cache programs, run past glance-api, do to a directory of ours: what `replica check` says."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from services import need
from services.configuration import conf_text
from services.databases.schema import sqlite_database
from support.worlds.cached import keep, picture

from glance_replicas.cache import Cache
from glance_replicas.cache.host_lock import HostLock

pytestmark = pytest.mark.slow

IDS = [f"0000000{number}-0000-4000-8000-000000000000" for number in range(1, 5)]
# With centralized_db the pruner does not end: no row is ours, and its loop takes none for another one to remove.
DRIVERS = ("centralized_db", "sqlite", "xattr")
RUNS = [*(("cleaner", name) for name in DRIVERS), ("pruner", "sqlite"), ("pruner", "xattr")]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    """Of a directory of ours the files that are there after each program with each driver."""
    database = sqlite_database(tmp_path_factory.mktemp("database") / "glance.sqlite")
    folders = {run: tmp_path_factory.mktemp("-".join(run)) for run in RUNS}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: _run(*run, folders[run], database), RUNS))
    return {run: _files(folder / "cache") for run, folder in folders.items()}


def _run(program: str, driver: str, folder: Path, database: str) -> None:
    """Limits that everything here exceeds; nobody holds a lock."""
    _fill(Cache(folder / "cache"))
    options = {
        "DEFAULT": {
            "image_cache_dir": str(folder / "cache"),
            "image_cache_driver": driver,
            "image_cache_max_size": "1000",
            "image_cache_stall_time": "1",
            "worker_self_reference_url": "http://127.0.0.9:9292",
            "transport_url": "fake:/",
        },
        "glance_store": {"stores": "file", "filesystem_store_datadir": str(folder)},
        "database": {"connection": database},
    }
    (folder / "glance-api.conf").write_text(conf_text(options))
    command = [sys.executable, need(f"glance-cache-{program}"), "--config-file", folder / "glance-api.conf"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def _fill(cache: Cache) -> None:
    """Two copies, a partial file and locks that nobody has touched for long, evidence, and a request."""
    cache.prepare()
    for image_id in IDS[:2]:
        keep(cache.path(image_id), b"x" * 2000)
    partial_file = cache.partials.begin(picture(IDS[2], 1000))
    assert partial_file is not None
    partial_file.append(b"y" * 100, 0)
    partial_file.close()
    lock = HostLock(cache, "janitor")
    assert lock.take()
    lock.free()
    (cache.folder / "invalid" / IDS[3]).write_bytes(b"z")
    (cache.folder / "queue" / IDS[3]).touch()
    for path in (cache.partial_path(IDS[2]), cache.own("janitor")):
        os.utime(path, (0, 0))


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_growing_files_locks_and_requests_stay(left: dict[tuple[str, str], set[str]], run: tuple[str, str]) -> None:
    """No program of Glance, with any driver, reaches what we are at work with."""
    own = ".glance-replicas"
    assert {f"{own}/partial/{IDS[2]}", f"{own}/janitor", f"queue/{IDS[3]}"} <= left[run]


def test_copies_stay_but_for_the_pruner_with_xattr(left: dict[tuple[str, str], set[str]]) -> None:
    """The one case in which files go under their rows, which `replica check` calls an error."""
    gone = {run for run, files in left.items() if not set(IDS[:2]) <= files}
    assert gone == {("pruner", "xattr")}


def test_the_cleaner_takes_evidence(left: dict[tuple[str, str], set[str]]) -> None:
    """What was set aside goes a day before its time: a warning."""
    kept = {run for run, files in left.items() if f"invalid/{IDS[3]}" in files}
    assert kept == {("pruner", "sqlite"), ("pruner", "xattr")}
