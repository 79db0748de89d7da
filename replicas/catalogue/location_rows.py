"""Glance's location rows, read: those of a host, streams of many in bounded memory; and how its tables are asked."""

import contextlib
import itertools
import json
from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa

from ..database import several_writers, transactions
from ..database.chunks import distinct
from ..database.dialect import clock
from ..errors import CatalogueError
from ..model import HOST_KEY, IMAGE_ACTIVE, IMAGE_DEACTIVATED, Location
from .copies_index import CopiesIndex, NoCopies
from .tables import Reader, claiming_locations, listed_locations, locations, stranded_locations

LIVE = (IMAGE_ACTIVE, IMAGE_DEACTIVATED)


class LocationRows:
    """Part of `Catalogue`. Every method raises CatalogueError when Glance's database cannot be asked."""

    def __init__(self, url: str, encryption_key: str | None = None, copies: CopiesIndex | None = None) -> None:
        self._reader = Reader(encryption_key)
        self._engine = transactions.engine(url)
        self._copies: CopiesIndex = copies or NoCopies()

    def close(self) -> None:
        """No connection is open; the next call opens one again."""
        self._engine.dispose()

    def of_host(self, host_name: str, *, pending: bool = False, whole: bool = False) -> Iterator[Location]:
        """Active rows whose metadata name this host, of images in any status; a stream like `images`.

        With `pending` those that wait for Glance's scrubber instead (`delayed_delete`). Found by the images that our
        tables know of the host; where those may lack some, or with `whole`, all of Glance's table is read.
        """
        image_ids = None if whole else self.images_of(host_name)
        chosen = listed_locations(pending=pending).where(_mentions(host_name))
        rows = self._all(chosen) if image_ids is None else self._of_ids(chosen, image_ids)
        found = (self._reader.location(*row) for row in rows)
        return (location for location in found if location.host == host_name)

    def registrations(self, host_name: str) -> Iterator[Location]:
        """The copies that are registered on this host: its rows, then those that are in our tables alone."""
        listed = set()
        for row in self.of_host(host_name):
            listed.add(row.image_id)
            yield row
        yield from (copy for copy in self._copies_of(host_name) if copy.image_id not in listed)

    def newest(self, limit: int) -> list[Location]:
        """The active rows made last, of images in any status."""
        rows = self._rows(listed_locations().order_by(locations.c.id.desc()).limit(limit))
        return [self._reader.location(*row) for row in rows]

    def claims(self, hosts: Collection[str] = ()) -> Iterator[tuple[Location, bool]]:
        """Every row that is not deleted, of images in any status, and whether Glance lists it; a stream like `images`.

        Rows that are not listed wait for Glance's scrubber (`delayed_delete`), or for an upload to end. Behind them the
        copies that our tables have of these hosts, whether Glance's has a row for them or not.
        """
        wanted = claiming_locations().order_by(locations.c.id).limit(1000)
        last = 0
        while rows := self._rows(wanted.where(locations.c.id > last)):
            last = rows[-1][0]
            for *row, status, deleted in rows:
                yield self._reader.location(*row), status == "active" and not deleted
        for host in hosts:
            yield from ((copy, True) for copy in self._copies_of(host))

    def stranded(self) -> list[Location]:
        """Rows that wait for Glance's scrubber though their image lives: it asks for those of deleted images only."""
        return [self._reader.location(*row) for row in self._rows(stranded_locations(LIVE))]

    def ages(self, image_ids: Collection[str]) -> dict[int, float]:
        """Seconds since each active location of these images was made, by row, by the database's clock."""
        columns = sa.select(locations.c.id, locations.c.created_at).where(locations.c.deleted == sa.false())
        with self._errors():
            now, found = transactions.reading(self._engine, clock).replace(tzinfo=None), {}
        for part in distinct(image_ids):
            for row, made in self._rows(columns.where(locations.c.image_id.in_(part))):
                found[row] = (now - made).total_seconds()
        return found

    def cluster(self) -> tuple[int, str] | None:
        """As `several_writers.cluster`."""
        with self._errors():
            return transactions.reading(self._engine, several_writers.cluster)

    def images_of(self, host_name: str) -> set[str] | None:
        """The images with a registration on this host, and few others; None: to be known by Glance's table alone."""
        return self._copies.images_of(host_name) if self._copies.is_whole(host_name) else None

    def _copies_of(self, host_name: str) -> Iterator[Location]:
        for part in distinct(self._copies.images_of(host_name)):
            found = itertools.chain.from_iterable(self._copies.of_images(part).values())
            yield from (copy for copy in found if copy.host == host_name)

    def _all(self, chosen: sa.Select[Any]) -> Iterator[Any]:
        wanted, last = chosen.order_by(locations.c.id).limit(1000), 0
        while rows := self._rows(wanted.where(locations.c.id > last)):
            yield from rows
            last = rows[-1][0]

    def _of_ids(self, chosen: sa.Select[Any], image_ids: Collection[str]) -> Iterator[Any]:
        exact = set(image_ids)
        for part in distinct(exact):
            rows = self._rows(chosen.where(locations.c.image_id.in_(part)))
            yield from (row for row in rows if row[1] in exact)

    def _rows(self, query: sa.Select[Any]) -> list[Any]:
        with self._errors():
            return transactions.reading(self._engine, lambda connection: list(connection.execute(query).fetchall()))

    def _tuples(self, query: sa.Select[Any]) -> list[Any]:
        with self._errors():
            return transactions.reading(self._engine, lambda connection: transactions.tuples(connection, query))

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return transactions.translate(
            CatalogueError,
            self._engine,
            no_table="Glance's tables are not there: run glance-manage db_sync, or correct [database] connection",
            remedy="check [database] connection and that the database answers",
        )


def _mentions(host_name: str) -> sa.ColumnElement[bool]:
    """True for every row of the host and few others: a text search, since JSON is opaque to some databases."""
    key = locations.c.meta_data.contains(f'"{HOST_KEY}"', autoescape=True)
    written = json.dumps(host_name)  # an escaped name could be written in more than one way
    return key if "\\" in written else sa.and_(key, locations.c.meta_data.contains(written, autoescape=True))
