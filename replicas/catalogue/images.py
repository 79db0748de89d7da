"""Changes to Glance's location rows: add one, withdraw one, under the image's lock.

Only rows Glance itself would show count: `status` active and not deleted. Nothing here touches
`images.updated_at`: Cinder drops its cached volume of an image when that changes.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ..database import transactions
from ..database.dialect import clock
from ..errors import Gone, Refused
from ..location import is_ours
from ..model import HOST_KEY, IMAGE_IS_GONE, ZONE_KEY, Digest, Image, Location
from .read_images import LIVE, ReadOnlyCatalogue
from .tables import images, live_status, locations

__all__ = ["LIVE", "Catalogue", "LockedImage"]


class LockedImage:
    """An image whose row nobody else can change until the `with` of `Catalogue.locked` ends."""

    def __init__(self, image: Image, connection: sa.Connection) -> None:
        self.image = image
        self._connection = connection

    def withdraw(self, location: Location) -> bool:
        """As `Catalogue.withdraw`, in the transaction that holds the lock."""
        return _withdraw(self._connection, location)


class Catalogue(ReadOnlyCatalogue):
    """Glance's database, as `ReadOnlyCatalogue`, and the few changes that we make to location rows."""

    def add(self, image_id: str, url: str, metadata: Mapping[str, object], *, digest: Digest | None = None) -> bool:
        """The image has an active row with this URL, of this host and zone; False when that was so already.

        A row of that URL that names another host or zone is corrected; its store id is Glance's to write, and stays.

        `digest` is that of the bytes there: an id may be used again while they are fetched (OSSN-0075).

        Raises Gone when the image is deleted, Refused when it is not active yet, or unknown, or has another digest, or
        no database of Glance's could hold the URL.
        """
        if transactions.UNSTORABLE.search(url):
            raise Refused(f"image {image_id}: the URL has characters Glance does not store (above U+FFFF, or NUL)")
        with self._errors():
            return transactions.writing(
                self._engine, lambda connection: self._add(connection, image_id, url, metadata, digest)
            )

    def withdraw(self, location: Location) -> bool:
        """Exactly this row is deleted; False when it was gone. A later row with the same URL is left alone."""
        with self._errors():
            return transactions.writing(self._engine, lambda connection: _withdraw(connection, location))

    def put_back(self, location: Location, *, pending: bool = False) -> bool:
        """This row, which `withdraw` took, is there again; False when it was not withdrawn, or the image is gone.

        With `pending` a row that waits for Glance's scrubber.
        """
        this = sa.and_(locations.c.id == location.row, locations.c.image_id == location.image_id)
        this = sa.and_(this, locations.c.status == ("pending_delete" if pending else "deleted"))
        values = {"deleted": False, "status": "active", "deleted_at": None, "updated_at": _now()}

        def work(connection: sa.Connection) -> bool:
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
            rows = [one for one in self._of_image(connection, image_id) if one.url == url and host in (None, one.host)]
            return sum(_withdraw(connection, one) for one in rows)

        with self._errors():
            return transactions.writing(self._engine, work)

    @contextlib.contextmanager
    def locked(self, image_id: str, *, wait_seconds: float = transactions.LOCK_WAIT) -> Iterator[LockedImage]:
        """The image as it is now, its row locked until the end: commit, or rollback on an exception.

        Glance's own changes of the image wait meanwhile: keep it short. On SQLite the whole file is locked
        for writing, the ledger too if it lives there. A Galera cluster holds the lock on one node only: let
        all writes go to one node, as Glance needs for its quotas anyway. Raises Refused if there is no such
        image, CatalogueError if another holds the lock longer than `wait_seconds`.
        """
        with self._errors(), transactions.transaction(self._engine, wait_seconds) as connection:
            connection.execute(_lock(image_id))
            image = self._image(connection, image_id)
            if image is None:
                raise Refused(f"image {image_id} does not exist")
            yield LockedImage(image, connection)

    def _add(
        self,
        connection: sa.Connection,
        image_id: str,
        url: str,
        metadata: Mapping[str, object],
        digest: Digest | None,
    ) -> bool:
        row = connection.execute(_lock(image_id)).one_or_none()
        state = live_status(row.status, row.deleted) if row and row.id == image_id else "unknown"
        if state not in LIVE:
            refusal = Gone if state in IMAGE_IS_GONE else Refused
            raise refusal(f"image {image_id} is {state}: no location can be added")
        image = self._image(connection, image_id)
        if image is None or (digest is not None and image.digest != digest):
            raise Refused(f"image {image_id} has other bytes by now: no location of these can be added")
        there = next((one for one in image.locations if one.url == url), None)
        if there is not None:
            return _corrected(connection, there, metadata)
        now = clock(connection).replace(tzinfo=None)  # ages are by this clock, whichever machine asks for them
        values: dict[str, object] = {
            "image_id": image_id,
            "value": self._reader.stored(url),
            "meta_data": json.dumps(dict(metadata)),
        }
        values |= {"status": "active", "created_at": now, "updated_at": now, "deleted": False}
        connection.execute(locations.insert().values(values))
        return True


def _corrected(connection: sa.Connection, there: Location, metadata: Mapping[str, object]) -> bool:
    """Whether the row of a host's URL named another host or zone; now it does not. Other URLs are nobody's of ours."""
    wanted = Location(there.image_id, there.url, metadata)
    if not is_ours(wanted) or (there.host, there.zone) == (wanted.host, wanted.zone):
        return False
    kept = {key: value for key, value in there.metadata.items() if key not in (HOST_KEY, ZONE_KEY)}
    this = sa.and_(locations.c.id == there.row, locations.c.deleted == sa.false())
    change = {"meta_data": json.dumps(dict(metadata) | kept), "updated_at": _now()}
    return connection.execute(locations.update().where(this).values(change)).rowcount == 1


def _withdraw(connection: sa.Connection, location: Location) -> bool:
    if location.row is None:
        raise Refused(f"image {location.image_id}: a location without a row id cannot be withdrawn; use its URL")
    this = sa.and_(locations.c.id == location.row, locations.c.image_id == location.image_id)
    now = _now()
    change = locations.update().where(this, locations.c.deleted == sa.false())
    done = connection.execute(change.values(deleted=True, status="deleted", deleted_at=now, updated_at=now))
    return done.rowcount == 1


def _lock(image_id: str) -> sa.Select[Any]:
    """Holds the image's row to the end of the transaction; SQLite, which ignores it, holds the whole file."""
    return sa.select(images.c.id, images.c.status, images.c.deleted).where(images.c.id == image_id).with_for_update()


def _now() -> datetime:
    """What Glance, too, writes into these columns: its machine's clock."""
    return datetime.now(UTC).replace(tzinfo=None)
