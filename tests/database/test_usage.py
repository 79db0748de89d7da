"""Counts of use: kept exactly whoever adds at once, on three databases; taken down by a real Glance's processes."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import requests
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.scenes import new_image, settle

from glance_replicas.cache.statistics import Statistics
from glance_replicas.database.chunks import CHUNK
from glance_replicas.database.dialect import clock
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema.connection import LedgerDatabase
from glance_replicas.ledger.schema.tables import uses as table
from glance_replicas.ledger.usage import Usage
from glance_replicas.model import Use

A, B, C = (f"{n}1111111-2222-4333-8444-555555555555" for n in (1, 2, 3))
MIB = 1 << 20
SIZE = 3 * MIB + 11


@pytest.fixture
def uses(database_url: str) -> Iterator[Usage]:
    """An empty table."""
    made = Ledger(database_url)
    made.upgrade()
    yield Usage(made.database)
    made.close()


def test_numbers_add_up(uses: Usage) -> None:
    """What is added is added to what is there, each image and host for itself, also beyond one statement."""
    uses.add("a", {A: Use(1, 10, 0), B: Use(2, 1 << 50, 5)})
    uses.add("b", {A: Use(3, 1, 1)})
    uses.add("a", {A: Use(1, 5, 5)})
    uses.add("a", {})
    assert uses.of_hosts(1) == {"a": Use(4, (1 << 50) + 15, 10), "b": Use(3, 1, 1)}
    assert uses.popular(1, 10) == [(A, 5), (B, 2)]
    assert uses.popular(1, 1) == [(A, 5)]
    uses.add("a", {f"{n:08d}-2222-4333-8444-555555555555": Use(1, 1, 1) for n in range(CHUNK + 1)})
    assert uses.of_hosts(1)["a"].downloads == 4 + CHUNK + 1


def test_equals_have_one_order(uses: Usage) -> None:
    """Every host that asks for the most popular images gets the same list."""
    uses.add("a", {C: Use(1, 1, 1), A: Use(1, 1, 1), B: Use(1, 1, 1)})
    assert [image_id for image_id, _ in uses.popular(1, 2)] == [A, B]


def test_of_copies(uses: Usage) -> None:
    """Of each image on each host; of the images asked for, also beyond one statement; what was not used is absent."""
    uses.add("a", {A: Use(1, 1, 1), B: Use(2, 1, 1)})
    uses.add("a", {A: Use(4, 1, 1)})
    uses.add("b", {A: Use(3, 1, 1)})
    others = [f"{n:08d}-2222-4333-8444-555555555555" for n in range(CHUNK + 1)]
    assert uses.of_copies([*others, A, C], 1) == {(A, "a"): 5, (A, "b"): 3}


def test_how_far_back_is_known(uses: Usage) -> None:
    """Whole days only: the first day that is counted may have begun in its middle."""
    assert uses.known_days() == 0
    for days_ago, known in ((0, 0), (1, 0), (2, 1), (31, 30)):
        uses.add(f"host {days_ago}", {A: Use(1, 1, 1)})
        moved = table.update().where(table.c.host == f"host {days_ago}")
        day = uses._database.read(clock).date() - timedelta(days=days_ago)
        uses._database.change(moved.values(day=day))
        assert uses.known_days() == known


def test_days(uses: Usage, database_url: str) -> None:
    """A question for some days is about today and the days before it; what is older than asked for goes."""
    ours = LedgerDatabase(database_url)
    today = ours.read(clock).date()
    for age in (1, 2, 3, 4, 0):
        uses.add("a", {A: Use(1, 1, 1)})
        moved = table.update().where(table.c.day == today).values(day=today - timedelta(days=age))
        assert ours.change(moved) == 1
    uses.add("a", {A: Use(1, 1, 1)})
    ours.close()
    assert [uses.of_hosts(days)["a"].downloads for days in (1, 2, 4, 9)] == [2, 3, 5, 6]
    assert uses.trim(2) == 2
    assert uses.of_hosts(9)["a"].downloads == 4


def test_threads_and_processes_at_once(uses: Usage, database_url: str) -> None:
    """Nothing is lost or counted twice when processes of several threads add to the same rows in any order."""
    adder = f"""
