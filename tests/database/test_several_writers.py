"""Several nodes of a Galera cluster that all take writes: claims, rows, minorities, commits without an answer."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from services import eventually
from services.databases.galera import Galera
from services.databases.schema import add_image, add_ledger, query

from glance_replicas.catalogue.images import Catalogue, LockedImage
from glance_replicas.database import transactions
from glance_replicas.database.several_writers import causal_reads
from glance_replicas.errors import CatalogueError, LedgerError, ReplicaError
from glance_replicas.ledger import migrations
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.shared_runs import SharedRuns
from glance_replicas.model import Host

ROUNDS = 20
_numbers = itertools.count(1)


class Nodes:
    """A catalogue and a ledger through each node."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        add_ledger(urls[0])
        self.ledgers = [Ledger(url) for url in urls]
        self.catalogues = [Catalogue(url) for url in urls]
        self.ledgers[0].heartbeat(Host("api1", None, "http://api1:9292"))
        for node in range(len(urls)):
            self.catch_up(node)

    def image(self) -> str:
        """An active image without locations, which every node knows."""
        name = f"70000000-0000-4000-8000-{next(_numbers):012d}"
        add_image(self.urls[0], name, b"x")
        for node in range(len(self.urls)):
            self.catch_up(node)
        return name

    def catch_up(self, node: int) -> None:
        """The node has all that was committed."""
        with causal_reads():
            self.ledgers[node].hosts()

    def close(self) -> None:
        """No connection is left."""
        for one in (*self.ledgers, *self.catalogues):
            one.close()


@pytest.fixture
def nodes(galera: Galera) -> Iterator[Nodes]:
    """Empty tables on all nodes."""
    made = Nodes(galera.create_glance(f"several_{next(_numbers)}"))
    yield made
    made.close()


