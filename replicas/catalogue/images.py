"""Changes to Glance's location rows: add one, withdraw one, under the image's lock.

Only rows Glance itself would show count: `status` active and not deleted. Nothing here touches
`images.updated_at`: Cinder drops its cached volume of an image when that changes.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from ..database import several_writers, transactions
from ..database.dialect import clock
from ..database.faults import Fault, fault
from ..errors import Gone, Refused
from ..location import is_ours
from ..model import HOST_KEY, IMAGE_IS_GONE, ZONE_KEY, Digest, Image, Location
from . import spread
from .copies_index import CopiesIndex, completed
from .location_rows import LIVE
from .read_images import ReadOnlyCatalogue
from .tables import Reader, images, is_listed, live_status, locations, withdrawn_locations

__all__ = ["LIVE", "Catalogue", "LockedImage"]

T = TypeVar("T")


class LockedImage:
    """An image whose row nobody else can change until the decision of `Catalogue.decide` is made."""

    def __init__(self, image: Image, connection: sa.Connection, reader: Reader, rivals: several_writers.Rivals) -> None:
        self.image = image
        self._connection, self._reader, self._rivals = connection, reader, rivals

    def withdraw(self, location: Location) -> bool:
        """As `Catalogue.withdraw`, under the lock; a copy that has no row in Glance's table is left to its host."""
        if location.row is None:
            return location in self.image.cached
        return _withdraw(self._connection, self._reader, location)

    def keep(self, kept: Collection[Location]) -> None:
        """These rows, which a decision counts on, are there when the transaction commits; else it is done again.

        They are written, so that a removal of one of them that commits elsewhere meanwhile, also one by a Glance that
        knows nothing of us, makes this transaction fail (`several_writers`). Raises Changed.
        """
        rows = {location.row for location in kept}
        these = sa.and_(locations.c.image_id == self.image.id, locations.c.id.in_(rows))
        if self._rivals.hold(self._connection, _touched(these)) != len(rows):
            raise transactions.Changed(f"image {self.image.id}: others removed locations of it at the same time")


