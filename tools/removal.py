"""The flow of a removal: look, prove, note in the ledger, prove again under the lock, withdraw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glance_replicas import location, prune
from glance_replicas.errors import ReplicaError
from glance_replicas.model import Evidence, Image, Location, Result, Verdict

from . import host_files
from .command import who
from .looking import look_at

if TYPE_CHECKING:
    from glance_replicas.catalogue import Catalogue, LockedImage
    from glance_replicas.ledger import Ledger
    from glance_replicas.sources import Sources

ACT_SECONDS = 60.0  # between the end of a round of looks and the removal that relies on it


@dataclass(frozen=True)
class Order:
    """What the operator wants gone. `states` None: cached copies, whatever their state."""

    states: tuple[Verdict, ...] | None
    min_durable: int


@dataclass(frozen=True)
class Looks:
    """One round of looks at an image."""

    image: Image  # as it was then
    results: tuple[Result, ...]
    began: datetime
    ended: datetime

    @property
    def max_age_seconds(self) -> float:
        """What counts as fresh: this round, and a minute more. A round over large images takes its time."""
        return (self.ended - self.began).total_seconds() + ACT_SECONDS


@dataclass(frozen=True)
class Step:
    """One location of the plan: its proof or refusal, and whether it was removed."""

    image: Image
    target: Location
    answer: prune.Proof | prune.Refusal
    looks: Looks
    removed: bool = False


class Removal:
    """Plans removals and does them; nothing goes without a line in the ledger."""

    def __init__(
        self, catalogue: "Catalogue", ledger: "Ledger", sources: "Sources", order: Order, *, workers: int
    ) -> None:
        self._catalogue, self._ledger, self._sources = catalogue, ledger, sources
        self._order, self._workers = order, workers

    def plan(self, image: Image, targets: Sequence[Location]) -> Iterator[Step]:
        """A step for each target, after one round of looks; targets that are intact are no part of it."""
        looks = self._look(image, targets)
        for target in targets:
            verdicts = {one.verdict for one in looks.results if one.location == target}
            if self._order.states is None or verdicts != {Verdict.INTACT}:
                yield Step(image, target, self._decide(image, target, looks), looks)

    def act(self, step: Step) -> Step:
        """The step done, or refused after all; a fault on the way is a refusal that says so."""
        try:
            if (datetime.now(UTC) - step.looks.ended).total_seconds() > ACT_SECONDS / 2:
                looks = self._look(step.image, [step.target])
                step = replace(step, looks=looks, answer=self._decide(step.image, step.target, looks))
            return self._remove(step) if isinstance(step.answer, prune.Proof) else step
        except ReplicaError as error:
            return replace(step, answer=self._refusal(step, f"{error}", unknown=True))

    def _remove(self, step: Step) -> Step:
        assert isinstance(step.answer, prune.Proof)
        request = self._ledger.request_withdrawal(
            step.target, reason=step.answer.reason, who=who(), proof=step.answer.as_dict()
        )
        removed = False
        try:
            with self._catalogue.locked(step.image.id) as locked:
                answer = self._withdraw(step, locked)
            removed = isinstance(answer, prune.Proof)
        finally:
            if not (removed and location.is_ours(step.target)):  # else the janitor of its host does the rest
                self._ledger.finish_withdrawal(request)
        return replace(step, answer=answer, removed=removed)

    def _withdraw(self, step: Step, locked: "LockedImage") -> prune.Proof | prune.Refusal:
        """Prove it again with the rows as they are under the lock; only then does the row go."""
        answer = self._decide(locked.image, step.target, step.looks)
        if isinstance(answer, prune.Proof) and not locked.withdraw(step.target):
            return self._refusal(step, "the location is no longer in the catalogue")
        return answer

    def _decide(self, image: Image, target: Location, looks: Looks) -> prune.Proof | prune.Refusal:
        return prune.removable(
            image,
            target,
            looks.results,
            now=datetime.now(UTC),
            judged=looks.image.digest,
            states=self._order.states,
            min_durable=self._order.min_durable,
            max_age_seconds=looks.max_age_seconds,
            identity=host_files.identity,
        )

    def _look(self, image: Image, targets: Sequence[Location]) -> Looks:
        """Every durable copy in full; a cached one only when it goes because of its state."""
        chosen = {one.row: one for one in image.durable}
        if self._order.states is not None:
            chosen |= {one.row: one for one in targets}
        began = datetime.now(UTC)
        items = [(image, one, Evidence.FULL) for one in chosen.values()]
        results = tuple(result for _, result in look_at(self._sources, items, self._workers))
        return Looks(image, results, began, datetime.now(UTC))

    @staticmethod
    def _refusal(step: Step, reason: str, unknown: bool = False) -> prune.Refusal:
        return prune.Refusal(step.image.id, location.redact(step.target.url), reason, unknown)
