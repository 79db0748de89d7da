"""One download shared by many readers, the writer's side: sources -> digest -> partial file -> commit -> registration.

The last block is written only after the digest agreed, so a file that has its full length is right. The readers'
side is `follow`: they need to know nothing but the length. A client's fill that no reader follows any more ends, and
its file is left to the background (`queue/`), which goes on at that byte; the next client takes it up as its own.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from ..cache import Cache
from ..cache.partial_file import PartialFile, read
from ..crash_points import crash_points
from ..errors import CacheError, Corrupt, SourceError
from .failover_stream import FailoverStream, continued, guarded
from .plan import Plan

log = logging.getLogger(__name__)

_RENEW = 10.0  # seconds between two words of a fill to the ledger
_ALONE = 5.0  # seconds without a reader after which a client's fill ends: one that begins anew finds it running


class Abandoned(CacheError):
    """Nobody waits for a client's fill any more; its file is there for the background to go on with."""


class Background(Protocol):
    """A fill that nobody waits for yet; what it leaves when it breaks is kept for the next try."""

    def written(self, length: int, is_wanted: Callable[[], bool]) -> None:
        """`length` bytes more are on disk. May sleep, to keep a rate, and raise CacheError to end the fill.

        Neither is proper while somebody waits for it, which may begin during the sleep.
        """

    def finishing(self, is_wanted: Callable[[], bool]) -> None:
        """All bytes are there, and right. Raises CacheError when the file is not to be kept after all.

        That is not proper while somebody waits for it.
        """

    def ended(self, failure: Exception | None) -> None:
        """The fill is over and the file where it will be; the reason when it is not complete."""


@crash_points
def start(cache: Cache, plan: Plan, background: Background | None = None) -> threading.Thread | None:
    """The filler started here; None: another has the lock, or the file is complete.

    Raises CacheError (its child NoRoom when the image does not fit); what an earlier filler left stays then.
    """
    partial_file = cache.partials.begin(plan.image)
    if partial_file is None:
        return None
    fill = Fill(cache, plan, partial_file, background)
    try:
        plan.hooks.reserve(partial_file, plan.size)
    except BaseException:
        fill.let_go(keep=True)
        raise
    filler = threading.Thread(target=fill.run, name="replica-fill", daemon=True)
    try:
        filler.start()
    except RuntimeError as error:  # no crash test: no more threads
        fill.let_go(keep=True)
        plan.hooks.ended()
        raise CacheError(f"image {plan.image.id}: not filled: {error}") from error
    return filler


class Fill:
    """The one writer of a partial file, which is its own from here on."""

    def __init__(
        self, cache: Cache, plan: Plan, partial_file: PartialFile, background: Background | None = None
    ) -> None:
        self._cache = cache
        self._plan = plan
        self._partial_file = partial_file
        self._background = background
        self._renewed = time.monotonic() - 2 * _RENEW

    @crash_points
    def run(self) -> None:
        """The image is complete, or its partial file is gone (go on alone) or in `invalid/` (break off)."""
        image, began = self._plan.image, time.monotonic()
        failure: Exception | None = None
        try:
            kept = self._write()
            if self._background is not None:
                self._background.finishing(lambda: self._partial_file.is_wanted)
            self._cache.partials.commit(self._partial_file, image)
        except Abandoned as error:
            failure = error
            log.info("image %s: %s", image.id, error)
        except Corrupt as error:
            failure = error
            log.error("image %s: fill refused: %s", image.id, error)
        except (SourceError, CacheError) as error:
            failure = error
            log.warning("image %s: fill given up: %s", image.id, error)
        except Exception as error:  # no crash test: outermost edge of a thread
            failure = error
            log.exception("image %s: the fill failed", image.id)
        else:
            took = time.monotonic() - began
            log.info("image %s: filled, %d bytes (%d taken over) in %.1f s", image.id, self._plan.size, kept, took)
            self._report(self._plan.hooks.committed)
        finally:
            self.let_go(keep=self._background is not None or isinstance(failure, Abandoned))
            self._report(self._plan.hooks.ended)
            if self._background is not None:
                self._report(partial(self._background.ended, failure))

    @crash_points
    def let_go(self, *, keep: bool) -> None:
        """What is not complete by now is removed; or, to `keep` what is written, left unlocked for the next `start`.

        Of a file committed or condemned only the descriptor is left.
        """
        if keep:
            self._partial_file.give_up()
        else:
            self._partial_file.discard()

    @crash_points
    def _write(self) -> int:
        """All bytes are in the file, and right; bytes taken over from an earlier filler. Condemns what is wrong."""
        plan, kept = self._plan, self._partial_file.length
        sources = plan.sources.to_fill() if kept < plan.size else ()
        stream = FailoverStream(plan.image.id, plan.size, sources, plan.sources.open, kept)
        chunks = guarded(iter(stream), plan.digest, plan.size)
        if kept:
            reread = partial(read, self._partial_file.fd)
            chunks = continued(iter(stream), plan.digest, plan.size, kept, reread, self._waiting)
        try:
            self._append(chunks, kept)
        except Corrupt:
            self._cache.partials.condemn(self._partial_file, plan.image.id)
            self._report(lambda: plan.hooks.condemned(() if kept else stream.used))
            raise
        return kept

    @crash_points
    def _append(self, chunks: Iterator[bytes], offset: int) -> None:
        began = wanted = time.monotonic()
        for chunk in chunks:
            try:
                self._partial_file.append(chunk, offset)
            except OSError as error:
                raise CacheError(f"{self._partial_file.path}: {error.strerror}") from error
            offset += len(chunk)
            is_attended = self._is_attended(len(chunk))
            now = time.monotonic()
            wanted = now if is_attended else wanted
            if now - wanted > _ALONE:
                self._abandon(offset)
            if now - began > self._plan.max_seconds:
                raise CacheError(f"{offset} bytes in {now - began:.0f} s: longer than max_fill_seconds")
            if offset < self._plan.size:  # else the row is what other hosts hear of
                self._renew(offset)

    @crash_points
    def _is_attended(self, length: int) -> bool:
        """Whether the fill is to go on after `length` bytes more: the background has its own say, by raising."""
        if self._background is not None:
            self._background.written(length, lambda: self._partial_file.is_wanted)
            return True
        return self._partial_file.is_wanted

    @crash_points
    def _abandon(self, length: int) -> None:
        """The image is asked of the background, and Abandoned raised. Killed in between: the same, as after a kill."""
        self._cache.enqueue(self._plan.image.id)
        raise Abandoned(
            f"no client waits for it any more at byte {length} of {self._plan.size}: left to the background"
        )

    def _waiting(self) -> None:
        """Only the digest is still missing: followers, and other hosts, see that the filler lives."""
        self._partial_file.stir()
        self._renew(self._partial_file.length)

    def _renew(self, length: int) -> None:
        """The first time with the first bytes."""
        if time.monotonic() - self._renewed > _RENEW:
            self._renewed = time.monotonic()
            self._report(partial(self._plan.hooks.renew, length))

    @staticmethod
    def _report(action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:  # outermost edge of a thread; the file is what counts, the janitor does the rest
            log.exception("after a fill")
