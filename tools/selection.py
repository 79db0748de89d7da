"""Which images and locations a command is about: ids, and filters by name, owner, host and kind."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glance_replicas import location
from glance_replicas.model import Image, Location

from . import values

if TYPE_CHECKING:
    from glance_replicas.catalogue import Catalogue


@dataclass(frozen=True)
class Selection:
    """What was asked for. No ids: all images."""

    ids: tuple[str, ...] = ()
    name: str | None = None
    owner: str | None = None
    host: str | None = None
    kind: str | None = None  # cached, durable, or a scheme

    def has(self, one: Location) -> bool:
        """Whether this location is meant."""
        if self.host is not None and one.host != self.host:
            return False
        if self.kind == "durable":
            return not one.is_cached
        return self.kind is None or location.kind(one) == self.kind

    @property
    def is_everything(self) -> bool:
        """Whether nothing was named at all."""
        return self == Selection()

    def images(self, catalogue: "Catalogue", complain: Callable[[str], None]) -> Iterator[Image]:
        """The images, a stream; one line to `complain` for each id that is not among them."""
        left = set(self.ids)
        for image in catalogue.images(self.ids or None, owner=self.owner, name=self.name):
            left.discard(image.id)
            yield image
        statuses = catalogue.statuses(left) if left else {}
        for image_id in sorted(left):
            complain(f"image {image_id}: {self._absence(statuses.get(image_id))}")

    def _absence(self, status: str | None) -> str:
        if status is None:
            return "there is no such image in the catalogue"
        if status in ("active", "deactivated"):
            return "not of the --name or --owner asked for"
        return f"its status is {status}: only active and deactivated images have copies to look at"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that make a Selection."""
    add_image_options(parser)
    parser.add_argument("--host", metavar="HOST", help="only the cached copies of this host (its host_name)")
    parser.add_argument(
        "--kind",
        metavar="KIND",
        help="only these locations: cached, durable, or a scheme such as file, swift+https, rbd",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Those of them that choose images."""
    parser.add_argument("image", nargs="*", type=values.image_id, metavar="IMAGE", help="id of an image")
    parser.add_argument("--name", metavar="NAME", help="images of exactly this name")
    parser.add_argument("--owner", metavar="PROJECT", help="images of this project id")


def images_from(parsed: argparse.Namespace) -> Selection:
    """The selection that these arguments name, by image alone."""
    return Selection(tuple(parsed.image), parsed.name, parsed.owner)


def from_arguments(parsed: argparse.Namespace) -> Selection:
    """The selection that these arguments name."""
    return Selection(tuple(parsed.image), parsed.name, parsed.owner, parsed.host, parsed.kind)
