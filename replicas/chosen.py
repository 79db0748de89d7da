"""Which of Glance's images are meant, as a query for their ids."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from .glance_tables import DEAD, images, properties, tags


def chosen(
    statuses: Collection[str],
    *,
    owner: str | None,
    name: str | None,
    tagged: Collection[str],
    having: Mapping[str, str],
) -> sa.Select[Any]:
    """The ids of images in these statuses, of this owner and name, with all these tags and all these properties."""
    wanted = sa.select(images.c.id).where(_in_status(statuses))
    if owner is not None:
        wanted = wanted.where(images.c.owner == owner)
    if name is not None:
        wanted = wanted.where(images.c.name == name)
    for tag in tagged:
        wanted = wanted.where(images.c.id.in_(_bearing(tags, tags.c.value == tag)))
    for key, value in having.items():
        same = sa.and_(properties.c.name == key, properties.c.value == value)
        wanted = wanted.where(images.c.id.in_(_bearing(properties, same)))
    return wanted


def spelled_alike(ids: Collection[str]) -> sa.Select[Any]:
    """The ids of images, in any status, that are these but for case."""
    return sa.select(images.c.id).where(sa.func.lower(images.c.id).in_([one.lower() for one in ids]))


def _in_status(statuses: Collection[str]) -> sa.ColumnElement[bool]:
    dead = [status for status in statuses if status in DEAD]
    live = [status for status in statuses if status not in DEAD]
    either = [sa.and_(images.c.status.in_(live), images.c.deleted == sa.false()), images.c.status.in_(dead)]
    if "deleted" in dead:
        either.append(sa.and_(images.c.deleted == sa.true(), images.c.status.not_in(DEAD)))
    return sa.or_(*either)


def _bearing(table: sa.Table, what: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The ids of images with such a tag or property."""
    return sa.select(table.c.image_id).where(what, table.c.deleted == sa.false())