class Catalogue(ReadOnlyCatalogue):
    """Glance's database, as `ReadOnlyCatalogue`, and the few changes that we make to location rows."""

    def __init__(
        self,
        url: str,
        encryption_key: str | None = None,
        copies: CopiesIndex | None = None,
        rivals: several_writers.Rivals = several_writers.RIVALS,
    ) -> None:
        super().__init__(url, encryption_key, copies)
        self._rivals = rivals

    def add(
        self,
        image_id: str,
        url: str,
        metadata: Mapping[str, object],
        *,
        digest: Digest | None = None,
        most: int | None = None,
    ) -> bool:
        """The image has an active row with this URL, of this host and zone; False when that was so already.

        A row of that URL that names another host or zone is corrected; its store id is Glance's to write, and stays.
        With `most` it has at most so many rows of cached copies, spread over zones (`spread`): False, and no row, for
        one more. A withdrawn row of a cached copy is used again: Glance reads those as well, with each GET.

        `digest` is that of the bytes there: an id may be used again while they are fetched (OSSN-0075).

        Raises Gone when the image is deleted, Refused when it is not active yet, or unknown, or has another digest, or
        no database of Glance's could hold the URL.
        """
        if transactions.UNSTORABLE.search(url):
            raise Refused(f"image {image_id}: the URL has characters Glance does not store (above U+FFFF, or NUL)")
        with self._errors():
            return transactions.writing(
                self._engine, lambda connection: self._add(connection, Location(image_id, url, metadata), digest, most)
            )

    def withdraw(self, location: Location) -> bool:
        """Exactly this row is deleted; False when it was gone, or is another URL's by now."""
        with self._errors():
            return transactions.writing(self._engine, lambda connection: _withdraw(connection, self._reader, location))

    def put_back(self, location: Location, *, pending: bool = False) -> bool:
        """This row, which `withdraw` took, is there again; False when it was not withdrawn, or the image is gone.

        With `pending` a row that waits for Glance's scrubber.
        """
        this = sa.and_(locations.c.id == location.row, locations.c.image_id == location.image_id)
        this = sa.and_(this, locations.c.status == ("pending_delete" if pending else "deleted"))
        values = {"deleted": False, "status": "active", "deleted_at": None, "updated_at": _now()}

        def work(connection: sa.Connection) -> bool:
            self._begin(connection, location.image_id)
            row = connection.execute(_lock(location.image_id)).one_or_none()
            if row is None or live_status(row.status, row.deleted) not in LIVE:
                return False
            return connection.execute(locations.update().where(this).values(values)).rowcount == 1

        with self._errors():
            return transactions.writing(self._engine, work)

    def release(self, location: Location) -> bool:
        """This row waits for Glance's scrubber no longer, which cannot delete http locations (docs/glance.md)."""
        this = sa.and_(locations.c.id == location.row, locations.c.status == "pending_delete")

        def work(connection: sa.Connection) -> bool:
            return connection.execute(locations.update().where(this).values(status="deleted")).rowcount == 1

        with self._errors():
            return transactions.writing(self._engine, work)

    def withdraw_url(self, image_id: str, url: str, *, host: str | None = None) -> int:
        """No active row of the image has this URL; returns how many had. With `host` only rows that name it."""

        def work(connection: sa.Connection) -> int:
            rows = [
                location
                for location in self._of_image(connection, image_id)
                if location.url == url and host in (None, location.host)
            ]
            return sum(_withdraw(connection, self._reader, row) for row in rows)

        with self._errors():
            return transactions.writing(self._engine, work)

    def decide(
        self, image_id: str, work: Callable[[LockedImage], T], *, wait_seconds: float = transactions.LOCK_WAIT
    ) -> T:
        """What `work` returns of the image as it is now, its row locked meanwhile: commit, or rollback if it raises.

        Glance's own changes of the image wait meanwhile: keep it short, and do nothing outside, for it is called again
        when another node was first. On SQLite the whole file is locked for writing, the ledger too if it lives there.

        Raises Refused if there is no such image, CatalogueError if another holds the lock while each of its tries has
        waited `wait_seconds`, and one which says so where it is not known whether the database has committed.
        """

        def attempt() -> T:
            with self._locked(image_id, wait_seconds) as held:
                return work(held)

        with self._errors():
            return transactions.persist(attempt)

    @contextlib.contextmanager
    def _locked(self, image_id: str, wait_seconds: float) -> Iterator[LockedImage]:
        with transactions.transaction(self._engine, wait_seconds) as connection:
            self._begin(connection, image_id)
            connection.execute(_lock(image_id))
            image = self._image(connection, image_id)
            if image is None:
                raise Refused(f"image {image_id} does not exist")
            complete = next(completed(self._copies, [image]))
            yield LockedImage(complete, connection, self._reader, self._rivals)

    def _begin(self, connection: sa.Connection, image_id: str) -> None:
        """Before anything is read: of all that decide about this image one commits at a time, on whatever node.

        Where our tables are in another database, its own location rows are what all of them write.
        """
        try:
            self._rivals.meet(connection, image_id)
        except sa.exc.DBAPIError as error:
            if fault(error) is not Fault.NO_TABLE:
                raise
            connection.execute(_touched(locations.c.image_id == image_id))

    def _add(self, connection: sa.Connection, coming: Location, digest: Digest | None, most: int | None) -> bool:
        image_id = coming.image_id
        self._begin(connection, image_id)
        row = connection.execute(_lock(image_id)).one_or_none()
        state = live_status(row.status, row.deleted) if row and row.id == image_id else "unknown"
        if state not in LIVE:
            refusal = Gone if state in IMAGE_IS_GONE else Refused
            raise refusal(f"image {image_id} is {state}: no location can be added")
        image = self._image(connection, image_id)
        if image is None or (digest is not None and image.digest != digest):
            raise Refused(f"image {image_id} has other bytes by now: no location of these can be added")
        there = next((location for location in image.locations if location.url == coming.url), None)
        if there is not None:
            return _corrected(connection, there, coming)
        if most is not None and spread.is_full(image, most):
            crowded = spread.gives_way(image, coming, most)
            if crowded is None:
                return False
            _withdraw(connection, self._reader, crowded)
        self._write(connection, image, coming)
        return True

    def _write(self, connection: sa.Connection, image: Image, coming: Location) -> None:
        """The row, in the place of a withdrawn one of a cached copy where there is one."""
        now = clock(connection).replace(tzinfo=None)  # ages are by this clock, whichever machine asks for them
        values: dict[str, object] = {
            "value": self._reader.stored(coming.url),
            "meta_data": json.dumps(dict(coming.metadata)),
            "status": "active",
            "created_at": now,
            "updated_at": now,
            "deleted": False,
            "deleted_at": None,
        }
        used = self._withdrawn(connection, image, coming) if is_ours(coming) else None
        if used is None:
            connection.execute(locations.insert().values(values | {"image_id": coming.image_id}))
        else:
            made = now + timedelta(seconds=1)  # surely behind what withdrew it: MariaDB's moments are whole seconds
            again = locations.update().where(locations.c.id == used)
            connection.execute(again.values(values | {"created_at": made}))

    def _withdrawn(self, connection: sa.Connection, image: Image, coming: Location) -> int | None:
        """A row that a cached copy of the image had, its own before another's; behind every row of a store.

        Of equal stores Glance shows the row that came first, and clones from it.
        """
        first = max((durable.row or 0 for durable in image.durable), default=0)
        wanted = withdrawn_locations().where(locations.c.image_id == coming.image_id, locations.c.id > first)
        found = [self._reader.location(*row) for row in connection.execute(wanted)]
        used = sorted((copy for copy in found if is_ours(copy)), key=lambda copy: copy.url != coming.url)
        return used[0].row if used else None


