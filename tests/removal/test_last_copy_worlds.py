"""Random worlds: in no interleaving is the last intact copy that the ledger knows of removed.

Three hosts hold an image; its object in the store is damaged, or is found to be, meanwhile. Orders are given, janitors
carry them out and reconcile, hosts evict, verifications record, dead hosts are buried, all at once: real databases,
directories and locks, and before each transaction of anybody a scheduler says whose turn it is. In every other world
one of them is held up before one of its transactions until all others have done what they do: so what was decided
meets what became of the world meanwhile. `LAST_COPY_WORLDS` sets how many worlds there are; `mutants.py` takes the
checks out one by one, and these worlds, or a test that it names, have to fail each time.
"""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from services.databases.schema import add_image
from services.web.faulty import FaultyServer
from support.worlds.cloud import Cloud, loaded  # noqa: F401 - a fixture

from glance_replicas.errors import LastCopy
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly
from glance_replicas.janitor.passes import Janitor
from glance_replicas.model import Host, Location, Pass, Result
from glance_replicas.removal.known import KnownCopies
from glance_replicas.removal.last_copy import has_durable
from glance_replicas.settings import Settings
from glance_replicas.verdict import Evidence, Verdict

WORLDS = int(os.environ.get("LAST_COPY_WORLDS", "24"))
HOSTS = ("h1", "h2", "h3")
BYTES = b"x" * 1000


