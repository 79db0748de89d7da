"""Which files go when room is needed, and which stay."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import pytest
from support.worlds.cached import picture

from glance_replicas.cache import Cache
from glance_replicas.cache.eviction import Eviction, NoRoom
from glance_replicas.cache.partial_file import PartialFile

A, B, C, D, E = (f"0000000{n}-0000-4000-8000-000000000000" for n in range(5))
SIZE = 100_000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.prepare()
    return made


def keep(cache: Cache, image_id: str, idle: float, pinned: bool = False) -> None:
    """A complete, verified file last used so many seconds ago."""
    partial_file = cache.partials.begin(picture(image_id, SIZE))
    assert partial_file is not None
    partial_file.append(b"x" * SIZE, 0)
    cache.partials.commit(partial_file, picture(image_id, partial_file.size))
    path = cache.path(image_id)
    os.utime(path, ns=(time.time_ns() - int(idle * 1e9), path.stat().st_mtime_ns))
    cache.complete.pin(image_id, pinned)


def fill(cache: Cache, space: Callable[..., Eviction], size: int = SIZE) -> list[str]:
    """What went to make room for a fill of E."""
    gone: list[str] = []
    partial_file = cache.partials.begin(picture(E, size))
    assert partial_file is not None
    try:
        space(withdraw=gone.append).reserve(partial_file, size)
    finally:
        partial_file.discard()
    return gone


def test_copies_of_others_go_first(cache: Cache) -> None:
    """Cold ones that others hold, cold ones only we hold, then those used in the last hour, by the same order."""
    keep(cache, A, 100)
    keep(cache, B, 50)
    keep(cache, C, 9000)
    keep(cache, D, 5000)
    asked: list[set[str]] = []

    def elsewhere(image_ids: Collection[str]) -> Collection[str]:
        asked.append(set(image_ids))
        return {B, D}

    space = partial(Eviction, cache, 4 * SIZE, 0, elsewhere=elsewhere)
    assert [fill(cache, space, size) for size in (SIZE, 2 * SIZE, 3 * SIZE, 4 * SIZE)] == [[D], [C], [B], [A]]
    assert asked == [{A, B, C, D}, {A, B, C}, {A, B}, {A}]


def test_what_it_holds_already_counts_once(cache: Cache) -> None:
    """A fill that goes on after its reservation was given back fits where it would have fitted whole."""
    keep(cache, A, 5000)
    partial_file = cache.partials.begin(picture(E, 3 * SIZE))
    assert partial_file is not None
    partial_file.append(b"x" * SIZE, 0)
    gone: list[str] = []
    try:
        Eviction(cache, 4 * SIZE + 8192, 0, withdraw=gone.append).reserve(partial_file, 3 * SIZE)
        partial_file.give_back()
        assert SIZE <= partial_file.held < SIZE + 8192
    finally:
        partial_file.discard()
    assert gone == []


def test_others_are_asked_only_when_something_must_go(cache: Cache) -> None:
    """A fill that fits, or fits once a wrong file has gone, and a pass with nothing to do ask nobody."""
    keep(cache, A, 5000)
    bad = cache.partials.begin(picture(B, SIZE))
    assert bad is not None
    bad.append(b"y" * SIZE, 0)
    cache.partials.condemn(bad, B)

    def elsewhere(_: Collection[str]) -> Collection[str]:
        raise AssertionError("asked")

    assert fill(cache, partial(Eviction, cache, 3 * SIZE, 0, elsewhere=elsewhere)) == []
    assert fill(cache, partial(Eviction, cache, 2 * SIZE, 0, elsewhere=elsewhere)) == []
    assert Eviction(cache, 2 * SIZE, 0, elsewhere=elsewhere, withdraw=lambda _: None).trim().bytes == 0
    assert (cache.complete.exists(A), cache.listed("invalid")) == (True, [])


def test_pinned_files_stay(cache: Cache) -> None:
    """Neither a fill nor the janitor evicts a pinned file, however long unused; a fill says what is in its way."""
    keep(cache, A, 90_000, pinned=True)
    keep(cache, B, 50)
    space = partial(Eviction, cache, 2 * SIZE, 0)
    assert fill(cache, space) == [B]
    with pytest.raises(NoRoom, match=r"1 pinned copies take 100000 bytes; see replica pin list.* replica pin remove"):
        fill(cache, space, 2 * SIZE)
    assert Eviction(cache, SIZE // 2, 0, withdraw=lambda _: None).trim().bytes == 0
    assert Eviction(cache, 0, 1 << 60, withdraw=lambda _: None).trim().bytes == 0
    assert cache.complete.exists(A)
    cache.complete.pin(A, False)
    assert fill(cache, space, 2 * SIZE) == [A]


def test_pins_are_not_blamed_for_readers(cache: Cache) -> None:
    """When what is being read is in the way, a small pinned file is not named."""
    keep(cache, A, 5000)
    copy = cache.complete.open(A)
    with pytest.raises(NoRoom, match="in use"):
        fill(cache, partial(Eviction, cache, SIZE, 0))
    assert copy is not None
    copy.close()


def test_pinned_while_others_evict(cache: Cache) -> None:
    """A file pinned by one process is never taken by the processes that evict at the same time."""
    for image_id in (A, B, C, D):
        keep(cache, image_id, 5000)
    script = (
        "import sys, time; from pathlib import Path\n"
        "from glance_replicas.cache import Cache; from glance_replicas.cache.eviction import Eviction\n"
        f"space = Eviction(Cache(Path({str(cache.folder)!r})), {SIZE // 2}, 0, withdraw=lambda _: time.sleep(0.02))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(space.trim().bytes, flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0) for _ in "12"
    ]
    for one in running:
        assert one.stdin
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
        one.stdin.write("go\n")
    answers = {image_id: cache.complete.pin(image_id, True) for image_id in (D, C, B, A)}
    freed = sum(int(one.communicate()[0]) for one in running)
    left = {entry.image_id for entry in cache.complete.entries()}
    assert left == {image_id for image_id, pinned in answers.items() if pinned}
    assert freed == (4 - len(left)) * SIZE


@pytest.mark.parametrize(("files", "freed"), [(9, 0), (10, 2), (12, 4)])
def test_watermarks(cache: Cache, files: int, freed: int) -> None:
    """The janitor evicts above the high watermark only, then down to the low one; a fill uses the whole quota."""
    ids = [f"1000000{n:x}-0000-4000-8000-000000000000" for n in range(files)]
    for number, image_id in enumerate(ids):
        keep(cache, image_id, 90_000 - number)
    space = partial(Eviction, cache, 10 * SIZE, 0, high_percent=95, low_percent=85)
    if files == 9:
        assert fill(cache, space) == []
    gone: list[str] = []
    assert space(withdraw=gone.append).trim().bytes == freed * SIZE
    assert gone == ids[:freed]


def test_watermarks_the_wrong_way_round(cache: Cache) -> None:
    """A low watermark above the high one counts as that."""
    for image_id in (A, B, C):
        keep(cache, image_id, 5000)
    assert Eviction(cache, 4 * SIZE, 0, high_percent=50, low_percent=90, withdraw=lambda _: None).trim().bytes == SIZE


def test_room_is_not_taken_for_reserved(tmp_path: Path) -> None:
    """The rest of a last block is no reservation; blocks for all bytes are one."""
    partial_file = PartialFile.lock(tmp_path / A, SIZE)
    assert partial_file is not None
    partial_file.append(b"x", 0)
    os.fsync(partial_file.fd)
    assert partial_file.held < SIZE
    assert partial_file.reserve(SIZE)
    assert partial_file.held >= SIZE
    partial_file.discard()


def test_a_wrong_file_takes_its_length(cache: Cache) -> None:
    """What was reserved for a fill that went wrong is given back, and the file counts by its bytes."""
    partial_file = cache.partials.begin(picture(A, 50 * SIZE))
    assert partial_file is not None
    assert partial_file.reserve(50 * SIZE)
    partial_file.append(b"x" * 1000, 0)
    cache.partials.condemn(partial_file, A)
    [(_, facts)] = cache.listed("invalid")
    assert facts.st_blocks * 512 < SIZE
    assert Eviction(cache, 0, 0, withdraw=print).used() == 1000


def test_nothing_is_missed_on_its_way(cache: Cache) -> None:
    """A file that becomes complete while the files are counted is counted, once (else two fills get its room)."""
    size = 102_400  # whole blocks of the disk
    space = Eviction(cache, 0, 0, withdraw=print)
    image_ids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(300)]

    def commits() -> None:
        for image_id in image_ids:
            partial_file = cache.partials.begin(picture(image_id, size))
            assert partial_file is not None
            partial_file.append(bytes(size), 0)
            begun.append(image_id)
            cache.partials.commit(partial_file, picture(image_id, partial_file.size))

    begun: list[str] = []
    writer = threading.Thread(target=commits)
    writer.start()
    looks = 0
    while writer.is_alive():
        least = len(begun) * size
        used = space.used()
        assert least <= used <= (len(begun) + 1) * size
        looks += 1
    writer.join()
    assert looks
    assert space.used() == len(image_ids) * size


@pytest.mark.parametrize("more", [0, 1])
def test_what_cannot_fit_touches_nothing(cache: Cache, more: int) -> None:
    """A fill beside a pinned file: the last byte that fits evicts what it takes, one more nothing, and asks nobody."""
    keep(cache, A, 9000)
    keep(cache, B, 5000, pinned=True)
    wrong = cache.partials.begin(picture(C, SIZE))
    assert wrong is not None
    wrong.append(b"y" * 1000, 0)
    cache.partials.condemn(wrong, C)
    asked: list[set[str]] = []

    def asks(image_ids: Collection[str]) -> Collection[str]:
        asked.append(set(image_ids))
        return ()

    space = partial(Eviction, cache, 3 * SIZE, 0, elsewhere=asks, kept=asks)
    if more:
        for _ in range(2):
            with pytest.raises(NoRoom, match="1 pinned copies"):
                fill(cache, space, 2 * SIZE + more)
        assert asked == []
    else:
        assert fill(cache, space, 2 * SIZE) == [A]
    assert (cache.complete.exists(A), len(cache.listed("invalid"))) == (bool(more), more)


def test_what_is_being_read_is_seen_before_anything_goes(cache: Cache) -> None:
    """When a file that somebody reads is in the way, no other goes in vain."""
    for image_id in (A, B):
        keep(cache, image_id, 9000)
    reader = cache.complete.open(A)
    assert reader is not None
    with pytest.raises(NoRoom, match="in use"):
        fill(cache, partial(Eviction, cache, 2 * SIZE, 0), 2 * SIZE)
    assert cache.complete.exists(B)
    reader.close()
    assert fill(cache, partial(Eviction, cache, 2 * SIZE, 0), 2 * SIZE) == [A, B], (
        "that somebody looked at it is no use"
    )


def test_last_copies_are_passed_over(cache: Cache) -> None:
    """A last copy stays and the next file goes; where nothing else is left it is named, and nothing goes."""
    for image_id, idle in ((A, 9000), (B, 5000)):
        keep(cache, image_id, idle)
    asked: list[list[str]] = []

    def kept(image_ids: Collection[str]) -> Collection[str]:
        asked.append(sorted(image_ids))
        return {A} & set(image_ids)

    space = partial(Eviction, cache, 2 * SIZE, 0, kept=kept)
    with pytest.raises(
        NoRoom, match=r"1 copies \(100000 bytes\) stay: each may be the last intact .* --to-store STORE"
    ):
        fill(cache, space, 2 * SIZE)
    assert fill(cache, space, SIZE) == [B]
    assert Eviction(cache, 1, 0, kept=kept, withdraw=lambda _: None).trim().bytes == 0
    assert cache.complete.exists(A)
    assert asked == [[A, B], [A], [B], [B], [A]], "one question for a batch, one more when its rows have gone"


def test_a_copy_that_becomes_the_last_while_its_row_goes_stays(cache: Cache) -> None:
    """What is found when the rows of a batch have gone holds: the other copy may just have been ordered away."""
    keep(cache, A, 9000)
    gone: list[str] = []
    space = partial(Eviction, cache, SIZE // 2, 0, kept=lambda image_ids: image_ids if gone else ())
    assert space(withdraw=gone.append).trim().bytes == 0
    assert (gone, cache.complete.exists(A)) == ([A], True)


def test_a_file_that_came_while_its_row_went_stays(cache: Cache) -> None:
    """Somebody orders the copy away while it is evicted, and a fill brings it again: its row is there, and its file."""
    keep(cache, A, 9000)

    def withdraw(image_id: str) -> None:
        cache.complete.remove(image_id)
        keep(cache, image_id, 0)

    assert Eviction(cache, SIZE // 2, 0, withdraw=withdraw).trim().bytes == 0
    assert cache.complete.exists(A)


def test_growing_files_that_nobody_fills_go_last(cache: Cache) -> None:
    """Where complete files are not enough what an abandoned fill left goes, and not what is being filled."""
    keep(cache, A, 9000)
    for image_id in (B, C):
        partial_file = cache.partials.begin(picture(image_id, 2 * SIZE))
        assert partial_file is not None
        partial_file.append(b"x" * SIZE, 0)
        if image_id == B:
            partial_file.close()
    space = partial(Eviction, cache, 3 * SIZE + 16384, 0)
    assert fill(cache, space, SIZE) == [A]
    assert cache.partial_path(B).exists()
    assert fill(cache, space, 2 * SIZE) == []
    assert (cache.partial_path(B).exists(), cache.partial_path(C).exists()) == (False, True)
    with pytest.raises(NoRoom):
        fill(cache, space, 3 * SIZE)
    partial_file.discard()


def test_no_lock_while_a_database_is_asked(cache: Cache) -> None:
    """A fill that fits does not wait for one that evicts and whose database says nothing."""
    keep(cache, A, 9000)
    silent, asked = threading.Event(), threading.Event()

    def hangs(_: Collection[str]) -> Collection[str]:
        asked.set()
        assert silent.wait(30)
        return ()

    evicts = threading.Thread(target=Eviction(cache, SIZE // 2, 0, withdraw=lambda _: None, kept=hangs).trim)
    evicts.start()
    assert asked.wait(30)
    began = time.monotonic()
    assert fill(cache, partial(Eviction, cache, 3 * SIZE, 0)) == []
    assert time.monotonic() - began < 10
    silent.set()
    evicts.join()
    assert not cache.complete.exists(A)
