"""The readers of a download in progress: each follows the partial file, in whatever process that grows.

The last block is there only when the digest agreed, so a file that has its full length is right, and a follower
needs to know nothing but the length. A follower that sees no growth asks for the lock: if it is free the filler is
dead, and the follower's process takes over from what is on disk.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator

from .. import checksum
from ..cache import Cache
from ..cache.partial_file import read, try_lock, wait_for
from ..errors import CacheError, ClientLeft, Corrupt, SourceError, Unreachable, Unreadable
from ..model import Image
from ..removal.withheld import withhold
from .failover_stream import FailoverStream, guarded
from .fill import start
from .plan import Plan

log = logging.getLogger(__name__)

_POLL = (0.002, 0.01)  # seconds between looks at the length: at first, and once nothing came for a while
_PROBE = 0.2  # seconds without growth after which the lock is tried


def start_or_join(cache: Cache, plan: Plan, has_left: Callable[[], bool] | None = None) -> "Follower":
    """A reader of the image's partial file, whoever fills it; a filler starts when there is none.

    Raises CacheError (its child NoRoom when the image does not fit).
    """
    for _ in range(100):
        started = start(cache, plan)
        fd = partial_or_complete(cache, plan.image)
        if fd is not None:
            return Follower(cache, plan, fd, collapsed=not started, has_left=has_left)
        time.sleep(0.01)
    raise CacheError(f"image {plan.image.id}: its partial file comes and goes; passing through")


def partial_or_complete(cache: Cache, image: Image) -> int | None:
    """A descriptor on the image's partial file, or on the complete one that a fill has left meanwhile; None: neither.

    Whoever saw no complete file asks this: a fill may have ended since. Raises CacheError.
    """
    fd = cache.partials.follow(image)
    try:
        copy = cache.complete.open(image.id)  # looked for last
    except CacheError:
        if fd is not None:
            os.close(fd)
        raise
    if copy is None or not copy.entry.is_file_of(image):
        return fd
    if fd is not None:
        os.close(fd)
    return copy.detach()


class Follower:
    """One client's view of a partial or complete file. Close it; closing changes nothing for anybody else.

    With `takes_over` the plan is the client's own and may be used to go on when the file fails; without it (peers are
    served so) the transfer just breaks. With `urgent` a fill in the background goes on as fast as it can. Waiting it
    looks whether its client `has_left`, and raises ClientLeft then.
    """

    def __init__(
        self,
        cache: Cache,
        plan: Plan,
        fd: int,
        *,
        collapsed: bool = False,
        takes_over: bool = True,
        urgent: bool = True,
        has_left: Callable[[], bool] | None = None,
    ) -> None:
        self.collapsed = collapsed
        self._has_left = has_left or _stays
        self._cache = cache
        self._plan = plan
        self._fd = fd
        self._takes_over = takes_over
        if urgent:
            wait_for(fd)

    def wait(self, position: int = 0, seconds: float | None = None, has_left: Callable[[], bool] | None = None) -> bool:
        """Whether the byte at `position` is there, at least after so many seconds.

        False: the fill ended before, or the time is over; nothing is lost by asking elsewhere. Meanwhile this
        `has_left` is asked, where there is one.
        """
        try:
            self._await(position, seconds, has_left)
        except (SourceError, CacheError):
            return False
        return True

    def is_growing(self) -> bool:
        """Whether more may come."""
        return self._cache.partials.fate(self._plan.image.id, self._fd) == "partial"

    def length(self) -> int:
        """Bytes that are there by now."""
        return os.fstat(self._fd).st_size

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes [start, stop) in chunks, as soon as they are there.

        Raises Corrupt when the fill turned out wrong, Stalled or Unreachable when nothing more can be had.
        """
        position = start
        try:
            for begin, end in self.spans(start, stop):
                for chunk in read(self._fd, begin, end):
                    yield chunk
                    position += len(chunk)
        except CacheError as error:
            if isinstance(error, Unreadable):
                withhold(self._cache, self._plan.image.id, self._fd, error)
            log.warning("image %s: follower goes on alone at byte %d: %s", self._plan.image.id, position, error)
            yield from self._alone(position, stop)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Parts of [start, stop) in order, each as soon as the file has its bytes.

        The last block is looked at once more: a file that was found damaged since it was opened does not end well.

        Raises Corrupt when the fill, or the file, turned out wrong, CacheError when the file has no more: `read` goes
        on alone.
        """
        last, size = self._plan.size - checksum.BLOCK, self._plan.size
        while start < stop:
            end = min(self._await(start), stop)
            if end == size and start < last:
                end = last
            elif end == size and self._cache.partials.is_condemned(self._plan.image.id, self._fd):
                raise Corrupt("the file was found damaged while it was sent")
            yield start, end
            start = end

    def wait_for_end(self, seconds: float) -> None:
        """Returns when the file that was read to its end has its place, or is given up; after so long in any case."""
        until = time.monotonic() + seconds
        while self._cache.partials.fate(self._plan.image.id, self._fd) == "partial" and time.monotonic() < until:
            time.sleep(_POLL[0])

    def fileno(self) -> int:
        """The descriptor of the file, its own until `close`."""
        return self._fd

    def close(self) -> None:
        """Let go; may be called more than once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:  # a response that WebOb drops unread (416) closes nothing
        self.close()

    def _await(self, position: int, seconds: float | None = None, has_left: Callable[[], bool] | None = None) -> int:
        """The length once it exceeds `position`.

        Raises Corrupt (the fill was wrong), CacheError (there is none any more, it stands still, the time is over).
        """
        entered = began = probed = time.monotonic()
        seen = (-1, -1)
        while True:
            facts = os.fstat(self._fd)
            if facts.st_size > position:
                return facts.st_size
            now = time.monotonic()
            if (facts.st_size, facts.st_ctime_ns) != seen:
                began = probed = now
                seen = (facts.st_size, facts.st_ctime_ns)
            if facts.st_nlink == 0 or now - probed > _PROBE:
                probed = now
                if (has_left or self._has_left)():
                    raise ClientLeft("the client has left")
                self._probe(position, now - began)
            if seconds is not None and now - entered > seconds:
                raise CacheError(f"byte {position} did not come within {seconds:g} s")
            if now - began > 2 * self._plan.stall_seconds:
                raise CacheError(f"the fill made no progress for {now - began:.0f} s")
            time.sleep(_POLL[now - began > _PROBE])

    def _probe(self, position: int, idle: float) -> None:
        """The filler lives, or is replaced by us. Raises Corrupt or CacheError when there is nothing to follow.

        It may have come to its end since the file was looked at, when this thread had to wait for its turn. A peer,
        which may not take over, leaves a dead filler only once somebody here has had the time to.
        """
        fate = self._cache.partials.fate(self._plan.image.id, self._fd)
        if fate == "invalid":
            raise Corrupt("the fill's digest was wrong")
        if fate != "partial":
            if self.length() <= position:
                raise CacheError("the fill was given up")
        elif not self._takes_over:
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
        stream = FailoverStream(plan.image.id, plan.size, plan.sources.to_read(), plan.sources.open, offset)
        return guarded(iter(stream), plan.digest, plan.size, read(self._fd, 0, offset))


def _stays() -> bool:
    return False


def window(chunks: Iterator[bytes], offset: int, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of a stream whose first byte is number `offset`."""
    for chunk in chunks:
        part = chunk[max(0, start - offset) : stop - offset]
        offset += len(chunk)
        if part:
            yield part
        if offset >= stop:
            return
