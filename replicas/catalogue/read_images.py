"""Glance's image and location rows, read: one image, or streams of many in bounded memory."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from ..database import transactions
from ..database.chunks import CHUNK, chunks, distinct
from ..model import IMAGE_ACTIVE, Image, Location
from .copies_index import completed, unlisted
from .image_query import chosen, spelled_alike
from .location_rows import LIVE, LocationRows
from .tables import (
    images,
    images_perhaps_only_cached,
    images_with_locations,
    images_with_urls,
    listed_locations,
    live_status,
    locations,
    properties,
    tags,
)

_ONE = images_with_locations(sa.select(images.c.id).where(images.c.id == sa.bindparam("one")))  # made once, asked often
_TRUE = ("true", "yes", "1")


class ReadOnlyCatalogue(LocationRows):
    """Glance's database, read. Every method raises CatalogueError when it cannot be asked.

    Safe for threads and after a fork. `encryption_key` is Glance's `metadata_encryption_key`. An id means the image of
    exactly this spelling, on databases that compare without case too; only `respelled` looks further.

    An image comes with all its cached copies, those too that are in our tables alone (`copies`): locations without a
    `row`.
    """

    def image(self, image_id: str, *, listed: bool = False) -> Image | None:
        """One image in any status; deleted ones read `deleted` or `pending_delete`. None: there is no row.

        With `listed` it comes with the locations of Glance's table alone, and our tables are not asked.
        """
        with self._errors():
            image = transactions.reading(self._engine, lambda connection: self._image(connection, image_id))
        return image if image is None or listed else self.completed(image)

    def completed(self, image: Image) -> Image:
        """The image with all its cached copies, those too that are in our tables alone."""
        return next(completed(self._copies, [image]))

    def active(self, image_id: str) -> Image | None:
        """The image when it is active; None when it is not, or has no row."""
        image = self.image(image_id)
        return image if image is not None and image.status == IMAGE_ACTIVE else None

    def images(
        self,
        ids: Collection[str] | None = None,
        *,
        owner: str | None = None,
        name: str | None = None,
        tagged: Collection[str] = (),
        having: Mapping[str, str] = MappingProxyType({}),
        statuses: Collection[str] = LIVE,
        batch: int = 500,
    ) -> Iterator[Image]:
        """Images by ascending id, at most `batch` in memory; no connection is held while the caller works.

        An image added meanwhile is seen if its id is still to come. With `ids`: those of them that exist; `tagged`:
        with all these tags; `having`: with all these properties.
        """
        wanted = chosen(statuses, owner=owner, name=name, tagged=tagged, having=having)
        if ids is not None:
            for part in self._of_these(ids, wanted, batch):
                yield from completed(self._copies, part)
            return
        wanted, last = wanted.order_by(images.c.id).limit(batch), ""
        while found := self._batch(wanted.where(images.c.id > last)):
            yield from completed(self._copies, found)
            last = found[-1].id

    def listed(self, ids: Collection[str]) -> Iterator[Image]:
        """Of these images those that exist, each with its locations in Glance's table alone."""
        wanted = chosen(LIVE, owner=None, name=None, tagged=(), having={})
        return itertools.chain.from_iterable(self._of_these(ids, wanted, CHUNK))

    def _of_these(self, ids: Collection[str], wanted: sa.Select[Any], batch: int) -> Iterator[list[Image]]:
        for part in distinct(ids, batch):
            exact, found = set(part), self._batch(wanted.where(images.c.id.in_(part)))
            yield [image for image in found if image.id in exact]

    def urls(
        self,
        *,
        owner: str | None = None,
        name: str | None = None,
        tagged: Collection[str] = (),
        having: Mapping[str, str] = MappingProxyType({}),
        batch: int = 500,
    ) -> Iterator[list[tuple[str, str | None]]]:
        """Image id and URL of every location of the images that `images` would give, in lists of `batch` images.

        None for an image without any location: it is there all the same.
        """
        wanted, last = chosen(LIVE, owner=owner, name=name, tagged=tagged, having=having), ""
        wanted = wanted.order_by(images.c.id).limit(batch)
        while rows := self._tuples(images_with_urls(wanted.where(images.c.id > last))):
            found = [
                (image_id, self._reader.url(row, image_id, value) if row is not None else None)
                for image_id, row, value in rows
            ]
            yield self._with_unlisted(found)
            last = rows[-1][0]

    def _with_unlisted(self, found: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
        copies = self._copies.of_images({image_id for image_id, _ in found})
        more = (
            unlisted(itertools.chain.from_iterable(copies.values()), {url for _, url in found if url}) if copies else ()
        )
        return found + [(location.image_id, location.url) for location in more]

    def statuses(self, ids: Collection[str]) -> dict[str, str]:
        """The status of each image that has a row, deleted ones included; an id without a row is absent."""
        columns = sa.select(images.c.id, images.c.status, images.c.deleted)
        found: dict[str, str] = {}
        exact = set(ids)
        for part in distinct(exact):
            for image_id, status, deleted in self._rows(columns.where(images.c.id.in_(part))):
                if image_id in exact:
                    found[image_id] = live_status(status, deleted)
        return found

    def respelled(self, ids: Collection[str]) -> dict[str, list[str]]:
        """Of these ids those that no image has as they are: the ids of images, in any status, that differ in case only.

        Looks at every image on databases that compare by case.
        """
        left = sorted(set(ids) - self.statuses(ids).keys())
        found: dict[str, list[str]] = {}
        for part in chunks(left):
            for (image_id,) in self._rows(spelled_alike(part)):
                found.setdefault(image_id.lower(), []).append(image_id)
        return {typed: found.get(typed.lower(), []) for typed in left}

    def with_property(self, name: str, ids: Collection[str]) -> set[str]:
        """Of these images those that have a property of this name set to true: `true`, `yes` or `1`, in any case."""
        wanted = sa.select(properties.c.image_id, properties.c.name, properties.c.value)
        wanted = wanted.where(properties.c.name == name, properties.c.deleted == sa.false())
        found: set[str] = set()
        for part in distinct(ids):
            rows = self._rows(wanted.where(properties.c.image_id.in_(part)))
            found |= {row.image_id for row in rows if row.name == name and (row.value or "").lower() in _TRUE}
        return found

    def tags(self, ids: Collection[str]) -> dict[str, frozenset[str]]:
        """The tags of these images; one without any is absent."""
        found: dict[str, set[str]] = {}
        for image_id, value in self._of(tags, ids, tags.c.value):
            found.setdefault(image_id, set()).add(value)
        return {image_id: frozenset(values) for image_id, values in found.items()}

    def properties(self, ids: Collection[str]) -> dict[str, dict[str, str]]:
        """The properties of these images that are no columns of their own; an image without any is absent."""
        found: dict[str, dict[str, str]] = {}
        for image_id, name, value in self._of(properties, ids, properties.c.name, properties.c.value):
            found.setdefault(image_id, {})[name] = value or ""
        return found

    def only_cached(self, limit: int = 1000) -> list[str]:
        """Active images of which every copy is on a host: no store has them. The first so many, by id."""
        wanted = images_perhaps_only_cached().order_by(images.c.id).limit(CHUNK)
        found, last = list[str](), ""
        while len(found) < limit and (ids := [row.id for row in self._rows(wanted.where(images.c.id > last))]):
            found += [image.id for image in self.images(ids) if image.cached and not image.durable]
            last = ids[-1]
        return found[:limit]

    def _image(self, connection: sa.Connection, image_id: str) -> Image | None:
        rows = connection.execute(_ONE, {"one": image_id})
        return next((image for image in self._reader.images(rows) if image.id == image_id), None)

    def _of_image(self, connection: sa.Connection, image_id: str) -> list[Location]:
        rows = connection.execute(listed_locations().where(locations.c.image_id == image_id))
        return [self._reader.location(*row) for row in rows]

    def _batch(self, chosen: sa.Select[Any]) -> list[Image]:
        return list(self._reader.images(self._tuples(images_with_locations(chosen))))

    def _of(self, table: sa.Table, ids: Collection[str], *columns: sa.Column[Any]) -> Iterator[Any]:
        """Image id and columns of these images' rows that are not deleted."""
        wanted = sa.select(table.c.image_id, *columns).where(table.c.deleted == sa.false())
        for part in distinct(ids):
            yield from self._rows(wanted.where(table.c.image_id.in_(part)))
