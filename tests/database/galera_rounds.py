"""Random rounds on a Galera cluster of three nodes: `make galera-rounds`, or `galera_rounds.py --rounds N --seed S`.

In each round hosts on all nodes prune, repair, evict, register, delete, fill and order away copies of one image at the
same time, while a node is killed, cut off, frozen or made to lag at a random moment. When all nodes agree again:

    an intact durable copy is left if there was one; where the ledger knew of none, an intact cached one
    no two hosts found themselves the first to fetch an image, and no URL has two rows
    what was reported as done is so, and what went was reported

A line for each round that is wrong, a summary, and exit status 1 when any was. `--without guard|kept` hands the hosts
other `Rivals`: without the row that all decisions about an image write, or without writing the rows that they count on.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from services import eventually
from services.databases.galera import Galera, Node
from services.databases.servers import server_folder
from support.worlds.galera import PARTS, Truth, World
from support.worlds.galera_actions import Act, Actions

from glance_replicas.database.several_writers import RIVALS, Rivals
from glance_replicas.model import Image

DISASTERS = ("kill", "cut", "freeze")  # of each so many in a hundred rounds
LAGS = 12  # of a hundred


class WithoutGuard(Rivals):
    """Decisions about one image write no row of their own."""

    def meet(self, connection: sa.Connection, name: str) -> bool:
        """Nothing is written."""
        return False


class WithoutKept(Rivals):
    """The rows that a decision counts on are read and not written."""

    def hold(self, connection: sa.Connection, rows: sa.Update) -> int:
        """How many there are, as this transaction sees it."""
        assert rows.whereclause is not None
        return int(connection.execute(sa.select(sa.func.count()).where(rows.whereclause)).scalar_one())


class WithoutBoth(WithoutGuard, WithoutKept):
    """Neither is written."""


STRATEGIES: dict[str, Rivals] = {
    "nothing": RIVALS,
    "guard": WithoutGuard(),
    "kept": WithoutKept(),
    "both": WithoutBoth(),
}


@dataclass
class Round:
    """One image, what is done to it, and what must hold."""

    image: Image
    actions: Actions
    acts: list[Act]
    had: Truth
    deletes: bool = False  # somebody deletes the image, or tried


class Rounds:
    """Random rounds in one world. What is chosen follows from the seed; when things happen does not."""

    def __init__(self, world: World, seed: int, disasters_percent: int = 3) -> None:
        self._world, self._dice, self._disasters_percent = world, random.Random(seed), disasters_percent
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []

    def run(self, rounds: int, disasters: Sequence[str] = ()) -> None:
        """So many, the first of them with these disasters."""
        for number in range(rounds):
            disaster = disasters[number] if number < len(disasters) else self._disaster()
            self._world.beat()
            now = self._prepare()
            self._play(now, disaster)
            found = list(self._wrong(now, self._world.truth(now.image.id)))
            self.violations += [f"round {number} ({disaster or 'no disaster'}): {one}" for one in found]
            for one in found:
                print(f"round {number} ({disaster}): {one}; {now.actions.report.outcomes}", flush=True)
            self.counts.update([f"round: {disaster or 'quiet'}", *now.actions.report.outcomes])
            self._world.forget(now.image.id)

    def _disaster(self) -> str:
        drawn = self._dice.uniform(0, 100)
        for number, name in enumerate(DISASTERS, 1):
            if drawn < number * self._disasters_percent:
                return name
        return self._dice.choice(("lock", "halt")) if drawn > 100 - LAGS and self._disasters_percent else ""

    def _prepare(self) -> Round:
        return self._cached() if self._dice.random() < 0.25 else self._durable()

    def _durable(self) -> Round:
        """Durable copies, most of them intact; everything may be done."""
        dice, world = self._dice, self._world
        parts = PARTS[: dice.choice((2, 2, 3))]
        damaged = [dice.choice(parts)] if dice.random() < 0.3 else []
        cached = [number for number in range(3) if dice.random() < 0.5]
        image = world.image(parts, damaged, cached)
        actions = Actions(world, image, dice)
        acts = self._prunes(actions, parts, damaged) + list(actions.claims())
        nodes = list(range(3))
        if dice.random() < 0.4:
            acts.append(actions.repair(dice.choice(nodes)))
        for number in nodes:
            if number in cached:
                acts += [actions.evict(number)] if dice.random() < 0.6 else []
            elif dice.random() < 0.5:
                acts += actions.register(number, twice=dice.random() < 0.7)
            elif dice.random() < 0.3:
                acts.append(actions.fill(number))
        deletes = dice.random() < 0.08
        if deletes:
            acts.append(actions.glance_deletes(dice.choice(nodes)))
        return Round(image, actions, acts, world.truth(image.id), deletes)

    def _prunes(self, actions: Actions, parts: Sequence[str], damaged: Sequence[str]) -> list[Act]:
        dice, nodes = self._dice, self._dice.sample(range(3), 3)
        if dice.random() < 0.3 and not damaged:  # a Glance of a host without our filters takes what the prune keeps
            one, other = dice.sample(parts, 2)
            remove = actions.glance_removes(nodes[1], other)
            return [actions.prune(nodes[0], one, meets=False, under_the_lock=remove)]
        meets, chosen = dice.random() < 0.5, dice.sample(parts, 2)
        return [actions.prune(node, part, meets=meets) for node, part in zip(nodes, chosen, strict=False)]

    def _cached(self) -> Round:
        """Every durable copy is corrupt, and known as such; copies on hosts are evicted and ordered away."""
        dice, world = self._dice, self._world
        cached = dice.sample(range(3), dice.choice((1, 2, 2, 3)))
        image = world.image(PARTS[:1], PARTS[:1], cached)
        world.condemn(image)
        actions = Actions(world, image, dice)
        acts = list(actions.claims())
        for number in cached:
            acts += [actions.evict(number)] if dice.random() < 0.6 else []
            acts += [actions.order((number + 1) % 3, number)] if dice.random() < 0.6 else []
        return Round(image, actions, acts, world.truth(image.id))

    def _play(self, now: Round, disaster: str) -> None:
        """All at the same time; every node is well again afterwards."""
        moment, node = self._dice.uniform(0, 0.12), self._dice.choice(self._world.cluster.nodes)
        with ThreadPoolExecutor(len(now.acts) + 1) as pool:
            running = [pool.submit(act) for act in now.acts]
            if disaster:
                time.sleep(moment)
                _happen(disaster, node, self._dice)
            for one in running:
                one.result(300)
        if disaster:
            assert eventually(self._world.cluster.is_whole, 60)

    def _wrong(self, now: Round, truth: Truth) -> Iterator[str]:
        """What must not be."""
        report = now.actions.report
        yield from report.wrong
        yield from (f"{said.what} was reported as done" for said in report.said if not said.holds(truth))
        if len(report.alone) > 1:
            yield f"{', '.join(report.alone)} each found themselves the first to fetch the image"
        if len(set(truth.urls)) != len(truth.urls):
            yield f"a URL has two rows: {sorted(truth.urls)}"
        if now.deletes:
            return
        if now.had.intact and not truth.intact:
            yield f"no intact durable copy is left of {sorted(now.had.intact)}"
        if not now.had.intact and now.had.files and not truth.files:
            yield f"no intact copy is left on a host of {sorted(now.had.files)}"
        if lost := now.had.durable - truth.durable - report.took:
            yield f"{sorted(lost)} went, and nobody says so"


def _happen(disaster: str, node: Node, dice: random.Random) -> None:
    if disaster == "kill":
        node.kill()
        node.start()
    elif disaster == "cut":
        node.isolate()
        node.rejoin()
    elif disaster == "freeze":  # longer than the others wait for it
        node.freeze()
        time.sleep(8)
        node.thaw()
    elif disaster == "halt":  # shorter: all wait
        node.freeze()
        time.sleep(dice.uniform(0.1, 1.0))
        node.thaw()
    else:
        node.hold_up(dice.uniform(0.1, 1.0))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--disasters", type=int, default=3, metavar="PERCENT", help="of each kind (default: 3)")
    parser.add_argument("--without", choices=STRATEGIES, default="nothing")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    logging.disable()
    began = time.monotonic()
    with (
        server_folder("galera", memory=True) as servers,
        tempfile.TemporaryDirectory() as folder,
        Galera(servers) as cluster,
        closing(World(Path(folder), cluster, STRATEGIES[options.without])) as world,
    ):
        rounds = Rounds(world, seed, options.disasters)
        rounds.run(options.rounds)
    for name, number in sorted(rounds.counts.items()):
        print(f"{number:6} {name}")
    print(f"{options.rounds} rounds in {time.monotonic() - began:.0f} s, {len(rounds.violations)} violations")
    return 1 if rounds.violations else 0


if __name__ == "__main__":
    sys.exit(main())
