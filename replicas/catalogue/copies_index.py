"""What the catalogue asks of whoever knows the cached copies that Glance's table has no row for."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from ..model import Image, Location


class CopiesIndex(Protocol):
    """Raises nothing: without an answer there are none."""

    def of_images(self, image_ids: Collection[str]) -> Mapping[str, list[Location]]:
        """The cached copies of these images that have their row in our tables, by image."""
        ...

    def images_of(self, host: str) -> set[str]:
        """The images that our tables know of the host, or knew until a day ago."""
        ...

    def is_whole(self, host: str) -> bool:
        """Whether these are all there are; else Glance's table may have more."""
        ...


class NoCopies:
    """Glance's table alone."""

    def of_images(self, image_ids: Collection[str]) -> Mapping[str, list[Location]]:
        """None."""
        return {}

    def images_of(self, host: str) -> set[str]:
        """None."""
        return set()

    def is_whole(self, host: str) -> bool:
        """Not known."""
        return False


def completed(index: CopiesIndex, images: Collection[Image]) -> Iterator[Image]:
    """The images with all their cached copies: Glance's rows first, then those that are in our tables alone."""
    found = index.of_images([image.id for image in images])
    for image in images:
        more = unlisted(found.get(image.id, ()), {location.url for location in image.locations})
        yield replace(image, locations=(*image.locations, *more)) if more else image


def unlisted(copies: Iterable[Location], urls: Collection[str]) -> list[Location]:
    """Of these copies those at none of these URLs."""
    return [location for location in copies if location.url not in urls]
