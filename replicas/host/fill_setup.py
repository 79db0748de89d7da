"""What it takes to fetch one image here: its sources, room for it, and what follows when its fill has ended."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ..cache.eviction import Eviction, NoRoom
from ..cache.partial_file import PartialFile
from ..cache.statistics import Statistics
from ..crash_points import crash_points
from ..errors import Refused
from ..location import redact
from ..model import Image, Location
from ..settings import Settings
from ..stores.body import Body
from ..transfer.plan import Plan
from ..transfer.source_selection import SourceSelection
from ..verdict import Verdict
from .full_reads import FullReads

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FillSetup:
    """What the fills of one host work with; thread-safe."""

    settings: Settings
    source_selection: SourceSelection
    eviction: Eviction
    statistics: Statistics
    full_reads: FullReads

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
            sources=_Sources(self.source_selection, image, background),
            hooks=_Hooks(self, image),
            stall_seconds=self.settings.stall_timeout_seconds,
            max_seconds=self.settings.max_fill_seconds,
        )


@dataclass(frozen=True)
class _Sources:
    """Of one image, as this host reads it (`plan.ImageSources`)."""

    selection: SourceSelection
    image: Image
    background: bool

    def to_fill(self) -> Sequence[Location]:
        return self.selection.order(self.image, fills=True)

    def to_read(self) -> Sequence[Location]:
        return self.selection.order(self.image, fills=False)

    def open(self, location: Location, offset: int, stop: int | None = None, /) -> Body:
        return self.selection.open(self.background, location, offset, stop)


@dataclass(frozen=True)
class _Hooks:
    """Of one image's fill on this host (`plan.FillHooks`)."""

    host: FillSetup
    image: Image

    @crash_points
    def reserve(self, partial_file: PartialFile, size: int) -> None:
        most = self.host.settings.max_image_bytes
        if most and size > most:
            raise NoRoom(f"{size} bytes are more than max_image_bytes = {most}")
        self.host.eviction.reserve(partial_file, size)
        self.host.statistics.began()

    def renew(self, length: int) -> None:
        self.host.source_selection.renew(self.image, length)

    def committed(self) -> None:
        self.host.full_reads.verified(self.image)

    @crash_points
    def condemned(self, used: Sequence[Location]) -> None:
        """One source alone gave wrong bytes: that is a full verification of it, worth a record."""
        names = ", ".join(redact(location.url) for location in used) or "a partial file taken over"
        log.error("image %s: wrong bytes came from %s", self.image.id, names)
        self.host.source_selection.avoid(used)
        if len(used) == 1 and used[0] in self.image.locations:
            self.host.full_reads.record(self.image, used[0], Verdict.CORRUPT)

    def ended(self) -> None:
        self.host.statistics.ended()
        self.host.source_selection.release(self.image)
