"""Verifications that hosts are asked to make of their own files: a request of our tables, and the result that ends it.

For an image and a host there is one request, whoever asks and however often. The answer is the state of the place.
"""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from ..database import transactions
from ..database.dialect import add_missing, clock, utc_now
from ..model import Result
from .results import record
from .schema.connection import LedgerDatabase
from .schema.rows import age
from .schema.tables import verify_requests

WITHDRAWN = "the host has withdrawn the copy and set the file aside"  # in the detail of a corrupt one


class VerifyRequest(NamedTuple):
    """What a host is asked to read."""

    image_id: str
    rate: int | None  # bytes per second at most


class VerifyRequests:
    """Every method raises LedgerError when the ledger cannot be asked."""

    def __init__(self, ledger_database: LedgerDatabase) -> None:
        self._database = ledger_database

    def ask(self, image_id: str, host: str, *, who: str, rate: int | None = None) -> datetime:
        """The host is to read its file; an answer is what its state says from this moment on."""

        def work(connection: sa.Connection) -> datetime:
            now = clock(connection)
            row = {"image_id": image_id, "host": host, "who": transactions.clean(who, 255), "rate": rate}
            add_missing(connection, verify_requests, [row | {"requested_at": now, "renewed_at": None}])
            return now

        return self._database.write(work)

    def due(self, host: str, limit: int = 20) -> list[VerifyRequest]:
        """What this host is to read, oldest request first."""
        wanted = sa.select(verify_requests.c.image_id, verify_requests.c.rate).where(verify_requests.c.host == host)
        rows = self._database.rows(
            wanted.order_by(verify_requests.c.requested_at, verify_requests.c.image_id).limit(limit)
        )
        return [VerifyRequest(row.image_id, row.rate) for row in rows]

    def renew(self, image_id: str, host: str) -> None:
        """Whoever waits sees that the host is reading."""
        self._database.change(verify_requests.update().where(_this(image_id, host)).values(renewed_at=utc_now()))

    def silence(self, image_id: str, host: str) -> float | None:
        """Seconds since the host was asked, or was seen reading; None: the request has ended."""

        def work(connection: sa.Connection) -> float | None:
            row = connection.execute(sa.select(verify_requests).where(_this(image_id, host))).one_or_none()
            return None if row is None else age(row.renewed_at or row.requested_at, clock(connection))

        return self._database.read(work)

    def end(self, image_id: str, host: str, result: Result | None = None) -> None:
        """The request is over; what was found is recorded with it, both or neither."""

        def work(connection: sa.Connection) -> None:
            if result is not None:
                record(connection, [result])
            connection.execute(verify_requests.delete().where(_this(image_id, host)))

        self._database.write(work)


def _this(image_id: str, host: str) -> sa.ColumnElement[bool]:
    return sa.and_(verify_requests.c.image_id == image_id, verify_requests.c.host == host)
