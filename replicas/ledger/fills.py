"""Fills in progress: leases that other hosts see, so that one of them reads the back end and the others follow."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ..database import several_writers
from ..database.dialect import clock, upsert
from .schema import rows as ledger_rows
from .schema.connection import LedgerDatabase
from .schema.rows import FillClaim
from .schema.tables import fills, hosts


class Fills:
    """Part of `Ledger`."""

    database: LedgerDatabase
    _rivals: several_writers.Rivals

    def claim_fill(self, image_id: str, host: str, url: str, lease_seconds: float, *, done: int = 0) -> list[FillClaim]:
        """Others see for `lease_seconds` that this host is filling the image, `done` bytes so far. Renew in time.

        Returns what `fills` would. First claims take turns, so that of two hosts the one that started later always
        sees the other; on MariaDB, too, whose view of the table begins with the first plain read, after the turn. On
        Galera a lock holds on one node only: there, of two first claims at the same time, the later one is rolled back
        and made again.
        """
        this = sa.and_(fills.c.image_id == image_id, fills.c.host == host)

        def work(connection: sa.Connection) -> list[FillClaim]:
            row = _lease(connection, url, lease_seconds, done)
            held = fills.update().where(this, fills.c.expires_at >= row["renewed_at"])
            if not connection.execute(held.values(row)).rowcount:
                if not self._rivals.meet(connection, image_id):
                    connection.execute(sa.select(hosts.c.name).order_by(hosts.c.name).limit(1).with_for_update())
                row = _lease(connection, url, lease_seconds, done)  # by the clock of our turn
                begun = {"image_id": image_id, "host": host, "started_at": row["renewed_at"]}
                upsert(connection, fills, [row | begun])
            return _fills(connection, row["renewed_at"], image_id, lease_seconds)

        return self.database.write(work)

    def release_fill(self, image_id: str, host: str) -> None:
        """This host is not filling the image."""
        this = sa.and_(fills.c.image_id == image_id, fills.c.host == host)
        self.database.change(fills.delete().where(this))

    def all_fills(self) -> list[tuple[str, FillClaim]]:
        """Every fill in progress on any host with its image id: leases that hold, by image and host."""

        def work(connection: sa.Connection) -> list[tuple[str, FillClaim]]:
            now = clock(connection)
            held = sa.select(fills).where(fills.c.expires_at > now).order_by(fills.c.image_id, fills.c.host)
            return [(row.image_id, ledger_rows.fill(row, now)) for row in connection.execute(held)]

        return self.database.read(work)

    def fills(self, image_id: str, max_age_seconds: float) -> list[FillClaim]:
        """Who is filling the image: leases that hold, renewed in the last `max_age_seconds`; the longest first."""
        return self.database.read(lambda connection: _fills(connection, clock(connection), image_id, max_age_seconds))


def _fills(connection: sa.Connection, now: datetime, image_id: str, max_age_seconds: float) -> list[FillClaim]:
    fresh = sa.and_(fills.c.expires_at > now, fills.c.renewed_at >= now - timedelta(seconds=max_age_seconds))
    rows = connection.execute(
        sa.select(fills).where(fills.c.image_id == image_id, fresh).order_by(fills.c.started_at, fills.c.host)
    )
    return [ledger_rows.fill(row, now) for row in rows]


def _lease(connection: sa.Connection, url: str, seconds: float, done: int) -> dict[str, Any]:
    now = clock(connection)
    return {"url": url, "renewed_at": now, "expires_at": now + timedelta(seconds=seconds), "bytes": done}
