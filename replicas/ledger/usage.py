"""How much each image was used, per day and host, for popularity and for `replica host`."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from ..database.chunks import chunks, distinct
from ..database.dialect import clock, upsert
from ..model import Use
from .schema.connection import LedgerDatabase
from .schema.tables import uses

KEPT_DAYS = 40  # the janitors forget older counts


class Usage:
    """Table `replica_uses`. Every method raises LedgerError when it cannot be asked. Days are UTC, by the database.

    `days` is this day so far and the days before it: with 2, today and yesterday.
    """

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def add(self, host: str, counts: Mapping[str, Use]) -> None:
        """Today's counts of each image on this host are more by so much: all of them, or none when it raises.

        Rows are written in the order of their keys, so that processes that add at once cannot deadlock.
        """

        def work(connection: sa.Connection) -> None:
            today = clock(connection).date()
            rows = [
                {"day": today, "image_id": image_id, "host": host, **use._asdict()}
                for image_id, use in sorted(counts.items())
            ]
            for part in chunks(rows):
                upsert(connection, uses, part, adds=True)

        if counts:
            self._database.write(work)

    def popular(self, days: int, limit: int) -> list[tuple[str, int]]:
        """Image ids with their downloads from all hosts, most first; the same order for everybody who asks."""
        downloads = sa.func.sum(uses.c.downloads)
        wanted = sa.select(uses.c.image_id, downloads.label("downloads")).group_by(uses.c.image_id)
        rows = self._since(days, wanted.order_by(downloads.desc(), uses.c.image_id).limit(limit))
        return [(row.image_id, int(row.downloads)) for row in rows]

    def of_copies(self, image_ids: Collection[str], days: int) -> dict[tuple[str, str], int]:
        """Downloads of these images by (image id, host); what was not used is absent."""
        columns = (uses.c.image_id, uses.c.host)
        wanted = sa.select(*columns, sa.func.sum(uses.c.downloads).label("downloads")).group_by(*columns)
        found: dict[tuple[str, str], int] = {}
        for part in distinct(image_ids):
            rows = self._since(days, wanted.where(uses.c.image_id.in_(part)))
            found |= {(row.image_id, row.host): int(row.downloads) for row in rows}
        return found

    def known_days(self) -> int:
        """How many whole days up to now are certainly counted; 0 when there are no counts."""

        def work(connection: sa.Connection) -> int:
            first = connection.execute(sa.select(sa.func.min(uses.c.day))).scalar_one()
            return 0 if first is None else max(0, (clock(connection).date() - first).days - 1)

        return self._database.read(work)

    def of_hosts(self, days: int) -> dict[str, Use]:
        """What each host served; one that served nothing is absent."""
        sums = [sa.func.sum(uses.c[name]) for name in Use._fields]
        rows = self._since(days, sa.select(uses.c.host, *sums).group_by(uses.c.host))
        return {name: Use(*map(int, numbers)) for name, *numbers in rows}

    def trim(self, older_than_days: int) -> int:
        """No row is older; returns how many rows went. Day by day, in short transactions: others add meanwhile."""
        end = self._database.read(clock).date() - timedelta(days=older_than_days)
        days = self._database.rows(sa.select(uses.c.day).where(uses.c.day < end).distinct())
        return sum(self._database.change(uses.delete().where(uses.c.day == row.day)) for row in days)

    def _since(self, days: int, wanted: sa.Select[Any]) -> Iterable[Any]:
        def work(connection: sa.Connection) -> list[Any]:
            first: date = clock(connection).date() - timedelta(days=days - 1)
            return list(connection.execute(wanted.where(uses.c.day >= first)))

        return self._database.read(work)
