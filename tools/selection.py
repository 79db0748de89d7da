"""Which images and locations a command is about: ids, and filters by what images and locations are."""

import argparse
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glance_replicas import location
from glance_replicas.errors import ConfigError
from glance_replicas.model import Image, Last, Location, Verdict

from . import values

if TYPE_CHECKING:
    from glance_replicas.catalogue.images import Catalogue

NEVER = "never"
STATES = [*map(str, Verdict), NEVER]
NOTHING_NAMED = "nothing named: give image ids, or a filter such as --name, --owner, --host or --kind; or --all"


@dataclass(frozen=True)
class Selection:
    """What was asked for. No ids: all images."""

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

    def has(self, one: Location) -> bool:
        """Whether this location is meant, as far as the catalogue tells."""
        if self.takes_every_location:
            return True
        if (self.host is not None and one.host != self.host) or (self.zone is not None and one.zone != self.zone):
            return False
        if self.store is not None and one.store != self.store:
            return False
        if self.kind == "durable":
            return not one.is_cached
        return self.kind is None or location.kind(one) == self.kind

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
        for image in self.find(catalogue, self.ids or None):
            left.discard(image.id)
            yield image
        statuses = catalogue.statuses(left) if left else {}
        for image_id in sorted(left):
            complain(f"image {image_id}: {self._absence(statuses.get(image_id))}")

    def as_dict(self) -> dict[str, object]:
        """What was asked for, as JSON can hold it, without what was not."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if value}

    def _absence(self, status: str | None) -> str:
        if status is None:
            return "there is no such image in the catalogue"
        if status in ("active", "deactivated"):
            return "not of the --name, --owner, --tag or --property asked for"
        return f"its status is {status}: only active and deactivated images have copies to look at"


def add_options(parser: argparse.ArgumentParser, *, state: bool = False) -> None:
    """The arguments that make a Selection; `--state` means the last verdict only where `state` is set."""
    add_image_options(parser)
    add = parser.add_argument
    add("--tag", action="append", default=[], metavar="TAG", help="images with this tag; repeated: with all of them")
    text = "images with this property; repeated: with all of them"
    add("--property", action="append", default=[], type=_property, metavar="KEY=VALUE", help=text)
    add("--host", metavar="HOST", help="only the cached copies of this host (its host_name)")
    add("--zone", metavar="ZONE", help="only the cached copies in this zone")
    add("--store", metavar="STORE", help="only what is in this store, by Glance's id")
    text = "only these locations: cached, durable, or a scheme such as file, swift+https, rbd"
    add("--kind", metavar="KIND", help=text)
    if state:
        text = "only what was found so last: intact, corrupt, ...; or never, what was not looked at yet"
        add("--state", choices=STATES, metavar="STATE", help=text)


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Those of them that choose images."""
    parser.add_argument("image", nargs="*", type=values.image_id, metavar="IMAGE", help="id of an image")
    parser.add_argument("--name", metavar="NAME", help="images of exactly this name")
    parser.add_argument("--owner", metavar="PROJECT", help="images of this project id")


def images_from(parsed: argparse.Namespace) -> Selection:
    """The selection that these arguments name, by image alone."""
    return Selection(tuple(parsed.image), parsed.name, parsed.owner)


def from_arguments(parsed: argparse.Namespace, *, state: bool = False) -> Selection:
    """The selection that these arguments name, with `state` by the last verdict as well."""
    return Selection(
        ids=tuple(sorted(set(parsed.image))),
        **{name: getattr(parsed, name) for name in ("name", "owner", "host", "kind", "zone", "store")},
        tags=tuple(sorted(parsed.tag)),
        properties=tuple(sorted(parsed.property)),
        state=parsed.state if state else None,
    )


def named(parsed: argparse.Namespace, *, state: bool = False) -> Selection:
    """As `from_arguments`; raises ConfigError when nothing was named and `--all` was not said."""
    found = from_arguments(parsed, state=state)
    if found.is_everything and not parsed.all:
        raise ConfigError(NOTHING_NAMED)
    return found


def _property(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no property: write KEY=VALUE")
    return key, value
