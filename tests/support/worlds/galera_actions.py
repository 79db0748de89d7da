"""What hosts do to one image at the same time in a random round, and what each says that it has done."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from glance_replicas.errors import LastCopy, ReplicaError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor.requested_removals import RequestedRemovals
from glance_replicas.model import Image, Location, Pass
from glance_replicas.removal.causes import DAMAGED, Cause
from glance_replicas.removal.flow import Removal, Step
from glance_replicas.removal.proof import Proof
from glance_replicas.removal.removal_facts import RemovalFacts, RemovalOrder
from glance_replicas.repair.flow import RepairFlow
from glance_replicas.repair.plan import Action
from glance_replicas.repair.rewrite import Rewriter
from glance_replicas.transfer.follow import start_or_join

from .galera import DATA, WRONG, Truth, World

Act = Callable[[], None]
_UNDER_THE_LOCK = 4  # times that a removal has asked for the time before: twice and once for its plan, before it acts


@dataclass(frozen=True)
class Said:
    """What somebody reported as done, and whether it is so."""

    what: str
    holds: Callable[[Truth], bool]


@dataclass
class Report:
    """What all in one round say; filled by many threads."""

    said: list[Said] = field(default_factory=list)
    took: set[str] = field(default_factory=set)  # durable copies that somebody removed, or may have
    alone: list[str] = field(default_factory=list)  # who found that nobody else fetches the image
    outcomes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # violations that only the actor could see

    def done(self, what: str, holds: Callable[[Truth], bool]) -> None:
        """It was reported as done."""
        self.said.append(Said(what, holds))
        self.outcomes.append(f"{what.split(maxsplit=1)[0]} done")

    def not_done(self, what: str, error: object = None) -> None:
        """It was reported as refused, or failed."""
        known = "unknown" if "is not known" in str(error) else "failed" if error else "refused"
        self.outcomes.append(f"{what.split(maxsplit=1)[0]} {known}")


def obey(host: LocalHost) -> int:
    """The host removes what it is asked to, as its janitor does; how many files."""
    done = Pass()
    RequestedRemovals(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        ledger=host.ledger,
        hosts=host.host_registry,
        removals=host.removals,
        registration=host.registration,
        is_fetched=lambda _: False,
    ).run(done)
    return done.removed


class Actions:
    """Of one image, by the hosts of a world; each `Act` is for a thread of its own."""

    def __init__(self, world: World, image: Image, dice: random.Random) -> None:
        self._world, self._image, self._dice = world, image, dice
        self.report = Report()
        self._meeting = threading.Barrier(2)

    def prune(self, number: int, part: str, *, meets: bool, under_the_lock: Act | None = None) -> Act:
        """A host condemns a copy that its store gave wrong for a moment; proven now, done later.

        With `meets` it waits under the lock for another one, so that both have read before either changes a row.
        """
        pause = self._dice.uniform(0, 0.04)
        told = itertools.count()

        def clock() -> datetime:
            if next(told) == _UNDER_THE_LOCK:
                time.sleep(pause)
                if meets:
                    with suppress(threading.BrokenBarrierError):
                        self._meeting.wait(0.5)
                if under_the_lock:
                    under_the_lock()
            return datetime.now(UTC)

        removal = self._removal(number, clock)
        step = self._planned(removal, part)
        return lambda: self._prune(removal, step, part)

    def _removal(self, number: int, clock: Callable[[], datetime]) -> Removal:
        host, sources = self._world.hosts[number], self._world.sources
        facts = RemovalFacts(host.catalogue, host.ledger, dead_after_seconds=3600)

        def causes(images: Sequence[Image]) -> Callable[[Location], Cause]:
            return facts.damaged(images, DAMAGED)

        return Removal(host.catalogue, host.ledger, sources, RemovalOrder(causes), workers=1, clock=clock)

    def _planned(self, removal: Removal, part: str) -> Step:
        path = self._world.path(self._image.id, part)
        before = path.read_bytes()
        path.write_bytes(WRONG)
        (step,) = removal.plan(self._image, [self._world.durable(self._image, part)])
        path.write_bytes(before)
        return step

    def _prune(self, removal: Removal, step: Step, part: str) -> None:
        what = f"prune of {part}"
        if not isinstance(step.answer, Proof):
            self.report.not_done(what)
            return
        done = removal.act(step)
        reason = getattr(done.answer, "reason", "")
        if done.removed:
            self.report.took.add(part)
            self.report.done(what, lambda truth: part not in truth.durable)
        elif getattr(done.answer, "unknown", False):
            if "is not known" in reason:
                self.report.took.add(part)
            self.report.not_done(what, reason)
        else:
            self.report.not_done(what)

    def repair(self, number: int) -> Act:
        """A host verifies all copies and writes those anew that are damaged."""
        host, world = self._world.hosts[number], self._world
        rewriter = Rewriter(host.catalogue, world.sources, world.writers)
        flow = RepairFlow(
            host.settings, host.ledger, world.sources, world.writers, rewriter, workers=1, keep=host.ledger.record
        )

        def act() -> None:
            for step in flow.plan(self._image):
                done = flow.act(step)
                part = done.target.url.rpartition("-")[2]
                if done.action is Action.RESTORED:
                    self.report.done(f"repair of {part}", self._is_right(part))
                else:
                    self.report.outcomes.append(f"repair {done.action}")

        return self._faults("repair", act)

    def _is_right(self, part: str) -> Callable[[Truth], bool]:
        path = self._world.path(self._image.id, part)
        return lambda truth: truth.is_deleted or path.read_bytes() == DATA

    def evict(self, number: int) -> Act:
        """A host makes room: everything goes that may."""
        host = self._world.hosts[number]
        name, url = host.settings.host_name, self._world.own(number, self._image).url

        def act() -> None:
            if self._world.evict(number):
                self.report.done("evict", lambda truth: name not in truth.files and url not in truth.urls)
            else:
                self.report.not_done("evict")

        return self._faults("evict", act)

    def order(self, number: int, other: int) -> Act:
        """A host orders away the copy of another one, which does it."""
        host, copy = self._world.hosts[number], self._world.own(other, self._image)

        def act() -> None:
            try:
                host.removals.order(copy, reason="a test", who="somebody")
            except LastCopy:
                self.report.not_done("order")
                return
            self.report.done("order", lambda _: True)
            self._obey(other)

        return self._faults("order", act)

    def _obey(self, number: int) -> None:
        host = self._world.hosts[number]
        name, url = host.settings.host_name, self._world.own(number, self._image).url
        if obey(host):
            self.report.done("removal", lambda truth: name not in truth.files and url not in truth.urls)

    def register(self, number: int, *, twice: bool) -> list[Act]:
        """A host registers the file that it has, also through another node at the same time."""
        host, image = self._world.hosts[number], self._image
        self._world.put(number, image.id)
        url = self._world.own(number, image).url

        def is_there(truth: Truth) -> bool:
            return truth.is_deleted or url in truth.urls

        def act() -> None:
            if host.full_reads.verified(image):
                self.report.done("register", is_there)
            else:
                self.report.not_done("register")

        def again() -> None:
            other = self._world.hosts[number - 1]
            if other.catalogue.add(image.id, url, host.registration.metadata()):
                self.report.done("register", is_there)

        return [self._faults("register", one) for one in ([act, again] if twice else [act])]

    def fill(self, number: int) -> Act:
        """A host fetches the image, and its client gets it."""
        host, image = self._world.hosts[number], self._image
        name = host.settings.host_name

        def act() -> None:
            with closing(start_or_join(host.cache, host.fill_setup.plan(image))) as follower:
                if b"".join(follower.read(0, len(DATA))) != DATA:
                    self.report.wrong.append("a client got wrong bytes")
            self.report.done("fill", lambda truth: truth.is_deleted or name in truth.files)

        return self._faults("fill", act)

    def claims(self) -> Iterable[Act]:
        """All hosts begin to fetch an image at the same instant."""
        start = threading.Barrier(len(self._world.hosts))

        def claim(number: int) -> Act:
            host = self._world.hosts[number]
            name, url = host.settings.host_name, host.settings.host_url or ""

            def act() -> None:
                with suppress(threading.BrokenBarrierError):
                    start.wait(1)
                found = host.ledger.claim_fill(f"claimed {self._image.id[-12:]}", name, url, 60.0)
                if [one.host for one in found] == [name]:
                    self.report.alone.append(name)
                self.report.outcomes.append("claim done")

            return self._faults("claim", act)

        return [claim(number) for number in range(len(self._world.hosts))]

    def glance_removes(self, number: int, part: str) -> Act:
        """A Glance without our filters removes this location on another node; to be called under a prune's lock."""
        row = self._world.durable(self._image, part).row

        def act() -> None:
            self.report.took.add(part)
            try:
                with self._world.glance(number) as call:
                    call("image_location_delete", self._image.id, row, "deleted")
            except Exception as error:  # noqa: BLE001 - whatever Glance's code raises
                self.report.outcomes.append(f"glance failed {type(error).__name__}")
                return
            self.report.done("glance removal", lambda truth: part not in truth.durable)

        return act

    def glance_deletes(self, number: int) -> Act:
        """The image is deleted through Glance: its locations, then itself."""

        def act() -> None:
            try:
                with self._world.glance(number) as call:
                    for one in self._image.locations:
                        call("image_location_delete", self._image.id, one.row, "deleted")
                    call("image_update", self._image.id, {"status": "deleted"})
                    call("image_destroy", self._image.id)
            except Exception as error:  # noqa: BLE001
                self.report.outcomes.append(f"delete failed {type(error).__name__}")
                return
            self.report.done("delete", lambda truth: truth.is_deleted)

        return act

    def _faults(self, what: str, act: Act) -> Act:
        pause = self._dice.uniform(0, 0.06)

        def tried() -> None:
            time.sleep(pause)
            try:
                act()
            except ReplicaError as error:
                self.report.not_done(what, error)

        return tried
