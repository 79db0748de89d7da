"""Which of Glance's images are meant, as a query for their ids."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from .tables import DEAD, images, properties, tags


class is_exactly(FunctionElement[bool]):
    """Whether a column has just this text. MariaDB's own `=` takes other case, accents and trailing blanks for it."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(is_exactly)
def _compare(element: is_exactly, compiler: Any, **more: Any) -> str:
    column, text = (compiler.process(clause, **more) for clause in element.clauses)
    return f"({column} = {text})"


@compiles(is_exactly, "mysql", "mariadb")
def _compare_bytes(element: is_exactly, compiler: Any, **more: Any) -> str:
    """By `=` as well, which an index serves."""
    column, text = element.clauses
    by_index = f"{compiler.process(column, **more)} = {compiler.process(text, **more)}"
    by_bytes = (f"CAST({compiler.process(side, **more)} AS BINARY)" for side in (column, text))
    return f"({by_index} AND {' = '.join(by_bytes)})"


def chosen(
    statuses: Collection[str],
    *,
    owner: str | None,
    name: str | None,
    tagged: Collection[str],
    having: Mapping[str, str],
) -> sa.Select[Any]:
    """The ids of images in these statuses, of exactly this owner and name, with all these tags and properties."""
    wanted = sa.select(images.c.id).where(_in_status(statuses))
    if owner is not None:
        wanted = wanted.where(is_exactly(images.c.owner, owner))
    if name is not None:
        wanted = wanted.where(is_exactly(images.c.name, name))
    for tag in tagged:
        wanted = wanted.where(images.c.id.in_(_bearing(tags, is_exactly(tags.c.value, tag))))
    for key, value in having.items():
        same = sa.and_(is_exactly(properties.c.name, key), is_exactly(properties.c.value, value))
        wanted = wanted.where(images.c.id.in_(_bearing(properties, same)))
    return wanted


def spelled_alike(ids: Collection[str]) -> sa.Select[Any]:
    """The ids of images, in any status, that are these but for case."""
    return sa.select(images.c.id).where(sa.func.lower(images.c.id).in_([image_id.lower() for image_id in ids]))


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
