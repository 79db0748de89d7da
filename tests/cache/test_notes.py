"""Where the file system keeps no attributes: what is known of a file is noted beside it, and holds as well."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import absent
from support.worlds.cached import entry_of, picture

from glance_replicas.cache import Cache
from glance_replicas.cache.eviction import Eviction
from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.model import Image

A = "00000000-0000-4000-8000-000000000000"
DATA, OTHER = b"1234567890", b"0987654321"
IMAGE, ANOTHER = (picture(A, len(data), data) for data in (DATA, OTHER))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A directory on a file system without user attributes."""
    root = tmp_path / "mounted"
    root.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", root], check=False).returncode:
        absent("mounting a ramfs is not permitted here")
    made = Cache(root / "cache")
    made.prepare()
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        os.setxattr(made.folder, "user.x", b"1")
    yield made
    subprocess.run(["umount", "--lazy", root], check=True)


def begun(cache: Cache, image: Image) -> PartialFile:
    partial_file = cache.partials.begin(image)
    assert partial_file is not None
    return partial_file


def keep(cache: Cache, image: Image = IMAGE, data: bytes = DATA) -> Path:
    """A complete file that was read."""
    partial_file = begun(cache, image)
    partial_file.append(data, partial_file.length)
    cache.partials.commit(partial_file, image)
    assert entry_of(cache.path(A)).is_file_of(image)
    return cache.path(A)


def left(cache: Cache) -> list[str]:
    """The notes that there are."""
    return sorted(path.name for path in cache.own("known").iterdir())


def test_innocent_changes(cache: Cache) -> None:
    """chmod takes back neither what was read nor a pin, and a restart knows both."""
    path = keep(cache)
    assert cache.complete.pin(A, True)
    before = entry_of(path)
    for mode in (0o640, 0o444):
        path.chmod(mode)
        assert entry_of(path) == before
    assert (before.verified, before.pinned) == (True, True)
    assert Cache(cache.folder).complete.pin(A, False)
    assert not entry_of(path).pinned


def test_modes_make_no_note(cache: Cache) -> None:
    """A file that nobody of us read, or that was written to or replaced since, is an unread one, whatever its mode."""
    cache.path(A).write_bytes(DATA)
    cache.path(A).chmod(0o440)
    assert not entry_of(cache.path(A)).verified
    cache.path(A).unlink()
    path = keep(cache)
    path.chmod(0o640)
    time.sleep(0.02)
    path.write_bytes(OTHER)
    assert not entry_of(path).verified
    path.unlink()
    path = keep(cache)
    new = path.with_suffix(".new")
    time.sleep(0.02)  # the clock of a file system ticks that often
    new.write_bytes(OTHER)
    os.rename(new, path)
    assert not entry_of(path).verified


def test_a_growing_file_of_another_image(cache: Cache) -> None:
    """What was left of a purged image is not gone on with under its id, nor followed (OSSN-0075)."""
    partial_file = begun(cache, IMAGE)
    partial_file.append(DATA[:5], 0)
    fd = cache.partials.follow(IMAGE)
    assert fd is not None
    os.close(fd)
    assert cache.partials.follow(ANOTHER) is None
    partial_file.close()
    again = begun(cache, IMAGE)
    assert again.length == 5
    again.close()
    assert begun(cache, ANOTHER).length == 0


@pytest.mark.parametrize("way", ["evicted", "removed", "another's"])
def test_a_file_that_goes_takes_its_notes_along(cache: Cache, way: str) -> None:
    """Nothing is left of them for a file that comes later, and they do not pile up."""
    path = keep(cache)
    if way == "evicted":
        os.utime(path, ns=(0, path.stat().st_mtime_ns))
        assert Eviction(cache, 1, 0, withdraw=lambda _: None).trim().bytes == len(DATA)
    elif way == "removed":
        cache.complete.remove(A)
    else:
        assert cache.complete.pin(A, True)
        copy = cache.complete.open(A)
        assert copy is not None
        assert copy.entry.is_anothers(ANOTHER)
        cache.complete.remove_copy(A, copy)
        copy.close()
    assert not path.exists()
    assert left(cache) == []
    assert not entry_of(keep(cache, ANOTHER, OTHER)).pinned
