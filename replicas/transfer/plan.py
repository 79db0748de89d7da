"""What it takes to fetch one image on one host: made for each request, so that a follower can go on alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..cache.partial_file import PartialFile
from ..model import Digest, Image, Location
from ..stores.body import Body


class ImageSources(Protocol):
    """Where the bytes of one image are."""

    def to_fill(self) -> Sequence[Location]:
        """Best first; asked when a fill starts: others may follow it from then on."""

    def to_read(self) -> Sequence[Location]:
        """The same for a reader that goes on alone, whom nobody can follow."""

    def open(self, location: Location, offset: int, stop: int | None = None, /) -> Body:
        """As `sources.Sources.open`."""


class FillHooks(Protocol):
    """What a host does as a fill of its own goes on, in this order. After `reserve` only `ended` comes for certain."""

    def reserve(self, partial_file: PartialFile, size: int) -> None:
        """There is room for so many bytes. Raises NoRoom, CacheError: there is no fill then, and nothing else comes."""

    def renew(self, length: int) -> None:
        """The fill goes on, `length` bytes so far; every few seconds."""

    def committed(self) -> None:
        """The complete file is on disk."""

    def condemned(self, used: Sequence[Location]) -> None:
        """These sources gave wrong bytes; none: a part of them was taken over."""

    def ended(self) -> None:
        """The fill is over, well or not."""


@dataclass(frozen=True)
class Plan:
    """How one image is fetched: from where, for whom, and how long it may take."""

    image: Image
    size: int  # bytes of the image, more than none
    digest: Digest
    sources: ImageSources
    hooks: FillHooks
    stall_seconds: float = 30.0
    max_seconds: float = 6 * 3600.0  # for the whole fill