class Turns:
    """One actor at a time runs, from one transaction to the next; which one is drawn."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._moved = rng, threading.Condition()
        self._numbers: dict[int, int] = {}  # of the actors, by thread
        self._waiting: dict[int, bool] = {}  # actors that have not ended, and whether they may go on
        self._steps: dict[int, int] = {}  # transactions they have come to
        self._late = (-1, -1)  # the actor that is held up, and before which transaction
        self.is_on = False

    def pause(self, *_: Any) -> None:
        """Called before each transaction of an actor; returns when it is its turn."""
        me = self._numbers.get(threading.get_ident())
        with self._moved:
            if not self.is_on or me is None or me not in self._waiting:
                return
            self._steps[me] += 1
            self._wait(me)

    def play(self, actors: list[Callable[[], object]], *, held_up: bool = False) -> list[BaseException]:
        """All of them, to their ends; what they raised. With `held_up` one waits somewhere for all others to end."""
        errors: list[BaseException] = []
        numbers = range(len(actors))
        self._late = (self._rng.choice(numbers), self._rng.randint(1, 9)) if held_up else (-1, -1)
        self._numbers, self._waiting, self._steps, self.is_on = {}, {}, dict.fromkeys(numbers, 0), True
        self._left = len(actors)
        threads = [threading.Thread(target=self._run, args=(one, actors[one], errors), daemon=True) for one in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "stuck"
        self.is_on = False
        return errors

    def _run(self, me: int, actor: Callable[[], object], errors: list[BaseException]) -> None:
        with self._moved:
            self._numbers[threading.get_ident()] = me
            self._wait(me)
        try:
            actor()
        except BaseException as error:  # noqa: BLE001 - the test looks at them
            errors.append(error)
        finally:
            with self._moved:
                del self._waiting[me]
                self._left -= 1
                self._give()

    def _wait(self, me: int) -> None:
        self._waiting[me] = False
        self._give()
        assert self._moved.wait_for(lambda: self._waiting[me], 60)

    def _give(self) -> None:
        if self._waiting and len(self._waiting) == self._left and not any(self._waiting.values()):
            free = [one for one in sorted(self._waiting) if (one, self._steps[one]) != self._late]
            self._waiting[self._rng.choice(free or sorted(self._waiting))] = True
            self._moved.notify_all()


class World:
    """One image on three hosts, made anew for each round in the same databases."""

    def __init__(self, cloud: Cloud, number: int) -> None:
        self.rng = random.Random(number)
        self.cloud, self.id = cloud, f"90000000-0000-4000-8000-{number:012d}"
        self.turns = Turns(self.rng)
        self.is_duel = self.rng.random() < 0.6  # two copies, and an order for each
        self.hosts_by_name = {name: cloud.host(f"{name}-{number}", max_bytes=1 << 40) for name in HOSTS}
        add_image(cloud.site.database_url, self.id, BYTES)
        self.store = self._store()
        for name, local in self.hosts_by_name.items():
            if not (self.is_duel and name == "h3"):
                self._cache(local)
            for bind in (local.catalogue._engine, local.ledger.database._engine):
                sa.event.listen(bind, "do_connect", self.turns.pause)
        self.firm: set[str] | None = None  # what was known, and on nobody's list, when the store was found damaged

    def _store(self) -> Location | None:
        """The store's copy: none, damaged and known to be, or to be found damaged meanwhile."""
        kind = self.rng.choice(["none", "bad", "bad", "later"])
        if kind == "none":
            return None
        url = f"file:///nowhere/{self.id}"
        self.cloud.site.add_location(self.id, url, {"store": "fast"})
        one = Location(self.id, url, {"store": "fast"})
        if kind == "bad":
            self._record(one, Verdict.CORRUPT)
        return one

    def _cache(self, local: LocalHost) -> None:
        """A registered copy: known to be intact, mostly."""
        image = local.catalogue.image(self.id)
        assert image is not None
        partial_file = local.cache.partials.begin(image)
        assert partial_file is not None
        partial_file.append(BYTES, 0)
        local.cache.partials.commit(partial_file, image)
        local.registration.register(image)
        if self.is_duel:
            self._record(self.copy(local), Verdict.INTACT)
        elif self.rng.random() < 0.85:
            self._record(self.copy(local), self.rng.choice([Verdict.INTACT] * 5 + [Verdict.CORRUPT]))
        if self.rng.random() < 0.1 and not self.is_duel:
            local.ledger.heartbeat(Host(local.settings.host_name, None, local.settings.host_url or ""))
            query = "UPDATE replica_hosts SET heartbeat = '2001-01-01 00:00:00' WHERE name = :n"
            self.cloud.site.ledger_rows(query, n=local.settings.host_name)

    def copy(self, local: LocalHost) -> Location:
        return Location(self.id, local.registration.own_url(self.id) or "", local.registration.metadata())

    def _record(self, one: Location, verdict: Verdict) -> None:
        any_host = next(iter(self.hosts_by_name.values()))
        any_host.ledger.record([Result(one, verdict, Evidence.FULL, "", datetime.now(UTC))])

    def known(self) -> set[str]:
        """The hosts whose files the ledger knows to be intact; `store` for a durable copy not known to be bad."""
        local = self.hosts_by_name["h1"]
        image = local.catalogue.image(self.id)
        assert image is not None
        known = KnownCopies(local.ledger.database).of([self.id])
        found = {"store"} if has_durable(image, known.lasts) else set()
        for name, one in self.hosts_by_name.items():
            last = local.ledger.lasts([self.id])
            state = next((what for (_, place), what in last.items() if place == _place(self.copy(one))), None)
            if state is not None and state.full_verdict is Verdict.INTACT and one.cache.complete.exists(self.id):
                found.add(name)
        return found

    def acts(self) -> list[Callable[[], object]]:
        """What goes on at the same time."""
        made: list[Callable[[], object]] = []
        if self.is_duel:
            return self._duel()
        for name in self.rng.sample(HOSTS, self.rng.randint(1, 3)):
            made.append(partial(self.order, name))
        for name in HOSTS:
            if self.rng.random() < 0.7:
                made.append(partial(self.janitor, name))
            if self.rng.random() < 0.4:
                made.append(partial(self.evict, name))
            if self.rng.random() < 0.3:
                made.append(partial(self.reconcile, name))
        return made + self._finds()

    def _duel(self) -> list[Callable[[], object]]:
        """One host's copy is ordered away, the other's as well or evicted; orders may have been given before."""
        if self.rng.random() < 0.5:
            made: list[Callable[[], object]] = [partial(self.evict, HOSTS[0]), partial(self.in_turn, HOSTS[1])]
        elif self.rng.random() < 0.5:
            made = [partial(self.in_turn, name) for name in HOSTS[:2]]
        else:
            self.turns.play([partial(self.order, name) for name in HOSTS[:2]])
            made = [partial(self.janitor, name) for name in HOSTS[:2]]
            if self.store is not None and "store" in self.known():  # both were let go, and no host has begun
                self._record(self.store, Verdict.CORRUPT)
                self.firm = self.known()
                return made
        return made + self._finds()

    def in_turn(self, name: str) -> None:
        """An order, and the host that does it; the damage may be found first."""
        self.order(name)
        self.janitor(name)

    def _finds(self) -> list[Callable[[], object]]:
        return [] if self.store is None else [partial(self.find_damage, self.store)]

    def find_damage(self, store: Location) -> None:
        """A verification of the store's copy; what others have decided by then is decided."""
        self._record(store, Verdict.CORRUPT)
        self.turns.is_on = False  # everybody else waits for a turn
        local = self.hosts_by_name["h1"]
        image = local.catalogue.image(self.id)
        going = {one.place for one in local.ledger.withdrawals(image_ids=[self.id], is_open=True)}
        rows = {_place(one) for one in image.cached} if image else set()
        self.firm = {name for name in self.known() if _place(self.copy(self.hosts_by_name[name])) in rows - going}
        self.turns.is_on = True

    def order(self, name: str) -> None:
        """Through the API of any host."""
        try:
            self.hosts_by_name[self.rng.choice(HOSTS)].removals.order(
                self.copy(self.hosts_by_name[name]), reason="r", who="w"
            )
        except LastCopy:
            pass

    def janitor(self, name: str) -> None:
        """It looks at what it was asked twice, as it does every few seconds."""
        for _ in range(4 if self.is_duel else 2):
            Janitor(self.hosts_by_name[name])._removals(Pass())

    def evict(self, name: str) -> None:
        """The quota was lowered for a moment."""
        local = self.hosts_by_name[name]
        local.eviction.max_bytes, local.eviction._high, local.eviction._low = 1, 1, 1
        local.eviction.trim()

    def reconcile(self, name: str) -> None:
        """Disk and catalogue in agreement, and the rows of dead hosts."""
        assembly.reconciler(self.hosts_by_name[name]).reconcile(Pass())
        assembly.reconciler(self.hosts_by_name[name]).withdraw_dead_hosts(Pass())


