"""One download shared by many readers: a filler thread writes the growing file, every client follows that file.

    start or join -> Follower       the client's side: bytes as far as the file has grown, in any process
    Fill                            the writer's side: sources -> digest -> file -> commit -> registration

The last block is written only after the digest agreed, so a file that has its full length is right, and a follower
needs to know nothing but the length. A follower that sees no growth asks for the lock: if it is free the filler is
dead, and the follower's process takes over from what is on disk.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from . import checksum
from .cache import Cache
from .errors import CacheError, Corrupt, SourceError, Unreachable
from .growing import Growing, try_lock
from .model import Digest, Image, Location
from .relay import Opener, Relay, guarded

log = logging.getLogger(__name__)

_POLL = (0.002, 0.01)  # seconds between looks at the length: at first, and once nothing came for a while
_PROBE = 0.2  # seconds without growth after which the lock is tried
_RENEW = 10.0  # seconds between two words of a fill to the ledger


@dataclass(frozen=True)
class Plan:
    """What it takes to fetch one image; made for each request, so a follower can go on alone."""

    image: Image
    size: int  # bytes of the image, more than none
    digest: Digest
    sources: Callable[[], Sequence[Location]]  # asked when a fill starts, best first
    opener: Opener
    reserve: Callable[[Growing, int], None]  # room for so many bytes; raises NoRoom, CacheError
    committed: Callable[[Image], None]  # the complete file is on disk
    condemned: Callable[[Image, Sequence[Location]], None]  # these sources gave wrong bytes
    renew: Callable[[], object] = lambda: None  # the fill goes on; called every few seconds
    ended: Callable[[], None] = lambda: None  # the fill is over, well or not
    stall_seconds: float = 30.0


def start_or_join(cache: Cache, plan: Plan) -> "Follower":
    """A reader of the image's growing file, whoever fills it; a filler starts when there is none.

    Raises CacheError (its child NoRoom when the image does not fit).
    """
    for _ in range(100):
        started = start(cache, plan)
        fd = cache.follow(plan.image.id)
        copy = cache.open(plan.image.id)  # looked for last: a fill that ended meanwhile has left it
        if copy is not None and copy.entry.size == plan.size:
            if fd is not None:
                os.close(fd)
            fd = copy.detach()
        if fd is not None:
            return Follower(cache, plan, fd, collapsed=not started)
        time.sleep(0.01)
    raise CacheError(f"image {plan.image.id}: its growing file comes and goes; passing through")


def start(cache: Cache, plan: Plan) -> threading.Thread | None:
    """The filler started here; None: another has the lock, or the file is complete."""
    growing = cache.begin(plan.image.id, plan.size)
    if growing is None:
        return None
    try:
        plan.reserve(growing, plan.size)
        filler = threading.Thread(target=Fill(cache, plan, growing).run, name="replica-fill", daemon=True)
        filler.start()
    except BaseException:
        growing.discard()
        raise
    return filler


class Fill:
    """The writer's side."""

    def __init__(self, cache: Cache, plan: Plan, growing: Growing) -> None:
        self._cache = cache
        self._plan = plan
        self._growing = growing

    def run(self) -> None:
        """The image is complete, or its growing file is gone (go on alone) or in `invalid/` (break off)."""
        image, began = self._plan.image, time.monotonic()
        try:
            kept = self._write()
            self._cache.commit(self._growing, image.id)
        except Corrupt as error:
            log.error("image %s: fill refused: %s", image.id, error)
        except (SourceError, CacheError) as error:
            log.warning("image %s: fill given up: %s", image.id, error)
        except Exception:  # outermost edge of a thread
            log.exception("image %s: fill broke", image.id)
        else:
            took = time.monotonic() - began
            log.info("image %s: filled, %d bytes (%d taken over) in %.1f s", image.id, self._plan.size, kept, took)
            self._report(lambda: self._plan.committed(image))
        finally:
            self._growing.discard()  # of a file committed or condemned only the descriptor is left
            self._report(self._plan.ended)

    def _write(self) -> int:
        """All bytes are in the file, and right; bytes taken over from an earlier filler. Condemns what is wrong."""
        plan, kept = self._plan, self._growing.length
        relay = Relay(plan.image.id, plan.size, plan.sources() if kept < plan.size else (), plan.opener, kept)
        prefix = read(self._growing.fd, 0, kept)
        try:
            self._append(guarded(iter(relay), plan.digest, plan.size, prefix), kept)
        except Corrupt:
            self._cache.condemn(self._growing, plan.image.id)
            self._report(lambda: plan.condemned(plan.image, () if kept else relay.used))
            raise
        return kept

    def _append(self, chunks: Iterator[bytes], offset: int) -> None:
        renewed = time.monotonic()
        for chunk in chunks:
            try:
                self._growing.append(chunk, offset)
            except OSError as error:
                raise CacheError(f"{self._growing.path}: {error.strerror}") from error
            offset += len(chunk)
            if time.monotonic() - renewed > _RENEW:
                renewed = time.monotonic()
                self._report(self._plan.renew)

    @staticmethod
    def _report(action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:  # outermost edge of a thread; the file is what counts, the janitor does the rest
            log.exception("after a fill")


class Follower:
    """One client's view of a growing or complete file. Close it; closing changes nothing for anybody else.

    With `takes_over` the plan is the client's own and may be used to go on when the file fails; without it (peers are
    served so) the transfer just breaks.
    """

    def __init__(self, cache: Cache, plan: Plan, fd: int, *, collapsed: bool = False, takes_over: bool = True) -> None:
        self.collapsed = collapsed
        self._cache = cache
        self._plan = plan
        self._fd = fd
        self._takes_over = takes_over

    def wait(self) -> bool:
        """Whether bytes are there; False: the fill ended without any, so nothing is lost by asking elsewhere."""
        try:
            self._await(0)
        except (SourceError, CacheError):
            return False
        return True

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes [start, stop) in chunks, as soon as they are there.

        Raises Corrupt when the fill turned out wrong, Stalled or Unreachable when nothing more can be had.
        """
        position = start
        while position < stop:
            try:
                length = self._await(position)
                for chunk in read(self._fd, position, min(length, stop)):
                    yield chunk
                    position += len(chunk)
            except CacheError as error:
                log.warning("image %s: follower goes on alone at byte %d: %s", self._plan.image.id, position, error)
                yield from self._alone(position, stop)
                return

    def close(self) -> None:
        """Let go; may be called more than once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:  # a response that WebOb drops unread (416) closes nothing
        self.close()

    def _await(self, position: int) -> int:
        """The length once it exceeds `position`.

        Raises Corrupt (the fill was wrong), CacheError (there is no fill any more, or it stands still).
        """
        began = probed = time.monotonic()
        seen = -1
        while True:
            facts = os.fstat(self._fd)
            if facts.st_size > position:
                return facts.st_size
            now = time.monotonic()
            if facts.st_size != seen:
                began = probed = now
                seen = facts.st_size
            if facts.st_nlink == 0 or now - probed > _PROBE:
                probed = now
                self._probe(now - began)
            if now - began > 2 * self._plan.stall_seconds:
                raise CacheError(f"the fill made no progress for {now - began:.0f} s")
            time.sleep(_POLL[now - began > _PROBE])

    def _probe(self, idle: float) -> None:
        """The filler lives, or is replaced by us. Raises Corrupt or CacheError when there is nothing to follow.

        A peer, which may not take over, leaves a dead filler only once somebody here has had the time to.
        """
        fate = self._cache.fate(self._plan.image.id, self._fd)
        if fate == "invalid":
            raise Corrupt("the fill's digest was wrong")
        if fate != "growing":
            raise CacheError("the fill was given up")
        if not self._takes_over:
            if idle > 3 * _PROBE and try_lock(self._fd, fcntl.LOCK_SH):
                raise CacheError("its filler died")
        elif start(self._cache, self._plan):
            log.warning(
                "image %s: its filler died; taken over at byte %d", self._plan.image.id, os.fstat(self._fd).st_size
            )

    def _alone(self, position: int, stop: int) -> Iterator[bytes]:
        """The rest from the sources, for this client only, guarded all the same."""
        if not self._takes_over:
            raise Unreachable("the file that was followed is no more")
        have = min(os.fstat(self._fd).st_size, position)
        try:
            yield from window(self._rest(have), have, position, stop)
        except CacheError:  # what is there cannot be read either; raised before anything is yielded
            yield from window(self._rest(0), 0, position, stop)

    def _rest(self, offset: int) -> Iterator[bytes]:
        """All bytes from `offset` on; those before are read here and hashed."""
        plan = self._plan
        relay = Relay(plan.image.id, plan.size, plan.sources(), plan.opener, offset)
        return guarded(iter(relay), plan.digest, plan.size, read(self._fd, 0, offset))


def read(fd: int, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of an open file in chunks of at most `checksum.PIECE`. Raises CacheError."""
    while start < stop:
        try:
            chunk = os.pread(fd, min(checksum.PIECE, stop - start), start)
        except OSError as error:
            raise CacheError(f"reading a cached file: {error.strerror}") from error
        if not chunk:
            raise CacheError(f"a cached file ends at byte {start}, expected {stop}")
        yield chunk
        start += len(chunk)


def window(chunks: Iterator[bytes], offset: int, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of a stream whose first byte is number `offset`."""
    for chunk in chunks:
        part = chunk[max(0, start - offset) : stop - offset]
        offset += len(chunk)
        if part:
            yield part
        if offset >= stop:
            return
