"""Complete files that nobody of us has read yet: of the stock cache, of version 0.1, or written to since.

Each is read on its way to the first who asks for all of it, and known from then on. A wrong one ends before its last
block, and goes.
"""

import logging
import threading
from collections.abc import Iterable, Iterator

from glance_replicas.cache import Copy
from glance_replicas.cache.partial_file import read
from glance_replicas.errors import CacheError, Corrupt, ReplicaError
from glance_replicas.fill import Plan
from glance_replicas.keeper import Keeper
from glance_replicas.model import Image
from glance_replicas.relay import Relay, guarded

log = logging.getLogger(__name__)


def whole(keeper: Keeper, plan: Plan, copy: Copy, chunks: Iterable[bytes] | None = None) -> Iterator[bytes]:
    """All bytes of the file (or `chunks`, which are to be the same). Raises Corrupt in place of a wrong end."""
    try:
        yield from guarded(iter(chunks or read(copy.fd, 0, plan.size)), plan.digest, plan.size)
    except Corrupt:
        _put_aside(keeper, plan, copy)
        raise
    if keeper.cache.exists(plan.image.id) and keeper.cache.mark_verified(plan.image, copy):
        threading.Thread(target=_adopted, args=(keeper, plan.image), name="replica-report", daemon=True).start()


def _adopted(keeper: Keeper, image: Image) -> None:
    """Beside the client, who has all bytes: the databases may take their time."""
    try:
        keeper.verified(image)
    except ReplicaError as error:
        log.warning("image %s: its adoption is left to the janitor: %s", image.id, error)
    except Exception:  # outermost edge of a thread
        log.exception("image %s: after its adoption", image.id)


def readable(keeper: Keeper, plan: Plan, copy: Copy) -> Iterator[bytes]:
    """The bytes of the file, and from where it cannot be read those of the sources; it goes then."""
    position = 0
    try:
        for chunk in read(copy.fd, 0, plan.size):
            yield chunk
            position += len(chunk)
    except CacheError as error:
        log.error("image %s: read from the sources at byte %d: %s", plan.image.id, position, error)
        _put_aside(keeper, plan, copy)
        yield from Relay(plan.image.id, plan.size, plan.detour(), plan.opener, position)


def _put_aside(keeper: Keeper, plan: Plan, copy: Copy) -> None:
    try:
        keeper.put_aside(plan.image, copy)
    except ReplicaError as error:
        log.warning("image %s: the wrong file stays until its row can be withdrawn: %s", plan.image.id, error)
