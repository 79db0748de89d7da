"""Complete files that nobody of us has read yet: of the stock cache, of version 0.1, or written to since.

Each is read on its way to the first who asks for all of it, and known from then on. A wrong one ends before its last
block, and goes.
"""

import logging
import threading
from collections.abc import Iterator

from glance_replicas.cache import OpenFile
from glance_replicas.cache.partial_file import read
from glance_replicas.errors import CacheError, Corrupt, ReplicaError
from glance_replicas.model import Image
from glance_replicas.removal import withheld
from glance_replicas.transfer.failover_stream import FailoverStream, guarded
from glance_replicas.transfer.plan import Plan

from .serving import Serving

log = logging.getLogger(__name__)


def whole(serving: Serving, plan: Plan, copy: OpenFile, *, goes_on: bool = False) -> Iterator[bytes]:
    """All bytes of the file. Raises Corrupt in place of a wrong end, CacheError where it cannot be read.

    With `goes_on` the rest comes from the sources then: what they gave says nothing of the file.
    """
    reading = _Reading(serving, plan, copy, goes_on)
    try:
        yield from guarded(iter(reading), plan.digest, plan.size)
    except Corrupt:
        if not reading.has_failed:
            _set_aside(serving, plan, copy)
        raise
    if reading.has_failed or not serving.cache.complete.exists(plan.image.id):
        return
    if serving.cache.complete.mark_verified(plan.image, copy):
        threading.Thread(target=_adopted, args=(serving, plan.image), name="replica-report", daemon=True).start()


def _adopted(serving: Serving, image: Image) -> None:
    """Beside the client, who has all bytes: the databases may take their time."""
    try:
        serving.full_reads.verified(image)
    except ReplicaError as error:
        log.warning("image %s: the janitor will adopt its file: %s", image.id, error)
    except Exception:  # outermost edge of a thread
        log.exception("image %s: after its adoption", image.id)


class _Reading:
    """The bytes of a file; from where it cannot be read it is withheld, and `has_failed`."""

    def __init__(self, serving: Serving, plan: Plan, copy: OpenFile, goes_on: bool) -> None:
        self._serving, self._plan, self._copy, self._goes_on = serving, plan, copy, goes_on
        self.has_failed = False

    def __iter__(self) -> Iterator[bytes]:
        position, plan = 0, self._plan
        try:
            for chunk in read(self._copy.fd, 0, plan.size):
                yield chunk
                position += len(chunk)
        except CacheError as error:
            self.has_failed = True
            withheld.withhold(self._serving.cache, plan.image.id, self._copy.fd, error)
            if not self._goes_on:
                raise
            log.warning("image %s: read from the sources at byte %d", plan.image.id, position)
            yield from FailoverStream(plan.image.id, plan.size, plan.sources.to_read(), plan.sources.open, position)


def _set_aside(serving: Serving, plan: Plan, copy: OpenFile) -> None:
    try:
        serving.own_copies.set_aside(plan.image, copy)
    except ReplicaError as error:
        log.warning("image %s: the wrong file stays until its row can be withdrawn: %s", plan.image.id, error)