def at_once(*works: Callable[[], object]) -> list[object]:
    """What they return; a fault of ours is an answer, too."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> object:
        start.wait(60)
        try:
            return work()
        except ReplicaError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def test_of_fills_one_is_the_first(nodes: Nodes) -> None:
    """Hosts on all nodes that begin to fetch an image at once: one finds itself alone, all others see it."""
    alone = []
    for _ in range(ROUNDS * 2):
        image = nodes.image()
        claims = [
            partial(ledger.claim_fill, image, f"api{number}", f"http://api{number}", 60.0)
            for number, ledger in enumerate(nodes.ledgers)
        ]
        found = at_once(*claims)
        alone.append(sum(isinstance(one, list) and len(one) == 1 for one in found))
        assert not [one for one in found if isinstance(one, LedgerError)]
    assert alone == [1] * len(alone)


def test_a_url_has_one_row(nodes: Nodes) -> None:
    """Two nodes that register the same URL at once add one row."""
    rows = []
    for _ in range(ROUNDS * 2):
        image = nodes.image()
        found = at_once(
            *(partial(one.add, image, "http://api1/x", {"replica_host": "api1"}) for one in nodes.catalogues)
        )
        assert sorted(map(str, found)) == ["False", "False", "True"]
        with causal_reads():
            made = nodes.catalogues[0].image(image)
        assert made is not None
        rows.append(len(made.locations))
    assert rows == [1] * len(rows)


def test_a_place_has_one_verifier(nodes: Nodes) -> None:
    """Machines that share a run through different nodes claim each place once."""
    runs = [SharedRuns(ledger.database) for ledger in nodes.ledgers]
    for number in range(ROUNDS):
        places = {(f"7{number:07d}-0000-4000-8000-000000000000", f"place {one}") for one in range(3)}
        found = at_once(*(partial(one.claim, f"machine {n}", places) for n, one in enumerate(runs)))
        mine = [place for one in found if not isinstance(one, LedgerError) for place in one.mine]  # type: ignore[attr-defined]
        assert sorted(mine) == sorted(places)


def test_upgrades_from_all_nodes_take_turns(galera: Galera) -> None:
    """Each node begins one at the same instant: one does it all, the others find it done, and none fails."""
    for _ in range(3):
        ledgers = [Ledger(url) for url in galera.create(f"several_{next(_numbers)}")]
        found = at_once(*(ledger.upgrade for ledger in ledgers))
        assert sorted(map(str, found)) == [str(migrations.revisions()), "[]", "[]"]
        assert [ledger.is_current() for ledger in ledgers] == [True] * 3
        for ledger in ledgers:
            ledger.close()


def test_an_upgrade_that_was_killed_is_gone_on_with(galera: Galera) -> None:
    """Its lease runs out, and the next one has its turn."""
    url, *_ = galera.create(f"several_{next(_numbers)}")
    ledger = Ledger(url)
    ledger.upgrade()
    query(url, "UPDATE replica_guards SET owner = 'gone 1', expires_at = UTC_TIMESTAMP(6) + INTERVAL 2 SECOND")
    assert ledger.upgrade() == []
    assert query(url, "SELECT owner FROM replica_guards") == [{"owner": None}]
    ledger.close()


def test_a_look_has_what_all_have_committed(nodes: Nodes) -> None:
    """Each of two writes a note, commits, and looks for the note of the other: at least one sees it."""
    for _ in range(ROUNDS):
        image = nodes.image()

        def note(node: int, image: str = image) -> int:
            nodes.ledgers[node].claim_fill(image, f"api{node}", "http://x", 60.0)
            with causal_reads():
                return len(nodes.ledgers[node].fills(image, 60.0))

        assert 2 in at_once(partial(note, 0), partial(note, 1))


def test_the_cluster_is_known(galera: Galera, nodes: Nodes) -> None:
    """How many nodes there are, and that the one that answers has what they have."""
    assert [one.cluster() for one in nodes.catalogues] == [(len(galera.nodes), "Synced")] * 3


def test_what_a_read_waits_for_is_put_back(nodes: Nodes) -> None:
    """A read that decides waits for all nodes; the next one on the same connection as the server is configured."""
    engine = transactions.engine(nodes.urls[0])

    def waits() -> int:
        return transactions.reading(
            engine, lambda one: int(one.exec_driver_sql("SELECT @@wsrep_sync_wait").scalar_one())
        )

    with causal_reads():
        assert waits() == 1
    assert waits() == 0
    engine.dispose()


@contextmanager
def cut_off(galera: Galera, number: int) -> Iterator[None]:
    """This node is a minority meanwhile."""
    node = galera.nodes[number]
    node.isolate()
    try:
        yield
    finally:
        node.rejoin()


def test_a_minority_is_told_in_one_line(galera: Galera, nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    """A node without quorum: each call fails with one line, no traceback is logged, and all is well later."""
    image = nodes.image()
    assert nodes.catalogues[2].image(image)  # a pooled connection
    caplog.set_level(logging.WARNING)
    with cut_off(galera, 2):
        for _ in range(5):
            with pytest.raises(CatalogueError, match="WSREP has not yet prepared node"):
                nodes.catalogues[2].image(image)
            with pytest.raises(LedgerError, match="WSREP has not yet prepared node"):
                nodes.ledgers[2].heartbeat(Host("api3", None, "http://api3:9292"))
    assert not [one for one in caplog.records if one.exc_info]
    assert nodes.catalogues[2].image(image)


def test_a_commit_without_an_answer_is_not_known(galera: Galera, nodes: Nodes) -> None:
    """A node that is killed before it says that it has committed: the error says so, and nothing is done twice."""
    image, ran = nodes.image(), 0
    nodes.catalogues[0].add(image, "file:///a", {})
    nodes.catch_up(2)

    def decide(held: LockedImage) -> None:
        nonlocal ran
        ran += 1
        assert held.withdraw(held.image.locations[0])
        galera.nodes[2].kill()

    try:
        with pytest.raises(CatalogueError, match="whether the change was made is not known"):
            nodes.catalogues[2].decide(image, decide)
    finally:
        galera.nodes[2].start()
    assert ran == 1
    left = [catalogue.image(image) for catalogue in nodes.catalogues]
    assert [one and len(one.locations) for one in left] == [1, 1, 1], "it was killed before it committed"


def test_a_node_that_refuses_to_commit_has_not_committed(galera: Galera, nodes: Nodes) -> None:
    """A node that is cut off before its commit says so (1047): that is an answer, and nothing was changed."""
    image = nodes.image()
    nodes.catalogues[0].add(image, "file:///a", {})
    nodes.catch_up(2)

    def decide(held: LockedImage) -> None:
        assert held.withdraw(held.image.locations[0])
        galera.nodes[2].isolate()

    try:
        with pytest.raises(CatalogueError, match="WSREP has not yet prepared node") as refused:
            nodes.catalogues[2].decide(image, decide)
    finally:
        galera.nodes[2].rejoin()
    assert "not known" not in str(refused.value)
    left = [catalogue.image(image) for catalogue in nodes.catalogues]
    assert [one and len(one.locations) for one in left] == [1, 1, 1]


def test_a_commit_that_others_may_have_got_is_not_known(galera: Galera, nodes: Nodes) -> None:
    """The others are gone while a node commits (1180): they may have it when they are back."""
    image, ran = nodes.image(), 0
    nodes.catalogues[0].add(image, "file:///a", {})
    nodes.catch_up(2)

    def decide(held: LockedImage) -> None:
        nonlocal ran
        ran += 1
        assert held.withdraw(held.image.locations[0])
        for node in galera.nodes[:2]:
            node.freeze()

    try:
        with pytest.raises(CatalogueError, match="whether the change was made is not known") as unknown:
            nodes.catalogues[2].decide(image, decide)
    finally:
        for node in galera.nodes[:2]:
            node.go_on()
        assert eventually(galera.is_whole, 60)
    cause = unknown.value.__cause__
    assert isinstance(cause, transactions.Unsettled)
    assert cause.error.orig is not None
    assert cause.error.orig.args[0] == 1180, cause.error.orig.args
    assert ran == 1
    with causal_reads():
        left = {len(made.locations) for one in nodes.catalogues if (made := one.image(image))}
    assert left in ({0}, {1}), "the same on all nodes"
