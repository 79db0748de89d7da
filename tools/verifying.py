"""The flow of a verification: what is due, looked at by bounded workers, recorded as it goes."""

import argparse
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from glance_replicas.errors import ConfigError
from glance_replicas.ledger.ledger import place_key
from glance_replicas.ledger.runs import Runs
from glance_replicas.model import Evidence, Image, Location, Result
from glance_replicas.throttle import Throttle
from glance_replicas.verify.judge import reference
from glance_replicas.verify.probe import look
from glance_replicas.verify.schedule import Need

from ..caller import who
from ..verify.places import Places
from ..verify.recorder import Recorder
from ..verify.worker_pool import Bounds, backend, work_off
from . import report, sparing
from .asking import Asking
from .command import DAMAGED, OnHost
from .due import Agenda, Due
from .patience import Found, Patience
from .selection import Selection
from .share import Share

if TYPE_CHECKING:
    from .tally import Tally

ELSEWHERE_SECONDS = 1.0  # between two questions whether others are done


class Verifying:
    """One `replica verify`: `planned` lists what is due, `results` looks at it."""

    def __init__(self, command: OnHost, wanted: Selection, parsed: argparse.Namespace, tally: "Tally") -> None:
        self._command, self._wanted, self._parsed, self._tally = command, wanted, parsed, tally
        self._evidence = Evidence(parsed.evidence)
        self._share: Share | None = None
        self._is_first = True
        self._until = time.monotonic() + parsed.max_duration if parsed.max_duration else None
        rates = (parsed.max_bytes_per_second, parsed.max_items_per_second)
        self._by_bytes, self._by_items = (Throttle(one) if one else None for one in rates)
        self._need, self._seed = self._begin()
        asking = Asking(command.settings, command.ledger, parsed.max_bytes_per_second)
        ask = (lambda _due: None) if parsed.remote_reads else asking
        self._patience = Patience(self._look, ask, ask_first=self._evidence is Evidence.FULL)

    def _begin(self) -> tuple[Need, str]:
        parsed, seed = self._parsed, self._parsed.seed or f"{random.random()}"  # noqa: S311
        if parsed.run is None:
            now = self._now()
            since = now - timedelta(seconds=parsed.max_age) if parsed.max_age is not None else None
            return Need(self._evidence, now, since, unverifiable=parsed.allow_unverifiable), seed
        if parsed.max_age is not None or parsed.sample.bytes is not None:
            raise ConfigError("a run looks at everything it selects once: leave out --max-age and a --sample by size")
        options = {"evidence": parsed.evidence, "sample": parsed.sample.text, "seed": parsed.seed}
        options |= self._wanted.as_dict()
        runs = Runs(self._command.ledger.database)
        run = runs.start(parsed.run, {key: one for key, one in options.items() if one is not None}, who=who())
        self._command.note(f"run {run.name}: {'goes on' if run.resumed else 'begun'}, {run.started_at:%F %T} UTC")
        need = Need(self._evidence, self._now(), run.started_at, run=True)
        self._share = Share(runs, run, need)
        return need, parsed.seed or f"{run.started_at}"

    def _now(self) -> datetime:
        """The ledger's time, or ours without one: then nothing is known of any place."""
        return self._command.now() if self._parsed.run is None else self._command.ledger.now()

    def planned(self) -> Iterator[Due]:
        """What is due, in order."""
        agenda = self._agenda()
        yield from self._stream(agenda)
        self._note(agenda)

    def results(self) -> Iterator[tuple[Image, Result]]:
        """What was found, as it is found; recorded at least every two seconds."""
        progress = report.Progress(self._command.app.stderr, 0, quiet=self._command.app.options.verbose_level == 0)
        share, self._sources = self._share, self._command.sources
        self._places = Places(self._sources, self._command.note)
        with contextlib.ExitStack() as end:
            if share:
                end.callback(share.leave)
            recorder = end.enter_context(Recorder(share.save, share.beat) if share else Recorder(self._record))
            end.callback(progress.end)
            while True:
                agenda, found = self._agenda(), 0
                for due, (result, is_kept) in self._work_off(agenda):
                    found += 1
                    recorder.add(result, is_kept=is_kept)
                    self._tally.add(due.image, result)
                    progress.total = agenda.total
                    progress.step(result.size, due.image.id)
                    yield due.image, result
                recorder.flush()
                self._note(agenda)
                if self._is_over(agenda, found):
                    return

    def _record(self, results: Sequence[Result], _kept: Sequence[Result]) -> None:
        self._command.record(results)

    def _is_over(self, agenda: Agenda, found: int) -> bool:
        """Whether this was the last pass. One pass is all there is, except in a run: until nothing is due any more."""
        if self._stop():
            while not agenda.is_counted and next(self._todo, None):
                pass
            self._tally.left = agenda.total - found
            return True
        if self._share is None:
            return True
        if not self._share.asked:
            self._tally.run = self._share.finish()
            return True
        if not found:
            time.sleep(ELSEWHERE_SECONDS)
        return False

    def _agenda(self) -> Agenda:
        return Agenda(self._wanted, self._need, self._parsed.sample, self._seed)

    def _stream(self, agenda: Agenda) -> Iterator[Due]:
        command, is_first = self._command, self._is_first
        self._is_first = False
        if sparing.applies(self._wanted, self._need):
            images = sparing.rest(command, self._wanted, self._need, agenda.skip)
        else:
            images = command.with_lasts(self._wanted, quiet=not is_first)

        def bare(image: Image) -> None:
            if image.locations:
                self._tally.only_cached[image.id] = image
            elif is_first and not image.has_no_copy:
                self._tally.empty += 1
            elif is_first:
                command.note(f"image {image.id} has no location at all: nobody can download it")
                command.worsen(DAMAGED)

        return agenda.stream(images, command.catalogue, command.ledger, bare)

    def _work_off(self, agenda: Agenda) -> Iterator[tuple[Due, Found]]:
        bounds = Bounds(self._parsed.workers, min(self._parsed.workers, self._parsed.workers_per_backend))
        self._todo = todo = self._stream(agenda)
        if self._share is None:
            return work_off(todo, self._see, _place, bounds, stop=self._stop)
        self._share.begin_pass()
        return work_off(todo, self._see, _place, bounds, claim=self._share.claim, stop=self._stop)

    def _see(self, due: Due) -> Found:
        if self._by_items:
            self._by_items(1)
        return self._patience.see(due)

    def _look(self, due: Due) -> Result:
        return look(
            self._sources,
            due.image,
            due.location,
            self._evidence,
            reference=self._reference(due) if self._evidence is Evidence.SAMPLE else None,
            throttle=self._by_bytes,
        )

    def _reference(self, due: Due) -> Location | None:
        return reference(due.image, due.location, _read(due), self._places.identity)

    def _stop(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _note(self, agenda: Agenda) -> None:
        """What was left out counts once, by the first pass."""
        self._tally.note(agenda.total, agenda.skipped, agenda.unsampled)


def _place(due: Due) -> str:
    return backend(due.location)


def _read(due: Due) -> Callable[[Location], Result | None]:
    """The last look in full at another location of the image."""

    def read(one: Location) -> Result | None:
        last = due.lasts.get((one.image_id, place_key(one)))
        if last is None or last.full_verdict is None:
            return None
        return Result(one, last.full_verdict, Evidence.FULL, checked_at=last.full_checked_at)

    return read