def _corrected(connection: sa.Connection, there: Location, wanted: Location) -> bool:
    """Whether the row of a host's URL named another host or zone; now it does not. Other URLs are nobody's of ours."""
    if not is_ours(wanted) or (there.host, there.zone) == (wanted.host, wanted.zone):
        return False
    kept = {key: value for key, value in there.metadata.items() if key not in (HOST_KEY, ZONE_KEY)}
    this = sa.and_(locations.c.id == there.row, locations.c.deleted == sa.false())
    change = {"meta_data": json.dumps(dict(wanted.metadata) | kept), "updated_at": _now()}
    return connection.execute(locations.update().where(this).values(change)).rowcount == 1


def _withdraw(connection: sa.Connection, reader: Reader, location: Location) -> bool:
    if location.row is None:
        raise Refused(f"image {location.image_id}: a location without a row id cannot be withdrawn; use its URL")
    this = sa.and_(locations.c.id == location.row, locations.c.image_id == location.image_id)
    value = connection.execute(sa.select(locations.c.value).where(this).with_for_update()).scalar_one_or_none()
    if value is None or reader.url(location.row, location.image_id, value) != location.url:
        return False  # another copy's by now
    now = _now()
    change = locations.update().where(this, locations.c.deleted == sa.false())
    done = connection.execute(change.values(deleted=True, status="deleted", deleted_at=now, updated_at=now))
    return done.rowcount == 1


def _touched(which: sa.ColumnElement[bool]) -> sa.Update:
    """Changes these active rows and nothing that anybody reads; in any case really, or it would be no write."""
    now = _now().replace(microsecond=0)
    later = sa.case((locations.c.updated_at == now, now + timedelta(seconds=1)), else_=now)
    return locations.update().where(which, is_listed).values(updated_at=later)


def _lock(image_id: str) -> sa.Select[Any]:
    """Holds the image's row to the end of the transaction; SQLite, which ignores it, holds the whole file."""
    return sa.select(images.c.id, images.c.status, images.c.deleted).where(images.c.id == image_id).with_for_update()


def _now() -> datetime:
    """What Glance, too, writes into these columns: its machine's clock."""
    return datetime.now(UTC).replace(tzinfo=None)
