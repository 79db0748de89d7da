"""The columns of Glance's tables that we read or write; a test holds them against the installed Glance."""

import functools
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from ..checksum import expected
from ..model import HOST_KEY, IMAGE_ACTIVE, Image, Location
from . import encryption

log = logging.getLogger(__name__)

UNREADABLE = "undecryptable"  # scheme of a URL that the key does not open; nothing reads such a scheme
DEAD = ("deleted", "pending_delete")

metadata = sa.MetaData()

images = sa.Table(
    "images",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255)),
    sa.Column("size", sa.BigInteger().with_variant(sa.Integer, "sqlite")),  # bytes
    sa.Column("status", sa.String(30), nullable=False),
    sa.Column(
        "visibility",
        sa.Enum("private", "public", "shared", "community", name="image_visibility", create_constraint=False),
        nullable=False,
        server_default="shared",
    ),
    sa.Column("checksum", sa.String(32)),
    sa.Column("os_hash_algo", sa.String(64)),
    sa.Column("os_hash_value", sa.String(128)),
    sa.Column("owner", sa.String(255)),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),  # UTC, naive
)

locations = sa.Table(
    "image_locations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, nullable=False),
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("meta_data", sa.Text),  # JSON
    sa.Column("status", sa.String(30), server_default="active", nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),  # UTC, naive, all three
    sa.Column("updated_at", sa.DateTime),
    sa.Column("deleted_at", sa.DateTime),
    sa.Column("deleted", sa.Boolean, nullable=False),
)

properties = sa.Table(
    "image_properties",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, nullable=False),
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("value", sa.Text),
    sa.Column("deleted", sa.Boolean, nullable=False),
)

tags = sa.Table(
    "image_tags",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, nullable=False),
    sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), nullable=False),
    sa.Column("value", sa.String(255), nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
)

is_listed = sa.and_(locations.c.status == "active", locations.c.deleted == sa.false())

_IMAGE = [images.c[name] for name in ("id", "name", "size", "status", "visibility", "checksum", "os_hash_algo")]
_IMAGE += [images.c[name] for name in ("os_hash_value", "owner", "deleted", "created_at")]
_ROW = len(_IMAGE)  # where the columns of a location begin
_LOCATION = [locations.c[name] for name in ("id", "image_id", "value", "meta_data")]


def images_with_locations(chosen: sa.Select[Any]) -> sa.Select[Any]:
    """Rows for `read_images`: the images whose ids `chosen` selects, by id, each with its active locations.

    One statement, so that an image and its locations are of one moment on every database.
    """
    ids = chosen.subquery()
    joined = ids.join(images, images.c.id == ids.c.id).outerjoin(
        locations, sa.and_(locations.c.image_id == images.c.id, is_listed)
    )
    return sa.select(*_IMAGE, *_LOCATION).select_from(joined).order_by(images.c.id, locations.c.id)


def images_with_urls(chosen: sa.Select[Any]) -> sa.Select[Any]:
    """Image id, row id and `value` for the images whose ids `chosen` selects, by image; nulls where there is no row."""
    ids = chosen.subquery()
    joined = ids.outerjoin(locations, sa.and_(locations.c.image_id == ids.c.id, is_listed))
    return sa.select(ids.c.id, locations.c.id, locations.c.value).select_from(joined).order_by(ids.c.id)


def images_perhaps_only_cached() -> sa.Select[Any]:
    """The ids of active images whose locations, if any, have each a host in their metadata or a web URL.

    Those that are only cached, and few others: the URL decides, which may be encrypted.
    """
    here = sa.and_(locations.c.image_id == images.c.id, is_listed)
    names_host = sa.func.coalesce(locations.c.meta_data, "").contains(f'"{HOST_KEY}"', autoescape=True)
    other = sa.exists().where(here, sa.not_(names_host), locations.c.value.not_ilike("http%"))
    is_active = sa.and_(images.c.status == IMAGE_ACTIVE, images.c.deleted == sa.false())
    return sa.select(images.c.id).where(is_active, sa.not_(other))


