"""Two removals of different durable copies of one image, decided on two nodes of a Galera cluster: one copy stays.

Each has proven that the other's copy stays. A lock on the image's row holds on one node only, and what both read in
their own transaction is true when they read it.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from glance import context as glance_context
from glance.db.sqlalchemy import api as glance_api
from oslo_config import cfg
from oslo_db import options as db_options
from services.databases.galera import Galera
from services.databases.schema import query
from support.worlds.shelf import DATA, Shelf

from glance_replicas.catalogue.images import Catalogue, LockedImage
from glance_replicas.database.several_writers import causal_reads
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Image, Location
from glance_replicas.removal.causes import DAMAGED, Cause
from glance_replicas.removal.flow import Removal, Step
from glance_replicas.removal.proof import Proof
from glance_replicas.removal.removal_facts import RemovalFacts, RemovalOrder

ROUNDS = 20  # of each kind
_names = itertools.count(1)
Pause = Callable[[], object]


class Pair:
    """A shelf through one node, and its catalogue and ledger through another."""

    def __init__(self, folder: Path, urls: Sequence[str]) -> None:
        self.urls = urls
        self.shelf = Shelf(folder, urls[0])
        self.catalogues = [self.shelf.catalogue, Catalogue(urls[1])]
        self.ledgers = [self.shelf.ledger, Ledger(urls[1])]

    def image(self) -> str:
        """An image with two good copies in the store, which both nodes know."""
        image = self.shelf.image()
        for name in ("first", "second"):
            self.shelf.add_file(image, name=name)
        while len(getattr(self.catalogues[1].image(image), "locations", ())) < 2:
            pass
        return image

    def removal(self, node: int, noted: Pause, read: Pause) -> Removal:
        """One through this node; something happens when it is noted, and when it has read the rows to decide by."""
        reasons = RemovalFacts(self.catalogues[node], self.ledgers[node], dead_after_seconds=3600)
        asked = itertools.count()  # causes: for the plan, after the note
        told = itertools.count()  # the time: twice for a look and once for its decision, before acting, under the lock

        def causes(images: Sequence[Image]) -> Callable[[Location], Cause]:
            if next(asked) == 1:
                noted()
            return reasons.damaged(images, DAMAGED)

        def clock() -> datetime:
            if next(told) == 4:
                read()
            return datetime.now(UTC)

        return Removal(
            self.catalogues[node], self.ledgers[node], self.shelf.sources, RemovalOrder(causes), workers=1, clock=clock
        )

    def plan(self, removal: Removal, image: str, part: str) -> Step:
        """Its copy is damaged, the other one intact: proven. Afterwards it is as it was."""
        path = self.shelf.store / f"{image}-{part}"
        path.write_bytes(DATA[::-1])
        (step,) = removal.plan(self.shelf.now(image), [self.shelf.location(image, part)])
        path.write_bytes(DATA)
        assert isinstance(step.answer, Proof), step.answer
        return step

    def close(self) -> None:
        """No connection is left."""
        self.shelf.close()
        self.catalogues[1].close()
        self.ledgers[1].close()


@pytest.fixture
def pair(galera: Galera, tmp_path: Path) -> Iterator[Pair]:
    """Two nodes, and empty tables."""
    made = Pair(tmp_path, galera.create_glance(f"two_nodes_{next(_names)}"))
    yield made
    made.close()


def together(works: Sequence[Callable[[], object]]) -> None:
    """All at the same time; their faults are raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result(120)


def nothing() -> None:
    """No pause."""


def both_noted(pair: Pair, image: str) -> None:
    """Both take the lock at the same instant."""
    start = threading.Barrier(2)
    removals = [pair.removal(node, lambda: start.wait(60), nothing) for node in (0, 1)]
    steps = [pair.plan(one, image, part) for one, part in zip(removals, ("first", "second"), strict=True)]
    together([partial(one.act, step) for one, step in zip(removals, steps, strict=True)])


def both_have_read(pair: Pair, image: str) -> None:
    """Both have read the rows before either changes one."""
    start = threading.Barrier(2)
    removals = [pair.removal(node, nothing, lambda: start.wait(60)) for node in (0, 1)]
    steps = [pair.plan(one, image, part) for one, part in zip(removals, ("first", "second"), strict=True)]
    together([partial(one.act, step) for one, step in zip(removals, steps, strict=True)])


def one_stalls(pair: Pair, image: str) -> None:
    """One has read the rows and is held up until the other is through, and its change has come over."""
    reads, over = threading.Event(), threading.Event()

    def stall() -> None:
        reads.set()
        assert over.wait(60)

    slow, quick = pair.removal(0, nothing, stall), pair.removal(1, nothing, nothing)
    steps = pair.plan(slow, image, "first"), pair.plan(quick, image, "second")

    def hurry() -> None:
        assert reads.wait(60)
        quick.act(steps[1])
        while len(pair.shelf.now(image).durable) > 1:
            pass
        over.set()

    together([partial(slow.act, steps[0]), hurry])


@pytest.mark.parametrize("race", [both_noted, both_have_read, one_stalls])
def test_of_two_prunes_on_two_nodes_one_copy_stays(pair: Pair, race: Callable[[Pair, str], None]) -> None:
    """Of two durable copies one is removed and one refused, each time, and the ledger has every request closed."""
    left = []
    for _ in range(ROUNDS):
        image = pair.image()
        race(pair, image)
        with causal_reads():  # the other node's last word may be on its way
            left.append(len(pair.shelf.now(image).durable))
            assert all(one.finished_at for one in pair.shelf.ledger.withdrawals(image_ids=[image]))
    assert left == [1] * ROUNDS


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_who_decides_under_the_lock_needs_nothing_else(pair: Pair, where: str) -> None:
    """Two that decide on two nodes and withdraw a row each while another is there: never both.

    Also where our tables are in another database than Glance's.
    """
    if where == "elsewhere":
        query(pair.urls[0], "DROP TABLE replica_guards")
    for _ in range(ROUNDS):
        image, start = pair.image(), threading.Barrier(2)

        def withdraw(node: int, begun: list[int], held: LockedImage, start: threading.Barrier = start) -> None:
            found = held.image.durable
            if not begun:  # else the other one was first
                begun.append(node)
                start.wait(60)
            if len(found) == 2:
                held.withdraw(found[node])

        together([partial(pair.catalogues[node].decide, image, partial(withdraw, node, [])) for node in (0, 1)])
        with causal_reads():
            assert len(pair.shelf.now(image).durable) == 1


@pytest.fixture
def glance(pair: Pair) -> Iterator[None]:
    """Glance's own database code, on the other node."""
    cfg.CONF.register_opts(db_options.database_opts, "database")
    cfg.CONF.set_override("connection", pair.urls[1], "database")
    glance_api.clear_db_env()
    yield
    glance_api.get_engine().dispose()
    glance_api.clear_db_env()
    cfg.CONF.clear_override("connection", "database")


@pytest.mark.usefixtures("glance")
def test_glance_removes_the_copy_that_a_prune_keeps(pair: Pair) -> None:
    """Glance on a host without our filters writes no row of ours: what a proof counts on is seen to be there still."""
    admin = glance_context.RequestContext(is_admin=True, roles=["admin"])
    for _ in range(ROUNDS):
        image = pair.image()
        kept = pair.shelf.location(image, "second").row
        removal = pair.removal(0, nothing, partial(glance_api.image_location_delete, admin, image, kept, "deleted"))
        removal.act(pair.plan(removal, image, "first"))
        assert [one.url.rpartition("-")[2] for one in pair.shelf.now(image).durable] == ["first"]
