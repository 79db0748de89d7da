"""The directory of one host, and room in it."""

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.worlds.cached import picture

from glance_replicas.cache import Cache
from glance_replicas.cache.eviction import Eviction, NoRoom
from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.errors import CacheError, CatalogueError

A, B, C, D = (f"0000000{n}-0000-4000-8000-000000000000" for n in range(4))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


def keep(cache: Cache, image_id: str, size: int, idle: float = 0.0) -> None:
    """A complete, verified file last used so many seconds ago."""
    partial_file = cache.partials.begin(picture(image_id, size))
    assert partial_file is not None
    partial_file.append(b"x" * size, 0)
    cache.partials.commit(partial_file, picture(image_id, partial_file.size))
    path = cache.path(image_id)
    os.utime(path, ns=(time.time_ns() - int(idle * 1e9), path.stat().st_mtime_ns))


def test_commit_makes_a_verified_file(cache: Cache) -> None:
    """After a commit the file is whole, marked, and nothing is left where it grew."""
    keep(cache, A, 100)
    copy = cache.complete.open(A)
    assert copy is not None
    assert (copy.entry.size, copy.entry.verified) == (100, True)
    assert cache.listed("partial") == []
    copy.close()


def test_a_pin_is_on_the_file(cache: Cache) -> None:
    """A pin is set, seen and lifted again; it leaves what is known of the file alone, and outlives a verification."""
    keep(cache, A, 10, idle=300)
    before = next(cache.complete.entries())
    assert (cache.complete.pin(A, True), cache.complete.pin(A, True)) == (True, True)
    assert next(cache.complete.entries()) == dataclasses.replace(before, pinned=True)
    copy = cache.complete.open(A)
    assert copy is not None
    cache.complete.mark_verified(picture(A, copy.entry.size), copy)
    copy.close()
    pinned = next(cache.complete.entries())
    assert (pinned.pinned, pinned.verified) == (True, True)
    assert cache.complete.pin(A, False)
    assert not next(cache.complete.entries()).pinned
    assert cache.complete.pin(B, True) is False


def test_a_pin_does_not_verify(cache: Cache) -> None:
    """A file of the stock cache stays unverified with a pin, and the pin stays when it is verified."""
    cache.path(A).write_bytes(b"12345")
    assert cache.complete.pin(A, True)
    copy = cache.complete.open(A)
    assert copy is not None
    assert (copy.entry.pinned, copy.entry.verified) == (True, False)
    cache.complete.mark_verified(picture(A, copy.entry.size), copy)
    copy.close()
    entry = next(cache.complete.entries())
    assert (entry.pinned, entry.verified) == (True, True)


def test_foreign_names_are_left_alone(cache: Cache) -> None:
    """lost+found, links, folders and odd names in the directory are neither listed nor opened."""
    (cache.folder / "lost+found").mkdir()
    (cache.folder / "notes.txt").write_text("mine")
    (cache.folder / A).symlink_to("/etc/passwd")
    (cache.folder / B).mkdir()
    (cache.folder / "ABCDEF000000400080000000000000000000").write_text("no hyphens, no id")
    assert list(cache.complete.entries()) == []
    assert cache.complete.open(A) is None
    assert cache.complete.open(B) is None
    with pytest.raises(ValueError, match="is not an image id"):
        cache.complete.open("../etc/passwd")


