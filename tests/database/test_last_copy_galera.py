"""The last intact copies of an image, on hosts that write through different nodes of a Galera cluster."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pymysql
import pytest
from services.databases.galera import Galera
from support.worlds.galera import World
from support.worlds.galera_actions import obey

from glance_replicas.errors import LastCopy
from glance_replicas.model import Image

ROUNDS = 10
STORE = ["first"]


@pytest.fixture
def world(galera: Galera, tmp_path: Path) -> Iterator[World]:
    """Three hosts, each on its own node."""
    with closing(World(tmp_path, galera)) as made:
        made.beat()
        yield made


def at_once(works: Sequence[Callable[[], object]]) -> None:
    """All begin at the same instant."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait(60)
        work()

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(run, works))


@contextmanager
def locked(world: World, number: int) -> Iterator[None]:
    """The table of results is locked on this node, as while it is backed up: nobody has an answer in time."""
    node = world.cluster.nodes[number]
    with pymysql.connect(
        host=node.address, port=node.port, user="glance", password="glance", database=world.name
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("LOCK TABLES replica_states WRITE")
        yield
        cursor.execute("UNLOCK TABLES")


def test_an_eviction_asks_once_more(world: World) -> None:
    """Two hosts had no answer a moment ago, then the store's copy is found corrupt: neither evicts the last copies."""
    image = world.image(STORE, STORE, [0, 1])
    for number in (0, 1):
        with locked(world, number):
            assert world.hosts[number].keeping.kept([image.id]) == set()
    world.condemn(image)
    at_once([partial(world.evict, number) for number in (0, 1)])
    assert world.truth(image.id).files == {"api1", "api2"}


def test_orders_and_evictions_from_all_nodes(world: World) -> None:
    """Copies on all hosts are ordered away and evicted at the same instant: one stays, each time."""

    def order(image: Image, number: int) -> None:
        with suppress(LastCopy):
            copy = world.own(number, image)
            world.hosts[(number + 1) % 3].removals.order(copy, reason="a test", who="somebody")
        obey(world.hosts[number])

    for _ in range(ROUNDS):
        image = world.image(STORE, STORE, [0, 1, 2])
        world.condemn(image)
        works = [partial(order, image, number) for number in range(3)]
        at_once([*works, *(partial(world.evict, number) for number in range(3))])
        assert world.truth(image.id).files
        world.forget(image.id)