def _place(one: Location) -> str:
    from glance_replicas.ledger.schema.rows import place_key

    return place_key(one)


@contextmanager
def made(folder: Path, settings: Settings, server: FaultyServer) -> Iterator[Cloud]:
    with closing(Cloud(folder, replace(settings, dead_after_seconds=3600), server)) as cloud:
        yield cloud


def test_no_interleaving_takes_the_last_copy(tmp_path: Path, loaded: Settings, faulty: FaultyServer) -> None:  # noqa: F811
    """A copy that was known to be intact, when the store's was known to be bad, is there at the end, or another one."""
    seen = {"stayed": 0, "late": 0, "went": 0}
    with made(tmp_path, loaded, faulty) as cloud:
        for number in range(WORLDS):
            world = World(cloud, number)
            before = world.known()
            errors = world.turns.play(world.acts(), held_up=number % 2 == 1)
            assert errors == [], (number, errors)
            after, firm = world.known(), before if "store" not in before else world.firm
            if firm:
                assert after, f"world {number}: {firm} were known, nothing is left"
                seen["late" if "store" in before else "stayed"] += 1
            seen["went"] += len(before - after)
    assert seen["stayed"] > WORLDS // 3
    assert seen["late"] > WORLDS // 20, "the store was found damaged while others removed"
    assert seen["went"] > WORLDS // 10, "orders are carried out where another copy stays"
