"""Databases behind proxies: HAProxy before Galera that fails over and back, PgBouncer in transaction mode."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from galera_rounds import Rounds
from services import eventually
from services.databases.galera import Galera
from services.databases.proxies import Balancer, Pooler
from services.databases.schema import add_image, query
from services.databases.servers import Postgres, server_folder
from support.worlds.galera import World

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host, Location, Result
from glance_replicas.verdict import Evidence, Verdict

IMAGE = "70000000-0000-4000-8000-000000000001"
CLIENTS, TURNS = 8, 20
_numbers = itertools.count(1)


@pytest.fixture
def balanced(galera: Galera, tmp_path: Path) -> Iterator[World]:
    """Three hosts that know one address, behind which are three nodes."""
    with (
        server_folder("balancer") as folder,
        Balancer(folder / "haproxy", galera) as balancer,
        closing(World(tmp_path, galera, through=balancer.through)) as world,
    ):
        yield world


def node_of(world: World) -> str:
    """The address of the node that a new connection meets; nothing while there is none."""
    try:
        return str(query(world.urls[0], "SELECT @@wsrep_node_name AS name")[0]["name"])
    except Exception:  # noqa: BLE001 - whatever a driver says of a proxy without a server
        return ""


def sessions(world: World, number: int) -> int:
    """How many sessions hosts have on a node."""
    text = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{world.name}'"
    return int(world.cluster.nodes[number].ask(text)[0][0])


def test_a_balancer_fails_over_and_back(balanced: World) -> None:
    """The one writer is killed; when it is back, new connections meet it and old ones the other: nothing is lost."""
    rounds, first = Rounds(balanced, seed=3, disasters_percent=0), balanced.cluster.nodes[0]
    rounds.run(5)
    assert [bool(sessions(balanced, number)) for number in range(3)] == [True, False, False]
    first.kill()
    try:
        assert eventually(lambda: node_of(balanced) not in ("", first.address), 30)
        rounds.run(5)
    finally:
        first.start()
    assert eventually(lambda: node_of(balanced) == first.address, 30)
    rounds.run(15)
    assert all(sessions(balanced, number) for number in (0, 1)), "two nodes take writes"
    assert rounds.violations == []


@pytest.fixture(params=["psycopg2", "psycopg"])
def pooled(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[str]:
    """A database behind PgBouncer, which has three connections for all, by either driver."""
    direct = postgres.create_glance(f"pooled_{next(_numbers)}")
    with server_folder("pooler") as folder, Pooler(folder / "pgbouncer", postgres, 3) as pooler:
        yield pooler.through(direct, f"postgresql+{request.param}")


def test_a_pooler_hands_out_other_connections(pooled: str) -> None:
    """Hosts that upgrade, register, record, claim and decide at once: each transaction may meet another connection."""
    ledger, catalogue = Ledger(pooled), Catalogue(pooled)
    assert ledger.upgrade()
    add_image(pooled, IMAGE, b"x")

    def work(number: int) -> None:
        name = f"api{number}"
        for turn in range(TURNS):
            one = Location(IMAGE, f"file:///{number}-{turn}", {})
            ledger.heartbeat(Host(name, None, f"http://{name}"))
            assert catalogue.add(IMAGE, one.url, {})
            ledger.record([Result(one, Verdict.INTACT, Evidence.FULL)] * 3)
            ledger.claim_fill(IMAGE, name, f"http://{name}", 60.0)
            assert catalogue.withdraw_url(IMAGE, one.url) == 1
            ledger.release_fill(IMAGE, name)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))
    assert len(ledger.hosts()) == CLIENTS
    assert len(ledger.states([IMAGE])) == CLIENTS * TURNS
    image = catalogue.image(IMAGE)
    assert image is not None
    assert image.locations == ()
    for one in (ledger, catalogue):
        one.close()
