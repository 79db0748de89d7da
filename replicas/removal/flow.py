"""The flow of a removal: verify, prove, note in the ledger, prove again under the lock, withdraw.

Killed after the note: the request stays open, the row is there, and the next prune takes it up with a proof of its own.
Killed after the row went: the next prune closes the request; the file of a cached copy is still there, and its host
registers it anew. The host is asked to remove the file only when the row is gone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from ..caller import who
from ..database import several_writers
from ..errors import LedgerError, ReplicaError
from ..ledger.cached_copies import CachedCopies
from ..ledger.ledger import place_key
from ..location import is_ours, redact
from ..model import Image, Location, Result
from ..verdict import Evidence, Verdict
from ..verify.copy_identities import CopyIdentities
from ..verify.worker_pool import probe_all
from . import causes
from . import proof as prune
from .causes import Cause
from .removal_facts import RemovalOrder

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue, LockedImage
    from ..ledger.ledger import Ledger, Withdrawal
    from ..stores.sources import Sources

log = logging.getLogger(__name__)

ACT_SECONDS = 60.0  # between the end of a round of verification and the removal that relies on it


@dataclass(frozen=True)
class VerifyRound:
    """One round of verification of an image."""

    image: Image  # as it was then
    results: tuple[Result, ...]
    began: datetime
    ended: datetime
    mark: int  # of the newest result in the ledger before the round began
    news: tuple[Result, ...] = ()  # what has come to the ledger since

    @property
    def max_age_seconds(self) -> float:
        """What counts as fresh: this round, and a minute more. A round over large images takes its time."""
        return (self.ended - self.began).total_seconds() + ACT_SECONDS


@dataclass(frozen=True)
class Step:
    """One location of the plan: its proof or refusal, and whether it was removed."""

    image: Image
    target: Location
    cause: Cause
    answer: prune.Proof | prune.Refusal
    verified: VerifyRound
    removed: bool = False


class Removal:
    """Plans removals and does them; nothing goes without a line in the ledger."""

    def __init__(
        self,
        catalogue: "Catalogue",
        ledger: "Ledger",
        sources: "Sources",
        order: RemovalOrder,
        *,
        workers: int,
        places: CopyIdentities | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalogue, self._ledger, self._sources = catalogue, ledger, sources
        self._order, self._workers, self._clock = order, workers, clock
        self._places = places or CopyIdentities(sources)

    def plan(self, image: Image, targets: Sequence[Location]) -> Iterator[Step]:
        """A step for each target, after one round of verification; what is intact against the order is left out."""
        verified, cause_of = self._verify(image, targets), self._order.causes([image])
        for target in targets:
            cause = cause_of(target)
            verdicts = {result.verdict for result in verified.results if result.location == target}
            if cause.name != causes.Damaged.name or verdicts != {Verdict.INTACT}:
                yield Step(image, target, cause, self._decide(image, target, cause, verified), verified)

    def act(self, step: Step) -> Step:
        """The step done, or refused after all; a fault on the way is a refusal that says so."""
        try:
            if (self._clock() - step.verified.ended).total_seconds() > ACT_SECONDS / 2:
                verified = self._verify(step.image, [step.target])
                step = replace(
                    step, verified=verified, answer=self._decide(step.image, step.target, step.cause, verified)
                )
            return self._remove(step) if isinstance(step.answer, prune.Proof) else step
        except ReplicaError as error:
            return replace(step, answer=self._refusal(step, f"{error}", unknown=True))

    def settle(self) -> None:
        """Requests whose row went before the process that made them could say so are closed."""
        for request in self._ledger.withdrawals(10000, is_open=True):
            if (request.host is None or request.row_only) and not self._is_there(request):
                self._ledger.finish_withdrawal(request.id)

    def _is_there(self, request: "Withdrawal") -> bool:
        image = self._catalogue.image(request.image_id)
        rows = image.locations if image else ()
        return any(row.row == request.row if request.row else place_key(row) == request.place for row in rows)

    def _remove(self, step: Step) -> Step:
        """An error leaves the request open: whether the row went may not be known, and the next prune finds out."""
        assert isinstance(step.answer, prune.Proof)
        proof, reason = step.answer.as_dict(), step.answer.reason
        request = self._ledger.request_withdrawal(step.target, reason=reason, who=who(), proof=proof, row_only=True)
        step = self._anew(step)
        answer = self._catalogue.decide(step.image.id, partial(self._withdraw, step))
        step = replace(step, answer=answer, removed=isinstance(answer, prune.Proof))
        self._close(step, request)
        return step

    def _close(self, step: Step, request: int) -> None:
        """The ledger says how it ended; if it cannot be told, that does not undo what was done."""
        try:
            if step.removed and is_ours(step.target) and not step.cause.leaves_bytes:
                self._ledger.hand_over(request)  # the janitor of its host does the rest
            else:
                self._ledger.finish_withdrawal(request)
            if step.removed and is_ours(step.target):
                CachedCopies(self._ledger.database).end_copy(step.target)
        except LedgerError as error:
            log.warning("image %s: removal %d stays open in the ledger: %s", step.image.id, request, error)

    def _anew(self, step: Step) -> Step:
        """The facts as they are now that others can see what is about to go, and what others have found since ours."""
        with several_writers.causal_reads():
            cause = self._order.causes([step.image])(step.target)
            recorded = self._ledger.recorded_since(step.verified.mark, step.image.id)
        # The ledger does not keep all that names a copy.
        named = {place_key(location): location for location in step.image.locations}
        news = tuple(
            replace(result, location=named.get(place_key(result.location), result.location)) for result in recorded
        )
        return replace(step, cause=cause, verified=replace(step.verified, news=news))

    def _withdraw(self, step: Step, locked: "LockedImage") -> prune.Proof | prune.Refusal:
        """Prove it again with the rows as they are under the lock; only then does the row go."""
        answer = self._decide(locked.image, step.target, step.cause, step.verified)
        if isinstance(answer, prune.Refusal):
            return answer
        if not locked.withdraw(step.target):
            return self._refusal(step, "the location is no longer in the catalogue")
        locked.keep([location for location in locked.image.durable if location.row != step.target.row])
        return answer

    def _decide(
        self, image: Image, target: Location, cause: Cause, verified: VerifyRound
    ) -> prune.Proof | prune.Refusal:
        return prune.removable(
            image,
            target,
            [result for result in verified.results if self._places.is_known(result.location)],
            others=verified.news,
            now=self._clock(),
            judged=verified.image.digest,
            cause=cause,
            min_durable=self._order.min_durable,
            max_age_seconds=verified.max_age_seconds,
            identity=self._places.identity,
        )

    def _verify(self, image: Image, targets: Sequence[Location]) -> VerifyRound:
        """Every durable copy in full; a cached one only when it goes because of its state."""
        chosen = {location.row: location for location in image.durable}
        if self._order.reads_targets:
            chosen |= {target.row: target for target in targets}
        mark, began = self._mark(), self._clock()
        items = [(image, location, Evidence.FULL) for location in chosen.values()]
        results = tuple(result for _, result in probe_all(self._sources, items, self._workers))
        return VerifyRound(image, results, began, self._clock(), mark)

    def _mark(self) -> int:
        """Without a ledger there is a plan, but no deed; should it come back, everything in it is news."""
        try:
            return self._ledger.last_recorded()
        except LedgerError:
            return 0

    @staticmethod
    def _refusal(step: Step, reason: str, unknown: bool = False) -> prune.Refusal:
        return prune.Refusal(step.image.id, redact(step.target.url), reason, unknown)
