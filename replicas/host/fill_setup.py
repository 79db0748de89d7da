"""What it takes to fetch one image here: its sources, room for it, and what follows when its fill has ended."""

import logging
from collections.abc import Sequence
from functools import partial

from .. import location
from ..cache.eviction import NoRoom, Space
from ..cache.partial_file import Growing
from ..cache.statistics import Activity
from ..crash_points import crash_points
from ..errors import Refused
from ..model import Image, Location, Verdict
from ..settings import Settings
from ..transfer.fill import Plan
from ..transfer.source_selection import Route
from .full_reads import FullReads
from .registration import Registration

log = logging.getLogger(__name__)


class FillSetup:
    """One host's; thread-safe."""

    def __init__(
        self,
        *,
        settings: Settings,
        source_selection: Route,
        eviction: Space,
        statistics: Activity,
        full_reads: FullReads,
        registration: Registration,
    ) -> None:
        self._settings, self._source_selection, self._eviction = settings, source_selection, eviction
        self._statistics, self._full_reads, self._registration = statistics, full_reads, registration

    def plan(self, image: Image, *, background: bool = False) -> Plan:
        """How this host fetches an image. Raises Refused when there is nothing to hold a copy against.

        With `background` other hosts, too, take their time.
        """
        if image.digest is None or not image.size:
            raise Refused(f"image {image.id} has no digest or no size: a copy of it could not be verified")
        return Plan(
            image=image,
            size=image.size,
            digest=image.digest,
            sources=partial(self._source_selection.order, image, True),
            detour=partial(self._source_selection.order, image, False),
            opener=partial(self._source_selection.open, background),
            reserve=self._reserve,
            committed=self._full_reads.verified,
            condemned=self._condemned,
            renew=partial(self._source_selection.renew, image),
            ended=partial(self._ended, image),
            stall_seconds=self._settings.stall_timeout_seconds,
            max_seconds=self._settings.max_fill_seconds,
        )

    @crash_points
    def _reserve(self, growing: Growing, size: int) -> None:
        most = self._settings.max_image_bytes
        if most and size > most:
            raise NoRoom(f"{size} bytes are more than max_image_bytes = {most}")
        self._eviction.reserve(growing, size, self._registration.withdraw_soon)
        self._statistics.began()

    def _ended(self, image: Image) -> None:
        self._statistics.ended()
        self._source_selection.release(image)

    @crash_points
    def _condemned(self, image: Image, used: Sequence[Location]) -> None:
        """One source alone gave wrong bytes: that is a full look at it, worth a record."""
        names = ", ".join(location.redact(one.url) for one in used) or "a growing file taken over"
        log.error("image %s: wrong bytes came from %s", image.id, names)
        self._source_selection.avoid(used)
        if len(used) == 1 and used[0] in image.locations:
            self._full_reads.record(image, used[0], Verdict.CORRUPT)