def listed_locations(*, pending: bool = False) -> sa.Select[Any]:
    """Rows for `Reader.location`: every active row, or every one that waits for Glance's scrubber."""
    return sa.select(*_LOCATION).where(locations.c.status == "pending_delete" if pending else is_listed)


def withdrawn_locations() -> sa.Select[Any]:
    """Rows for `Reader.location`: those that are deleted, by id."""
    return (
        sa.select(*_LOCATION)
        .where(locations.c.deleted == sa.true(), locations.c.status == "deleted")
        .order_by(locations.c.id)
    )


def stranded_locations(statuses: Collection[str]) -> sa.Select[Any]:
    """Rows for `Reader.location`: those that wait for Glance's scrubber, of images in one of these states."""
    lives = sa.and_(images.c.deleted == sa.false(), images.c.status.in_(statuses))
    joined = locations.join(images, sa.and_(images.c.id == locations.c.image_id, lives))
    waits = sa.and_(locations.c.deleted == sa.true(), locations.c.status == "pending_delete")
    return sa.select(*_LOCATION).select_from(joined).where(waits)


def claiming_locations() -> sa.Select[Any]:
    """Rows for `Reader.location`, then status and `deleted`: every row that is not deleted, or not yet in the store."""
    is_alive = sa.or_(locations.c.deleted == sa.false(), locations.c.status == "pending_delete")
    return sa.select(*_LOCATION, locations.c.status, locations.c.deleted).where(is_alive)


class Reader:
    """Makes our facts of Glance's rows, opening encrypted URLs."""

    def __init__(self, key: str | None) -> None:
        self._key = encryption.check_key(key) if key else None

    def images(self, rows: Iterable[Any]) -> Iterator[Image]:
        """The images in rows of `images_with_locations`."""
        for _, group in groupby(rows, key=itemgetter(0)):
            members = list(group)
            yield self._image(members[0], tuple(self._location(row) for row in members if row[_ROW] is not None))

    def _location(self, row: Any) -> Location:
        """Of the image as its own row spells it: a caseless database takes other spellings of the id for the same."""
        return self.location(row[_ROW], row[0], *row[_ROW + 2 :])

    def location(self, row: int, image_id: str, value: str, meta_data: str | None) -> Location:
        """One row of `listed_locations`.

        A URL the key does not open becomes `undecryptable:///image_locations/ROW`: no reader takes it, so it
        is never verified, counted or removed as a copy, and the stream goes on.
        """
        return Location(image_id, self.url(row, image_id, value), _metadata(row, image_id, meta_data), row)

    def url(self, row: int, image_id: str, value: str) -> str:
        """The URL in a row's `value`."""
        if self._key is None:
            return value
        try:
            return encryption.decrypt(self._key, value)
        except ValueError:
            log.warning("image %s: location row %s: metadata_encryption_key does not open its URL", image_id, row)
            return f"{UNREADABLE}:///image_locations/{row}"

    def stored(self, url: str) -> str:
        """The `value` of a row for this URL."""
        return url if self._key is None else encryption.encrypt(self._key, url)

    @staticmethod
    def _image(row: Any, found: tuple[Location, ...]) -> Image:
        image_id, name, size, status, visibility, checksum, algorithm, value, owner, deleted, made = row[:_ROW]
        digest = expected(algorithm, value, checksum)
        state = live_status(status, deleted)
        return Image(image_id, state, size, digest, found, name, owner, visibility, checksum, _moment(made))


def _moment(value: datetime | str | None) -> datetime | None:
    """Rows come as their driver gives them: SQLite's are text."""
    made = datetime.fromisoformat(value) if isinstance(value, str) else value
    return made.replace(tzinfo=UTC) if made else None


def live_status(status: str, deleted: bool) -> str:
    """An image's status, where a deleted row is `deleted` or `pending_delete` whatever it was before."""
    return "deleted" if deleted and status not in DEAD else status


def _metadata(row: int, image_id: str, text: str | None) -> Mapping[str, object]:
    found = _object(text) if text else {}
    if found is None:
        log.warning("image %s: location row %s: its metadata is no JSON object", image_id, row)
        return {}
    return found


@functools.lru_cache(1024)
def _object(text: str) -> Mapping[str, object] | None:
    """What a host writes into all its rows is the same text."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
