"""The flow of a verification: what is due is verified by bounded workers, and recorded as it goes.

    work = Verification(settings, catalogue, BestEffortLedger(ledger), Selection(), Options())
    for image, result in work.results(sources): ...
    work.summary.has_damage

Killed at any moment: what was found more than two seconds before is in the ledger.
"""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ..caller import who
from ..catalogue.selection import Selection
from ..errors import ConfigError
from ..ledger.best_effort import BestEffortLedger
from ..ledger.schema.rows import place_key
from ..ledger.shared_runs import SharedRuns
from ..model import Image, Location, Result
from ..throttle import Throttle
from ..verdict import Evidence
from . import skip_fresh
from .copy_identities import CopyIdentities
from .judge import reference
from .probe import probe
from .recorder import Recorder
from .remote_verify import RemoteVerify
from .retry import Outcome, Retry
from .run_worker import RunWorker
from .schedule import EVERYTHING, Sample, Schedule
from .summary import Summary
from .work_queue import WorkItem, WorkQueue
from .worker_pool import Bounds, backend, run_all

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue
    from ..settings import Settings
    from ..stores.sources import Sources

log = logging.getLogger(__name__)

ELSEWHERE_SECONDS = 1.0  # between two questions whether others are done


@dataclass(frozen=True)
class VerifyOptions:
    """What to verify of a selection, how deep and how fast; None: no limit. Raises ConfigError."""

    evidence: Evidence = Evidence.FULL
    workers: int = 4
    workers_per_backend: int = 4  # at one host, store or server
    max_age_seconds: float | None = None  # what was intact, as deep, so recently is skipped
    max_duration_seconds: float | None = None  # from the making of a `Verification`
    max_bytes_per_second: int | None = None  # all workers together
    max_items_per_second: int | None = None  # all workers together
    sample: Sample = EVERYTHING
    seed: str | None = None  # of the sample; None: another one each time
    run: str | None = None  # the name of a run that several processes share
    remote_reads: bool = False  # cached copies are read over the network; else their hosts are asked to read them
    allow_unverifiable: bool = False  # that an image has no digest is no fault

    def __post_init__(self) -> None:
        if self.run is not None and (self.max_age_seconds is not None or self.sample.bytes is not None):
            raise ConfigError("a run verifies everything it selects once: leave out --max-age and a --sample by size")