def test_a_forked_process_keeps_no_lock(cache: Cache) -> None:
    """A process forked during a fill, which has its descriptor, keeps the file from neither eviction nor readers."""
    partial_file = cache.partials.begin(picture(A, 10))
    assert partial_file is not None
    partial_file.append(b"x" * 10, 0)
    child = os.fork()
    if not child:
        signal.pause()
    try:
        cache.partials.commit(partial_file, picture(A, partial_file.size))
        copy = cache.complete.take(A)
        assert copy is not None
        copy.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_only_one_filler(cache: Cache) -> None:
    """The second filler is told so, in this process and in another one."""
    partial_file = cache.partials.begin(picture(A, 10))
    assert partial_file is not None
    assert cache.partials.begin(picture(A, 10)) is None
    script = (
        f"from glance_replicas.cache import Cache; from pathlib import Path; import sys\n"
        "from glance_replicas.model import *\n"
        f"image = Image({A!r}, 'active', 10, Digest('sha512', '00'))\n"
        f"sys.exit(Cache(Path({str(cache.folder)!r})).partials.begin(image) is not None)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    partial_file.discard()
    again = cache.partials.begin(picture(A, 10))
    assert again is not None
    again.discard()


def test_begin_finds_the_image_complete(cache: Cache) -> None:
    """A filler that comes just after the commit does not start again, and leaves nothing."""
    keep(cache, A, 10)
    assert cache.partials.begin(picture(A, 10)) is None
    assert cache.listed("partial") == []


def test_what_a_dead_filler_left_is_kept(cache: Cache) -> None:
    """A partial file without a lock is taken over with its bytes."""
    first = cache.partials.begin(picture(A, 10))
    assert first is not None
    first.append(b"12345", 0)
    first.close()
    second = cache.partials.begin(picture(A, 10))
    assert second is not None
    assert second.length == 5
    second.discard()


@pytest.mark.parametrize("case", ["before boot", "too long"])
def test_what_cannot_be_trusted_is_dropped(cache: Cache, case: str) -> None:
    """Bytes from before a crash of the machine may never have reached the disk; more than the size are not ours."""
    path = cache.partial_path(A)
    path.write_bytes(b"z" * (5 if case == "before boot" else 50))
    if case == "before boot":
        os.utime(path, (1, 1))
    partial_file = cache.partials.begin(picture(A, 10))
    assert partial_file is not None
    assert partial_file.length == 0
    partial_file.discard()


def test_a_rename_cut_in_two(cache: Cache) -> None:
    """After a crash of the machine a file may have both names: the growing one goes, the complete one stays whole."""
    keep(cache, A, 10)
    other = cache.partial_path(A)
    other.hardlink_to(cache.path(A))
    os.utime(other, (1, 1))
    partial_file = PartialFile.lock(other, 10)
    assert partial_file is not None
    assert partial_file.length == 0
    assert cache.path(A).read_bytes() == b"x" * 10
    partial_file.discard()


def test_discard_spares_the_successor(cache: Cache) -> None:
    """A filler that ends late does not remove the partial file of the one after it."""
    first = cache.partials.begin(picture(A, 10))
    assert first is not None
    cache.partials.condemn(first, A)
    second = cache.partials.begin(picture(A, 10))
    assert second is not None
    first.discard()
    assert cache.partial_path(A).exists()
    second.discard()


def test_fates(cache: Cache) -> None:
    """A follower can tell growing, complete, invalid and gone apart, by the file it holds open."""
    for image_id, end in ((A, "complete"), (B, "invalid"), (C, "gone")):
        partial_file = cache.partials.begin(picture(image_id, 3))
        assert partial_file is not None
        fd = cache.partials.follow(picture(image_id, 3))
        assert fd is not None
        assert cache.partials.fate(image_id, fd) == "partial"
        partial_file.append(b"abc", 0)
        {
            "complete": lambda g=partial_file, i=image_id: cache.partials.commit(g, picture(i, 3)),
            "invalid": lambda g=partial_file, i=image_id: cache.partials.condemn(g, i),
            "gone": partial_file.discard,
        }[end]()
        assert cache.partials.fate(image_id, fd) == end
        os.close(fd)


def test_missing_directory_is_a_cache_error(tmp_path: Path) -> None:
    """A directory that vanished is an error that names it, never an empty cache."""
    cache = Cache(tmp_path / "nowhere")
    with pytest.raises(CacheError, match="nowhere"):
        list(cache.complete.entries())
    with pytest.raises(CacheError, match="nowhere"):
        cache.partials.begin(picture(A, 10))


def test_eviction_takes_the_least_recently_used(cache: Cache) -> None:
    """Enough goes, oldest use first, each withdrawn while its file is still there."""
    for image_id, idle in ((A, 30), (B, 300), (C, 3000)):
        keep(cache, image_id, 1000, idle)
    gone: list[str] = []

    def withdraw(image_id: str) -> None:
        assert cache.complete.exists(image_id)
        gone.append(image_id)

    partial_file = cache.partials.begin(picture(D, 1500))
    assert partial_file is not None
    Eviction(cache, 3000, 0, withdraw=withdraw).reserve(partial_file, 1500)
    assert gone == [C, B]
    assert [one.image_id for one in cache.complete.entries()] == [A]
    partial_file.discard()


def test_eviction_spares_what_is_read(cache: Cache) -> None:
    """A file open in any reader stays, and the fill that needs its room gets NoRoom."""
    keep(cache, A, 1000, 3000)
    copy = cache.complete.open(A)
    partial_file = cache.partials.begin(picture(D, 1500))
    assert partial_file is not None
    with pytest.raises(NoRoom):
        Eviction(cache, 2000, 0, withdraw=lambda image_id: None).reserve(partial_file, 1500)
    assert cache.complete.exists(A)
    assert copy is not None
    copy.close()
    Eviction(cache, 2000, 0, withdraw=lambda image_id: None).reserve(partial_file, 1500)
    assert not cache.complete.exists(A)
    partial_file.discard()


def test_eviction_stops_when_a_row_cannot_be_withdrawn(cache: Cache) -> None:
    """Without the catalogue no file goes: the row would outlive it (promise 1)."""
    keep(cache, A, 1000, 3000)

    def withdraw(image_id: str) -> None:
        raise CatalogueError("database away")

    partial_file = cache.partials.begin(picture(D, 1500))
    assert partial_file is not None
    with pytest.raises(CatalogueError):
        Eviction(cache, 2000, 0, withdraw=withdraw).reserve(partial_file, 1500)
    assert cache.complete.exists(A)
    partial_file.discard()


def test_too_large_for_the_quota(cache: Cache) -> None:
    """An image larger than the whole quota evicts nothing."""
    keep(cache, A, 1000)
    partial_file = cache.partials.begin(picture(D, 5000))
    assert partial_file is not None
    with pytest.raises(NoRoom, match="max_bytes"):
        Eviction(cache, 2000, 0, withdraw=lambda image_id: None).reserve(partial_file, 5000)
    assert cache.complete.exists(A)
    partial_file.discard()


def test_free_space_limit(cache: Cache) -> None:
    """min_free_bytes is kept even when the quota would allow more."""
    partial_file = cache.partials.begin(picture(D, 10))
    assert partial_file is not None
    with pytest.raises(NoRoom):
        Eviction(cache, 0, 1 << 60, withdraw=lambda image_id: None).reserve(partial_file, 10)
    partial_file.discard()


def test_reservations_of_several_processes_add_up(cache: Cache) -> None:
    """Eight processes reserve 1 MiB each under a quota of 4 MiB: four get it."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from glance_replicas.cache import Cache; from glance_replicas.cache.eviction import NoRoom, Eviction\n"
        f"cache = Cache(Path({str(cache.folder)!r}))\n"
        "from glance_replicas.model import *\n"
        "growing = cache.partials.begin(Image(sys.argv[1], 'active', 1 << 20, Digest('sha512', '00')))\n"
        "try:\n    Eviction(cache, 4 << 20, 0, withdraw=print).reserve(growing, 1 << 20); print('yes', flush=True)\n"
        "except NoRoom:\n    growing.discard(); print('no', flush=True)\n"
        "sys.stdin.read()\n"
    )
    ids = [f"1000000{n}-0000-4000-8000-000000000000" for n in range(8)]
    running = [
        subprocess.Popen([sys.executable, "-c", script, one], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for one in ids
    ]
    answers = [one.stdout.readline().strip() for one in running if one.stdout]
    for one in running:
        one.communicate()
    assert sorted(answers) == ["no"] * 4 + ["yes"] * 4


def test_invalid_files_go_first(cache: Cache) -> None:
    """Evidence of a bad fill gives way before a good copy does."""
    keep(cache, A, 1000, 3000)
    bad = cache.partials.begin(picture(B, 1000))
    assert bad is not None
    bad.append(b"y" * 1000, 0)
    cache.partials.condemn(bad, B)
    partial_file = cache.partials.begin(picture(D, 1000))
    assert partial_file is not None
    Eviction(cache, 6000, 0, withdraw=lambda image_id: None).reserve(partial_file, 1000)
    assert cache.complete.exists(A)
    partial_file.discard()


def test_lock_is_free_after_close(cache: Cache) -> None:
    """No descriptor of a filler stays locked after it ended."""
    path = cache.partial_path(A)
    partial_file = PartialFile.lock(path, 10)
    assert partial_file is not None
    partial_file.close()
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