import random
from concurrent.futures import ThreadPoolExecutor
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Use
from glance_replicas.ledger.usage import Usage
uses = Usage(Ledger({database_url!r}).database)
def add(number):
    ids = random.sample({[A, B, C]!r}, 3)
    uses.add("ab"[number % 2], {{one: Use(1, 100, 50) for one in ids}})
with ThreadPoolExecutor(4) as pool:
    list(pool.map(add, range(20)))
"""
    programs = [subprocess.Popen([sys.executable, "-c", adder]) for _ in range(3)]
    assert [one.wait(120) for one in programs] == [0, 0, 0]
    assert uses.of_hosts(2) == {name: Use(90, 9000, 4500) for name in "ab"}
    assert [downloads for _, downloads in uses.popular(2, 9)] == [60, 60, 60]


def test_activity_of_many_threads() -> None:
    """Whatever threads count, take and give back at once, every byte is there once."""
    activity, taken = Statistics(), []
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            some = activity.take()
            if len(taken) % 2:
                activity.give_back(some)
                some = {}
            taken.append(some)

    def serve(number: int) -> None:
        for _ in range(500):
            reading = activity.follow(A)
            activity.served((A, B)[number % 2], 3, hit=number < 4)
            reading.close()

    taker = threading.Thread(target=take)
    taker.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(8)))
    done.set()
    taker.join()
    taken.append(activity.take())
    for image_id in (A, B):
        counts = [some[image_id] for some in taken if image_id in some]
        assert tuple(map(sum, zip(*counts, strict=True))) == (2000, 6000, 3000)
    assert activity.now() == (0, 0)


def test_activity_counts_readers() -> None:
    """A reader is counted from its start to its close, once, or until it is forgotten unclosed."""
    activity = Statistics()
    first, second, other = activity.follow(A), activity.follow(A), activity.follow(B)
    assert (first.number, second.number, other.number) == (1, 2, 1)
    second.close()
    second.close()
    assert activity.now() == (0, 2)
    del other
    assert activity.now() == (0, 1)
    assert activity.follow(A).number == 2


def test_activity_is_bounded() -> None:
    """While nobody can take them, counts of more images than a process may hold are dropped, not kept."""
    activity = Statistics()
    for number in range(10_010):
        activity.served(f"image-{number}", 1, hit=True)
    activity.served("image-0", 1, hit=True)
    activity.served("image-1", 0, hit=True)
    taken = activity.take()
    assert (len(taken), taken["image-0"].downloads, taken["image-1"].downloads) == (10_000, 2, 1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """A host of two processes that tell the ledger every second what they served."""
    options = {"replicas": {"janitor_interval_seconds": "1", "max_image_bytes": str(4 * MIB)}}
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        yield made.add_host("127.0.0.2", threads=16, options=options)


def counted(host: GlanceHost, image_id: str) -> Use:
    """What the ledger has of an image."""
    columns = "SELECT sum(downloads) AS d, sum(bytes) AS b, sum(hit_bytes) AS h FROM replica_uses "
    (row,) = host.site.ledger_rows(columns + "WHERE image_id = :id", id=image_id)
    return Use(row["d"] or 0, row["b"] or 0, row["h"] or 0)


def test_counts_of_two_processes(host: GlanceHost, faulty: FaultyServer) -> None:
    """The first download, those that follow it, hits, ranges and reads by others are counted, each once."""
    image_id, data = new_image(host, SIZE)
    host.site.move_to(faulty, image_id, rate=3 * MIB)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: host.client().download(image_id), range(6)))
    assert [one.content for one in answers] == [data] * 6
    details = [one.headers["Cache-Status"].partition("; detail=")[2] for one in answers]
    readers = [int(one.split()[1].rstrip(",")) for one in details]
    assert max(readers) >= 3, "six readers in two processes: three at least in one"
    assert all(one.startswith('"reader ') and one.endswith(' percent"') for one in details)
    settle((host.cache_dir / image_id).exists)
    for _ in range(4):
        assert host.client().download(image_id).headers["Cache-Status"].endswith("hit")
    part = host.client().download(image_id, headers={"Range": "bytes=10-109"})
    assert part.content == data[10:110]
    (replica,) = [row["url"] for row in host.client().replicas(image_id)["replicas"] if row["host"]]
    settle(lambda: counted(host, image_id).downloads == 11)
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(replica, timeout=30).content == data
        session.head(replica, timeout=30)  # gives no byte: not counted
    settle(lambda: counted(host, image_id).downloads == 12)
    assert counted(host, image_id) == Use(12, 11 * SIZE + 100, 5 * SIZE + 100)
    time.sleep(1.5)  # nothing more is told in the next interval
    assert counted(host, image_id).downloads == 12


def test_what_is_not_kept_is_counted(host: GlanceHost) -> None:
    """An image too large for the cache is served by Glance: downloads and bytes count, none of them a hit."""
    image_id, data = new_image(host, 5 * MIB)
    for _ in range(2):
        answer = host.client().download(image_id)
        assert (answer.content == data, "fwd=bypass" in answer.headers["Cache-Status"]) == (True, True)
    settle(lambda: counted(host, image_id) == Use(2, 10 * MIB, 0))


def test_the_janitor_says_what_was_served(host: GlanceHost) -> None:
    """The line of a pass has the bytes its process served; answers without bytes are no downloads."""
    image_id, data = new_image(host, SIZE)
    assert host.client().download(image_id, headers={"Range": f"bytes={SIZE}-"}).status_code == 416
    assert not (host.cache_dir / image_id).exists(), "a request that is refused begins nothing"
    assert host.client().download(image_id).content == data
    assert host.client().download(image_id, headers={"Range": f"bytes={SIZE}-"}).status_code == 416
    settle(lambda: counted(host, image_id).bytes >= SIZE)
    assert counted(host, image_id).downloads == 1, "answers without bytes are no downloads"
    told = re.compile(r"janitor: Pass\(.*filling=0, readers=0, served_bytes=(\d+)")

    def sums() -> list[int]:
        assert host.client().download(image_id).content == data
        return [int(one) for one in told.findall(host.log()) if one != "0" and int(one) % SIZE == 0]

    settle(sums, 60)


def test_counts_wait_for_the_ledger(host: GlanceHost) -> None:
    """Without the ledger's tables downloads go on; what was served meanwhile is told once they are back."""
    image_id, data = new_image(host, SIZE)
    assert host.client().download(image_id).content == data
    settle(lambda: counted(host, image_id).downloads == 1)
    host.site.ledger_rows("ALTER TABLE replica_uses RENAME TO replica_away")
    try:
        for _ in range(5):
            assert host.client().download(image_id).content == data
        settle(lambda: "no such table: replica_uses" in host.log())
    finally:
        host.site.ledger_rows("ALTER TABLE replica_away RENAME TO replica_uses")
    settle(lambda: counted(host, image_id).downloads == 6, 40)
    assert counted(host, image_id) == Use(6, 6 * SIZE, 5 * SIZE)


def test_counts_without_a_janitor(host: GlanceHost) -> None:
    """A host whose janitor runs from cron still tells what its processes serve."""
    host.configure({"replicas": {"janitor": "false"}})
    host.restart()
    image_id, data = new_image(host, SIZE)
    assert host.client().download(image_id).content == data
    settle(lambda: counted(host, image_id).downloads == 1)
