"""Random worlds: whatever happens around a removal, no intact durable copy is lost by it, by the world's own truth.

A world has copies with several names, some on hosts, some bad, and looks that tell the truth, nothing, or are old or
shallow. Between plan and removal others act: rows are lost, come back and are added, bytes rot and are repaired, clocks
move, and another prune runs. `PRUNE_WORLDS` sets how many worlds there are (`make prune-worlds`: 20,000).
"""

import collections
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services.databases.schema import sqlite_database
from support.worlds.shelf import DATA, Shelf

from glance_replicas.model import Digest, Image, Location, Result
from glance_replicas.removal.causes import (
    DAMAGED,
    Again,
    Cause,
    Damaged,
    DeadHost,
    Duplicate,
    Ordered,
    OverQuota,
    Surplus,
    Unused,
)
from glance_replicas.removal.flow import Removal, Step
from glance_replicas.removal.proof import Proof, Refusal, removable
from glance_replicas.removal.removal_facts import Causes, RemovalOrder
from glance_replicas.verdict import Evidence, Verdict

pytestmark = pytest.mark.slow

WORLDS = int(os.environ.get("PRUNE_WORLDS", "1000"))
drawn = settings(
    max_examples=WORLDS,
    derandomize="PRUNE_WORLDS" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
START = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
DIGEST = Digest("sha512", "ab" * 64)
ACTS = ("none", "rot", "repair", "scrub", "lose", "return", "copy", "name", "clock", "clock", "digest", "prune")
UNKNOWN = [one for one in Verdict if one.is_unknown]


@dataclass
class World:
    """One image. A copy is a number; `urls` says which copy a name leads to."""

    rng: random.Random
    now: datetime = START
    intact: dict[int, bool] = field(default_factory=dict)
    hosts: dict[int, str | None] = field(default_factory=dict)  # None: durable
    urls: dict[str, int] = field(default_factory=dict)
    active: dict[int, Location] = field(default_factory=dict)
    ever: dict[int, Location] = field(default_factory=dict)
    news: list[Result] = field(default_factory=list)  # what others have recorded in the ledger, in that order
    digest: Digest = DIGEST
    rots: int = 0  # so far
    proofs: collections.Counter[str] = field(default_factory=collections.Counter)

    def __post_init__(self) -> None:
        for _ in range(self.rng.randint(1, 5)):
            self.add_copy()

    @property
    def image(self) -> Image:
        """As the catalogue has it."""
        return Image(ID, "active", 100, self.digest, tuple(self.active.values()))

    @property
    def safe(self) -> set[int]:
        """The truth: intact durable copies that the catalogue names."""
        named = {self.urls[one.url] for one in self.active.values()}
        return {copy for copy in named if self.intact[copy] and self.hosts[copy] is None}

    def identity(self, one: Location) -> int:
        """What a host that sees all files knows."""
        return self.urls[one.url]

    def add_copy(self) -> None:
        copy = len(self.intact)
        self.intact[copy] = self.rng.random() < 0.6
        self.hosts[copy] = self.rng.choice([None, None, "api1", "api2", "api3"])
        for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
            self.add_name(copy)

    def add_name(self, copy: int) -> None:
        """A row; the metadata of a cached copy may be missing, as when a user registers it by hand."""
        row, host = len(self.ever) + 1, self.hosts[copy]
        link = f"file:///s{copy}/link{row}/{ID}"
        durable = [f"file:///s{copy}/{ID}", f"file:///s{copy}//{ID}", link]
        url = f"http://{host}/c{copy}/replicas/{ID}" if host else self.rng.choice(durable)
        honest = host and self.rng.random() < 0.8
        self.urls[url] = copy
        one = Location(ID, url, {"store": "web", "replica_host": host} if honest else {"store": f"s{copy}"}, row)
        self.active[row] = self.ever[row] = one

    def seen(self, one: Location) -> Result:
        """A fresh and full verification: the truth, or nothing."""
        truth = Verdict.INTACT if self.intact[self.urls[one.url]] else self.rng.choice(DAMAGED)
        verdict = self.rng.choice(UNKNOWN) if self.rng.random() < 0.1 else truth
        return Result(one, verdict, Evidence.FULL, checked_at=self.now)

    def look(self, targets: Sequence[Location]) -> list[Result]:
        """One round; and other looks, old, shallow or of a future that does not come, which may say anything."""
        found = []
        for one in {one.row: one for one in (*self.image.durable, *targets)}.values():
            found.append(self.seen(one))
        for one in self.active.values():
            lie, shallow = self.rng.choice(list(Verdict)), self.rng.choice(list(Evidence)[:3])
            old = self.now + timedelta(seconds=self.rng.choice([-1e4, -61, 1e6]))
            if self.rng.random() < 0.2:
                found.append(Result(one, lie, Evidence.FULL, checked_at=old))
            if self.rng.random() < 0.1:
                found.append(Result(one, Verdict.INTACT, shallow, checked_at=self.now))
        self.rng.shuffle(found)
        return found

    def cause(self) -> Cause:
        """Any order, on any facts."""
        held = {(ID, host): self.rng.randint(0, 3) for host in ("api1", "api2")}
        pinned = {one for one in held if self.rng.random() < 0.3}
        day = 86400.0
        made: list[Cause] = [
            Damaged(self.rng.choice([DAMAGED, tuple(Verdict), (Verdict.MISSING,)])),
            *(Duplicate(), Ordered(pinned), DeadHost({"api1": 1e6, "api2": 1.0}, 60.0)),
            Surplus(self.rng.randint(0, 2), {"api1"}, pinned, held),
            Unused(day, day, held, dict.fromkeys(self.ever, day * self.rng.randint(0, 2)), pinned),
            OverQuota(100, self.rng.choice([100, 101]), pinned),
        ]
        cause = self.rng.choice(made)
        return Again(cause, 7, finished=True) if self.rng.random() < 0.2 else cause

    def others_act(self, depth: int) -> None:
        """Something happens between plan and removal."""
        copy = self.rng.randrange(len(self.intact))
        act = self.rng.choice(ACTS)
        if act == "rot":
            self.intact[copy], self.rots = False, self.rots + 1
        elif act == "repair":  # whoever writes bytes records his look at them
            self.intact[copy] = True
            names = [one for one in self.ever.values() if self.urls[one.url] == copy]
            self.news += [Result(one, Verdict.INTACT, Evidence.FULL, checked_at=self.now) for one in names[:1]]
        elif act == "scrub":
            self.news.append(self.seen(self.rng.choice(list(self.ever.values()))))
        elif act == "lose":
            self.active.pop(self.rng.choice(list(self.ever)), None)
        elif act == "return":
            row = self.rng.choice(list(self.ever))
            self.active[row] = self.ever[row]
        elif act == "copy":
            self.add_copy()
        elif act == "name":
            self.add_name(copy)
        elif act == "clock":
            self.now += timedelta(seconds=self.rng.choice([1, 20, 59, 61, 600, -600]))
        elif act == "digest":
            self.digest = replace(DIGEST, value="cd" * 64)
        elif act == "prune" and depth:
            self.prune(depth - 1)

    def prune(self, depth: int = 2) -> None:
        """One removal from beginning to end, and what must be true of it."""
        if not self.active:
            return
        least, target = self.rng.randint(0, 2), self.rng.choice(list(self.active.values()))
        rots, mark = self.rots, len(self.news)
        looks, judged, cause = self.look([target]), self.digest, self.cause()
        for _ in range(self.rng.choice([0, 1, 1, 2, 3])):
            self.others_act(depth)
        answer = removable(
            self.image,
            target,
            looks,
            others=self.news[mark:],
            now=self.now,
            judged=judged,
            cause=cause,
            min_durable=least,
            max_age_seconds=60.0,
            identity=self.identity,
        )
        if isinstance(answer, Refusal):
            return
        before = self.safe
        assert target.row in self.active, "what is not there was removed"
        del self.active[target.row]
        self.proofs[cause.name] += 1
        assert self.safe == before, f"an intact durable copy went: {answer}"
        if self.rots == rots:
            assert len(self.safe) >= max(1, least), f"too few are left: {answer}"
            assert len(answer.keeps) <= len(self.safe)


def test_the_last_intact_durable_copy_survives() -> None:
    """In every world, after every removal, exactly as many intact durable copies are named as before it."""
    proofs: collections.Counter[str] = collections.Counter()

    @drawn
    @given(st.integers(0, 2**48))
    def play(seed: int) -> None:
        world = World(random.Random(seed))
        for _ in range(world.rng.randint(1, 8)):
            world.prune()
            world.digest = DIGEST
        proofs.update(world.proofs)

    play()
    assert proofs.total() > WORLDS / 10, "worlds in which nothing can be removed prove nothing"
    assert set(proofs) == {"damaged", "duplicate", "order", "dead host", "surplus", "unused", "quota"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """One for all worlds."""
    folder = tmp_path_factory.mktemp("worlds")
    made = Shelf(folder, sqlite_database(folder / "glance.sqlite"))
    yield made
    made.close()


class RealWorld:
    """One image on a site; the files are the truth."""

    def __init__(self, site: Shelf, rng: random.Random) -> None:
        self.site, self.rng, self.image_id = site, rng, site.image()
        self.truth: set[int] = set()
        self.acting = False
        self.removed = 0
        for number in range(rng.randint(2, 5)):
            self.add("file" if number < 2 else "")

    def add(self, kind: str = "") -> None:
        """A copy in the store, a second name of one, or a copy on a host that nobody can reach."""
        kind, files = kind or self.rng.choice(["file", "link", "host"]), self.files()
        if kind == "host":
            self.site.add_cached(self.image_id, self.rng.choice(["api1", "api2"]))
            return
        path = self.site.store / f"{self.image_id}-{self.rng.random()}"
        if kind == "link" and files:
            path.hardlink_to(self.rng.choice(files))
        elif self.rng.random() < 0.9:
            path.write_bytes(self.rng.choice([DATA, DATA, DATA[::-1], b"short"]))
        self.site.catalogue.add(self.image_id, f"file://{path}", {"store": "fast"})

    def files(self) -> list[Path]:
        """All files of the image, registered or not."""
        return sorted(self.site.store.glob(f"{self.image_id}-*"))

    def safe(self) -> set[int]:
        """The inodes of intact durable copies that the catalogue names."""
        paths = [Path(one.url.removeprefix("file://")) for one in self.site.now(self.image_id).durable]
        return {one.stat().st_ino for one in paths if one.exists() and one.read_bytes() == DATA}

    def others_act(self) -> None:
        """Something happens; never a repair, whose bytes nobody has looked at."""
        act, files = self.rng.choice(["none", "none", *(["rot", "lose", "return", "add", "prune"])]), self.files()
        if act == "rot" and files:
            path = self.rng.choice(files)
            path.write_bytes(b"rotten") if self.rng.random() < 0.5 else path.unlink()
        elif act in ("lose", "return"):
            rows = self.site.rows(self.image_id, deleted=act == "return")
            if rows:
                self.site.set_deleted(self.rng.choice(rows), act == "lose")
        elif act == "add":
            self.add()
        elif act == "prune":
            self.prune(disturbed=False)

    def prune(self, *, disturbed: bool = True) -> None:
        """One run over the image. Disturbed: others act after the plan, and once more between note and lock."""
        reasons, image = self.site.reasons, self.site.now(self.image_id)
        orders = [partial(reasons.damaged, states=DAMAGED), reasons.duplicates, reasons.ordered, reasons.dead]
        order = self.rng.choice([*orders[:2], *orders, partial(reasons.surplus, keep=1)])
        ask = partial(self._ask_beside_others, order) if disturbed else order
        made = RemovalOrder(ask, self.rng.choice([1, 1, 2]))
        removal = self.site.removal(made)
        for step in list(removal.plan(image, image.locations)):
            if isinstance(step.answer, Proof):
                self._act(removal, step, disturbed)

    def _ask_beside_others(self, order: Causes, images: Sequence[Image]) -> Callable[[Location], Cause]:
        found = order(images)
        if self.acting:
            self.others_act()
            self.truth = self.safe()
        return found

    def _act(self, removal: Removal, step: Step, disturbed: bool) -> None:
        if disturbed:
            self.others_act()
        truth = self.truth = self.safe()
        self.acting = disturbed
        done = removal.act(step)
        self.acting = False
        assert self.safe() == (self.truth if disturbed else truth), f"an intact durable copy went: {done}"
        assert not (done.removed and step.target.row in self.site.rows(self.image_id))
        self.removed += done.removed


def test_through_catalogue_and_ledger(site: Shelf) -> None:
    """The same through real databases and files, while others act between plan and note, and between note and lock."""
    worlds, removed = max(20, WORLDS // 40), 0

    @settings(drawn, max_examples=worlds)
    @given(st.integers(0, 2**48))
    def play(seed: int) -> None:
        nonlocal removed
        world = RealWorld(site, random.Random(seed))
        for _ in range(world.rng.randint(1, 2)):
            world.prune()
        removed += world.removed

    play()
    assert removed > worlds / 5, "worlds in which nothing can be removed prove nothing"
