"""A partial file that nobody else can spoil: its name, what each append looks at, and what Glance's own cache does."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.worlds.cached import picture

from glance_replicas.cache import Cache, incomplete
from glance_replicas.cache.eviction import Eviction
from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.errors import CacheError

A, B = (f"0000000{n}-0000-4000-8000-000000000000" for n in range(2))
OLD = "00000009-0000-4000-8000-000000000000"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


@pytest.fixture
def partial_file(cache: Cache) -> PartialFile:
    """Half of an image of 10 bytes."""
    made = cache.partials.begin(picture(A, 10))
    assert made is not None
    made.append(b"12345", 0)
    return made


def cut(path: Path) -> None:
    with path.open("wb"):
        pass


def cut_and_refill(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"0" * 5)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"XY")


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(b"12345")
    os.rename(other, path)


CHANGES = [cut, cut_and_refill, lengthen, overwrite, replace, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_changed_by_others_before_an_append(partial_file: PartialFile, change: Callable[[Path], None]) -> None:
    """Whatever another process does to a partial file, the next append finds it, and no hole is ever written."""
    change(partial_file.path)
    with pytest.raises(CacheError, match="another program changed this file"):
        partial_file.append(b"67890", 5)
    assert not partial_file.is_open


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_changed_by_others_before_the_commit(
    cache: Cache, partial_file: PartialFile, change: Callable[[Path], None]
) -> None:
    """A file that was changed after the last byte is not committed; nothing complete is left."""
    partial_file.append(b"67890", 5)
    change(partial_file.path)
    with pytest.raises(CacheError, match="another program changed this file"):
        cache.partials.commit(partial_file, picture(A, partial_file.size))
    assert not cache.complete.exists(A)


def test_no_hole_in_between(cache: Cache) -> None:
    """A file that is cut again and again while it is written never gets a hole: appended is at the end."""
    partial_file = cache.partials.begin(picture(A, 1 << 30))
    assert partial_file is not None
    stop = threading.Event()

    def cutting() -> None:
        with contextlib.suppress(FileNotFoundError):
            while not stop.wait(0.001):
                os.truncate(partial_file.path, 0)

    thread = threading.Thread(target=cutting)
    thread.start()
    try:
        with pytest.raises(CacheError, match="another program"):
            for number in range(1 << 14):
                partial_file.append(b"x" * 65536, number * 65536)
    finally:
        stop.set()
        thread.join()


def test_a_short_file_is_not_committed(cache: Cache, partial_file: PartialFile) -> None:
    """Five bytes of ten are no image, whoever says so."""
    with pytest.raises(CacheError, match="it has 5 bytes"):
        cache.partials.commit(partial_file, picture(A, partial_file.size))
    assert not cache.complete.exists(A)


def test_innocent_changes_end_no_fill(cache: Cache, partial_file: PartialFile) -> None:
    """Changes of mode, of the time of the last read, and another name (a backup by links) are no writes."""
    partial_file.path.chmod(0o664)
    os.link(partial_file.path, cache.folder / "backup")
    os.utime(partial_file.path, ns=(1, partial_file.path.stat().st_mtime_ns))
    partial_file.append(b"67890", 5)
    cache.partials.commit(partial_file, picture(A, partial_file.size))
    assert cache.path(A).read_bytes() == b"1234567890"


def test_nobody_else_may_write(cache: Cache, partial_file: PartialFile) -> None:
    """Neither group nor others can open a partial file, nor reach its folder."""
    assert partial_file.path.stat().st_mode & 0o777 == 0o600
    assert partial_file.path.parent.stat().st_mode & 0o777 == 0o700
    assert cache.own("").stat().st_mode & 0o777 == 0o700


GLANCE = """
import sys
from oslo_config import cfg
from glance import image_cache
cfg.CONF([], default_config_files=[])
cfg.CONF.set_override("image_cache_dir", sys.argv[1])
for driver in ("centralized_db", "sqlite"):
    cfg.CONF.set_override("image_cache_driver", driver)
    cache = image_cache.ImageCache()
    cache.driver.db_api = type("Nothing", (), {"__getattr__": lambda *_: lambda *_: None})()  # no database
    cache.delete_all_cached_images()
    cache.delete_all_queued_images()
    cache.clean(0)
    assert not cache.driver.is_being_cached(sys.argv[2])
    with cache.driver.open_for_write(sys.argv[2]) as file:
        file.write(b"others")
    cache.delete_cached_image(sys.argv[2])
"""


def test_glance_reaches_none_of_it(cache: Cache, partial_file: PartialFile) -> None:
    """What Glance's cache API, cleaner and pruner do to a directory leaves our partial files, locks and marks alone."""
    ours = ("janitor", "space", "since")
    for name in ours:
        cache.own(name).touch()
        os.utime(cache.own(name), (1, 1))
    Eviction(cache, 100, 0, withdraw=lambda _: None).trim()
    command = [sys.executable, "-W", "ignore", "-c", GLANCE, str(cache.folder), A]
    subprocess.run(command, check=True, timeout=300)
    assert all(cache.own(name).exists() for name in ours)
    partial_file.append(b"67890", 5)
    cache.partials.commit(partial_file, picture(A, partial_file.size))
    assert cache.path(A).read_bytes() == b"1234567890"


def test_left_by_version_0_1(cache: Cache) -> None:
    """What nobody goes on writing in incomplete/ goes; what is locked, or was written to a moment ago, stays."""
    idle, locked, fresh = (cache.folder / "incomplete" / one for one in (A, B, OLD))
    for path in (idle, locked, fresh):
        path.write_bytes(b"12345")
    os.utime(idle, (1, 1))
    holder = PartialFile.lock(locked, 10)
    os.utime(locked, (1, 1))
    assert Eviction(cache, 0, 0, withdraw=print).used() >= 15
    assert incomplete.clear(cache, 3600) == [(A, 5)]
    assert (idle.exists(), locked.exists(), fresh.exists()) == (False, True, True)
    assert holder is not None
    holder.close()


def test_mark_of_version_0_1(tmp_path: Path) -> None:
    """The moment since when a directory has been ours outlives the upgrade."""
    cache = Cache(tmp_path)
    (tmp_path / ".replicas").touch()
    os.utime(tmp_path / ".replicas", (1000, 1000))
    cache.prepare()
    cache.prepare()
    assert cache.own("since").stat().st_mtime == 1000
    assert not (tmp_path / ".replicas").exists()
