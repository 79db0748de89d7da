"""Which images and locations are meant: ids, and filters by what images and locations are."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..location import kind as kind_of
from ..model import Image, Last, Location

if TYPE_CHECKING:
    from .images import Catalogue

NEVER = "never"  # a `state`: what was not verified yet


@dataclass(frozen=True)
class Selection:
    """What is meant. No ids: all images."""

    ids: tuple[str, ...] = ()
    name: str | None = None
    owner: str | None = None
    host: str | None = None
    kind: str | None = None  # cached, durable, or a scheme
    zone: str | None = None
    store: str | None = None
    tags: tuple[str, ...] = ()  # all of them
    properties: tuple[tuple[str, str], ...] = ()  # all of them
    state: str | None = None  # the last verdict, or NEVER

    def of(self, image: Image) -> Iterable[Location]:
        """Its locations that are meant, as far as the catalogue tells."""
        return image.locations if self.takes_every_location else filter(self.has, image.locations)

    def has(self, location: Location) -> bool:
        """Whether this location is meant, as far as the catalogue tells."""
        if self.takes_every_location:
            return True
        if (self.host is not None and location.host != self.host) or (
            self.zone is not None and location.zone != self.zone
        ):
            return False
        if self.store is not None and location.store != self.store:
            return False
        if self.kind == "durable":
            return not location.is_cached
        return self.kind is None or kind_of(location) == self.kind

    def has_state(self, last: Last | None) -> bool:
        """Whether a location is meant of which the ledger says this."""
        return self.state is None or self.state == (NEVER if last is None else str(last.standing))

    @property
    def takes_every_location(self) -> bool:
        """Whether an image that is meant is meant with all its locations, whatever the ledger says."""
        return self.host is None and self.kind is None and self.zone is None and self.store is None

    @property
    def is_everything(self) -> bool:
        """Whether nothing was named at all."""
        return self == Selection()

    def find(self, catalogue: "Catalogue", ids: Collection[str] | None) -> Iterator[Image]:
        """Those of the images with these ids that are meant, a stream; None: of all."""
        known = ids if ids is None or not self.ids else set(ids) & set(self.ids)
        return catalogue.images(known, **self._filters())

    def urls(self, catalogue: "Catalogue") -> Iterator[list[tuple[str, str | None]]]:
        """Image id and URL of every location of the images that are meant, whatever ids there are; many at a time."""
        return catalogue.urls(**self._filters())

    def _filters(self) -> dict[str, Any]:
        return {"owner": self.owner, "name": self.name, "tagged": self.tags, "having": dict(self.properties)}

    def images(self, catalogue: "Catalogue", complain: Callable[[str], None]) -> Iterator[Image]:
        """The images, a stream; one line to `complain` for each id that is not among them."""
        left = set(self.ids)
        here = catalogue.images_of(self.host) if self.host is not None and not self.ids else None
        for image in self.find(catalogue, self.ids or here):
            left.discard(image.id)
            yield image
        statuses = catalogue.statuses(left) if left else {}
        for image_id in sorted(left):
            complain(f"image {image_id}: {_absence(statuses.get(image_id))}")

    def as_dict(self) -> dict[str, object]:
        """What is meant, as JSON can hold it, without what was not asked for."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if value}


def _absence(status: str | None) -> str:
    if status is None:
        return "there is no such image in the catalogue"
    if status in ("active", "deactivated"):
        return "not of the --name, --owner, --tag or --property asked for"
    return f"its status is {status}: only active and deactivated images have copies to look at"