class Verification:
    """One verification: `planned` lists what is due, `results` verifies it, `summary` adds up what was found.

    `note` is told one line for the operator. Raises LedgerError where a run cannot go on without the ledger.
    """

    def __init__(
        self,
        settings: "Settings",
        catalogue: "Catalogue",
        ledger: BestEffortLedger,
        selection: Selection,
        options: VerifyOptions,
        *,
        note: Callable[[str], None] = log.warning,
    ) -> None:
        self._catalogue, self._ledger, self._selection = catalogue, ledger, selection
        self._options, self._note = options, note
        self.summary = Summary(allow_unverifiable=options.allow_unverifiable)
        self._worker: RunWorker | None = None
        self._is_first = True
        duration = options.max_duration_seconds
        self._until = time.monotonic() + duration if duration else None
        rates = (options.max_bytes_per_second, options.max_items_per_second)
        self._by_bytes, self._by_items = (Throttle(rate) if rate else None for rate in rates)
        self._schedule, self._seed = self._begin()
        self._queue = self._new_queue()
        remote = RemoteVerify(settings, ledger.strict, options.max_bytes_per_second)
        ask = (lambda _item: None) if options.remote_reads else remote
        self._retry = Retry(self._probe, ask, ask_first=options.evidence is Evidence.FULL)

    def _begin(self) -> tuple[Schedule, str]:
        options = self._options
        if options.run is not None:
            return self._join(options.run)
        now = self._ledger.now()
        since = now - timedelta(seconds=options.max_age_seconds) if options.max_age_seconds is not None else None
        schedule = Schedule(options.evidence, now, since, accepts_unverifiable=options.allow_unverifiable)
        return schedule, options.seed or f"{random.random()}"  # noqa: S311

    def _join(self, name: str) -> tuple[Schedule, str]:
        """The run of this name is begun, or goes on. Raises LedgerError, Refused."""
        options, ledger = self._options, self._ledger.strict
        how = {"evidence": str(options.evidence), "sample": options.sample.text, "seed": options.seed}
        chosen = how | self._selection.as_dict()
        runs = SharedRuns(ledger.database)
        run = runs.start(name, {key: option for key, option in chosen.items() if option is not None}, who=who())
        self._note(f"run {run.name}: {'goes on' if run.resumed else 'begun'}, {run.started_at:%F %T} UTC")
        schedule = Schedule(options.evidence, ledger.now(), run.started_at, run=True)
        self._worker = RunWorker(runs, run, schedule)
        return schedule, options.seed or f"{run.started_at}"

    @property
    def total(self) -> int:
        """How many locations are due, as far as is known now."""
        return self._queue.total

    def planned(self) -> Iterator[WorkItem]:
        """What is due, in order."""
        yield from self._stream()
        self._count()

    def results(self, sources: "Sources") -> Iterator[tuple[Image, Result]]:
        """What was found, as it is found; recorded at least every two seconds."""
        self._sources, self._places = sources, CopyIdentities(sources, self._note)
        worker = self._worker
        with contextlib.ExitStack() as end:
            if worker:
                end.callback(worker.release)
            recorder = end.enter_context(Recorder(worker.record, worker.renew) if worker else Recorder(self._record))
            is_over = False
            while not is_over:
                found = 0
                for item, (result, is_recorded) in self._work_off():
                    found += 1
                    recorder.add(result, is_recorded=is_recorded)
                    self.summary.add(item.image, result)
                    yield item.image, result
                recorder.flush()
                self._count()
                if not (is_over := self._is_over(found)):
                    self._queue = self._new_queue()

    def _record(self, results: Sequence[Result], _recorded: Sequence[Result]) -> None:
        self._ledger.record(results)

    def _is_over(self, found: int) -> bool:
        """Whether this was the last pass. One pass is all there is, except in a run: until nothing is due any more."""
        if self._stop():
            while not self._queue.is_counted and next(self._todo, None):
                pass
            self.summary.left = self._queue.total - found
            return True
        if self._worker is None:
            return True
        if not self._worker.asked:
            self.summary.run = self._worker.finish()
            return True
        if not found:
            time.sleep(ELSEWHERE_SECONDS)
        return False

    def _new_queue(self) -> WorkQueue:
        return WorkQueue(self._selection, self._schedule, self._options.sample, self._seed)

    def _stream(self) -> Iterator[WorkItem]:
        """What is due, in order; the first pass says what is no image and what nobody can download."""
        is_first, self._is_first = self._is_first, False
        selection, schedule = self._selection, self._schedule
        if skip_fresh.applies(selection, schedule):
            images = skip_fresh.images(self._catalogue, self._ledger, selection, schedule, self._queue.skip)
        else:
            complain = self._absent if is_first else _ignore
            images = self._ledger.with_lasts(selection.images(self._catalogue, complain))

        def bare(image: Image) -> None:
            if self.summary.bare(image, is_first=is_first):
                self._note(f"image {image.id} has no location at all: nobody can download it")

        return self._queue.stream(images, self._catalogue, self._ledger.strict, bare)

    def _absent(self, text: str) -> None:
        self._note(text)
        self.summary.absent += 1

    def _work_off(self) -> Iterator[tuple[WorkItem, Outcome]]:
        workers = self._options.workers
        bounds = Bounds(workers, min(workers, self._options.workers_per_backend))
        self._todo = todo = self._stream()
        if self._worker is None:
            return run_all(todo, self._verify, _place, bounds, stop=self._stop)
        self._worker.begin_pass()
        return run_all(todo, self._verify, _place, bounds, claim=self._worker.claim, stop=self._stop)

    def _verify(self, item: WorkItem) -> Outcome:
        if self._by_items:
            self._by_items(1)
        return self._retry.verify(item)

    def _probe(self, item: WorkItem) -> Result:
        return probe(
            self._sources,
            item.image,
            item.location,
            self._options.evidence,
            reference=self._reference(item) if self._options.evidence is Evidence.SAMPLE else None,
            throttle=self._by_bytes,
        )

    def _reference(self, item: WorkItem) -> Location | None:
        return reference(item.image, item.location, _read(item), self._places.identity)

    def _stop(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _count(self) -> None:
        """What was left out counts once, by the first pass."""
        self.summary.note(self._queue.total, self._queue.skipped, self._queue.unsampled)


def _place(item: WorkItem) -> str:
    return backend(item.location)


def _read(item: WorkItem) -> Callable[[Location], Result | None]:
    """The last full verification of another location of the image."""

    def read(location: Location) -> Result | None:
        last = item.lasts.get((location.image_id, place_key(location)))
        if last is None or last.full_verdict is None:
            return None
        return Result(location, last.full_verdict, Evidence.FULL, checked_at=last.full_checked_at)

    return read


def _ignore(_text: str) -> None:
    """It was said before."""
