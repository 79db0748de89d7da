"""The flow of a repair: verify every copy, plan, have it made good, verify again."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..caller import who
from ..errors import ReplicaError, Unsupported
from ..ledger.host_registry import is_alive
from ..ledger.prefetch_requests import PrefetchRequests
from ..location import described, replica_url
from ..model import Host, Image, Location, Result
from ..verdict import Evidence, Verdict
from ..verify.probe import probe
from ..verify.worker_pool import probe_all
from . import plan as repair
from .plan import Action, Step

if TYPE_CHECKING:
    from ..ledger.ledger import Ledger
    from ..settings import Settings
    from ..stores.sources import Sources
    from ..stores.writers import Writers
    from .rewrite import Rewriter

_FRESH_SECONDS = 60.0  # a verification older than this is repeated before anything relies on it
_POLL_SECONDS = 0.5


class RepairFlow:
    """Plans repairs and does them. `keep` is given every result, for the ledger."""

    def __init__(
        self,
        settings: "Settings",
        ledger: "Ledger",
        sources: "Sources",
        writers: "Writers",
        rewriter: "Rewriter",
        *,
        workers: int,
        keep: Callable[[list[Result]], None],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._settings, self._ledger, self._sources = settings, ledger, sources
        self._writers, self._rewriter = writers, rewriter
        self._workers, self._keep, self._progress = workers, keep, progress
        self._hosts: Mapping[str, Host] | None = None

    def plan(self, image: Image) -> list[Step]:
        """A step for each copy that is not intact, after a full verification of all of them, just now."""
        items = [(image, location, Evidence.FULL) for location in image.locations]
        results = [result for _, result in probe_all(self._sources, items, self._workers)]
        self._keep(results)
        return repair.plan(image, results, self._obstacle)

    def act(self, step: Step) -> Step:
        """The step with its outcome. A host that is asked does its part later: see `wait`."""
        try:
            if _is_old(step.before):
                step = self._again(step)
            if step.action is Action.RESTORE:
                return self._restore(step)
            return self._ask(step) if step.action is Action.REFILL else step
        except ReplicaError as error:
            return step.became(Action.FAILED, str(error))

    def wait(self, steps: list[Step], tell: Callable[[int, str], None]) -> Iterator[Step]:
        """The steps whose hosts were asked, with their outcomes; `tell` is given how many have ended, and a name.

        A host that is not heard of any more is not waited for. Raises LedgerError.
        """
        left = list(steps)
        while left:
            for step in [begun for begun in left if self._has_ended(begun)]:
                left.remove(step)
                yield self._refilled(step)
            tell(len(steps) - len(left), left[0].image.id if left else "")
            if left:
                time.sleep(_POLL_SECONDS)

    def _again(self, step: Step) -> Step:
        """The step after a new verification of its copy, which may have been made good since the plan."""
        before = self._look(step)
        if before.verdict is Verdict.INTACT:
            return step.became(Action.HEALED, "it is intact by now", before)
        if before.verdict.is_unknown:
            return step.became(Action.KEEP, "its state is not known any more", before)
        return replace(step, before=before)

    def _restore(self, step: Step) -> Step:
        restored = self._rewriter.restore(step.image, step.target, step.intact, self._progress)
        origin = described(step.intact[0]) if step.intact else "nothing, for it is empty"
        after = self._look(step, f"restored in place by {who()} from {origin}")
        is_intact = after.verdict is Verdict.INTACT
        self._rewriter.keep_or_remove(step.image, restored, is_intact)
        return step.became(Action.RESTORED if is_intact else Action.FAILED, "" if is_intact else after.detail, after)

    def _ask(self, step: Step) -> Step:
        """Its host drops the copy and fetches it anew, by itself from here on (`Janitor`)."""
        self._ledger.request_withdrawal(
            step.target,
            reason=f"repair: {step.before.verdict}",
            who=who(),
            proof={
                "refill": True,
                "before": step.before.detail,
                "intact": [described(location) for location in step.intact],
            },
        )
        return step.became(Action.ASKED)

    def _has_ended(self, step: Step) -> bool:
        """Whether its host has dropped the copy and fetched it, or failed to, or is not heard of."""
        host, image_id = step.target.host or "", step.image.id
        is_open = any(
            pending_withdrawal.image_id == image_id for pending_withdrawal in self._ledger.pending_withdrawals(host)
        )
        if not is_open:  # then it has been asked for
            is_open = any(
                request.state.is_open for request in PrefetchRequests(self._ledger.database).list([image_id], [host])
            )
        return not (is_open and self._is_alive(host))

    def _refilled(self, step: Step) -> Step:
        after = self._look(step)
        if after.verdict is Verdict.INTACT:
            return step.became(Action.REFILLED, after=after)
        if not self._is_alive(step.target.host or ""):
            return step.became(Action.ASKED, f"host {step.target.host} is silent; it does so when it is back", after)
        return step.became(Action.FAILED, after.detail, after)

    def _look(self, step: Step, note: str = "") -> Result:
        result = probe(self._sources, step.image, step.target, Evidence.FULL)
        if note and result.verdict is Verdict.INTACT:
            result = replace(result, detail=f"{note}: {result.detail}")
        self._keep([result])
        return result

    def _obstacle(self, location: Location) -> str | None:
        if not location.is_cached:
            try:
                self._writers.of(location)
            except Unsupported as error:
                return str(error)
            return None
        host = self._known().get(location.host or "")
        if host is None or location.url != replica_url(host.url, location.image_id):
            return f"it is no registration of a host that the ledger knows ({location.host})"
        if not is_alive(host, self._settings):
            return f"host {host.name} has been silent for {host.age_seconds:.0f} s"
        return None

    def _known(self) -> Mapping[str, Host]:
        if self._hosts is None:
            self._hosts = {host.name: host for host in self._ledger.hosts()}
        return self._hosts

    def _is_alive(self, name: str) -> bool:
        return any(host.name == name and is_alive(host, self._settings) for host in self._ledger.hosts())


def _is_old(result: Result) -> bool:
    seen = result.checked_at
    return seen is None or (datetime.now(UTC) - seen).total_seconds() > _FRESH_SECONDS
