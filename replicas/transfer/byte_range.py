"""One range of an image that is not complete here: from the partial file where its bytes are there, else the sources.

Nothing is begun and nothing is kept. The bytes are held against no digest, as with Glance: the digest is the whole's.
So it is only where the whole is asked for and no room is left to keep it.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator

from ..cache import Cache
from ..errors import Unsupported
from ..location import redact
from ..model import Location
from ..stores.body import Body
from .failover_stream import FailoverStream, guarded
from .follow import Follower, partial_or_complete
from .plan import Plan

log = logging.getLogger(__name__)

MOST_SKIPPED = 64 << 20  # bytes read and dropped before a range; where it would be more the next source is asked


class RangeFollower(Follower):
    """Follows a fill for one range: never fills itself, and goes on from the sources at its own offset."""

    def _alone(self, position: int, stop: int) -> Iterator[bytes]:
        return from_sources(self._plan, position, stop)


def follow(cache: Cache, plan: Plan, start: int, has_left: Callable[[], bool] | None = None) -> Follower | None:
    """A reader of the image's file that has byte `start` by now, partial or just complete; None: it has not.

    Raises CacheError.
    """
    fd = partial_or_complete(cache, plan.image)
    if fd is None:
        return None
    if os.fstat(fd).st_size <= start:
        os.close(fd)
        return None
    return RangeFollower(cache, plan, fd, collapsed=True, takes_over=False, has_left=has_left)


def from_sources(plan: Plan, start: int, stop: int) -> Generator[bytes]:
    """Bytes [start, stop) in chunks, from the first source that can begin near there; goes on from the next ones.

    Raises Unreachable when there is none.
    """

    def near(location: Location, offset: int, end: int | None = None) -> Body:
        body = plan.sources.open(location, offset, end)
        if body.skips > MOST_SKIPPED:
            body.close()
            raise Unsupported(f"{redact(location.url)}: cannot begin at byte {offset}, only {body.skips} bytes before")
        return body

    yield from FailoverStream(plan.image.id, plan.size, plan.sources.to_read(), near, start, stop=stop)


def whole_from_sources(plan: Plan) -> Generator[bytes]:
    """All bytes of the image, except that the last block comes only once the digest agrees.

    Raises Unreachable when no source has them, Corrupt when they are wrong.
    """
    yield from guarded(from_sources(plan, 0, plan.size), plan.digest, plan.size)
