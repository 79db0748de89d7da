"""Copies that are to stay: which images are pinned on which hosts, in our own tables.

A pin may be there before the copy is, and outlives it. The host itself carries it to its files (`pin_sync`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from ..database import transactions
from ..database.chunks import chunks, distinct
from ..database.dialect import add_missing, clock
from .schema.connection import LedgerDatabase
from .schema.tables import pins


@dataclass(frozen=True)
class Pin:
    """Somebody asked that the copy of this image on this host stay."""

    image_id: str
    host: str
    who: str
    pinned_at: datetime  # UTC, aware


class Pins:
    """Every method raises LedgerError when the ledger cannot be asked. Safe for threads and after a fork."""

    def __init__(self, ledger_database: LedgerDatabase) -> None:
        self._database = ledger_database

    def add(self, image_ids: Collection[str], hosts: Collection[str], who: str) -> None:
        """Each of the images is pinned on each of the hosts; a pin that was there keeps its time and its author."""
        keys = [(image_id, host) for image_id in sorted(set(image_ids)) for host in sorted(set(hosts))]
        for part in chunks(keys):

            def work(connection: sa.Connection, part: list[tuple[str, str]] = part) -> None:
                what = {"who": transactions.clean(who, 255), "pinned_at": clock(connection)}
                rows = [{"image_id": image_id, "host": host} | what for image_id, host in part]
                add_missing(connection, pins, rows)

            self._database.write(work)

    def remove(self, image_ids: Collection[str], host: str | None) -> int:
        """None of the images is pinned on this host (None: on any); how many pins there were."""
        gone = 0
        for part in distinct(image_ids):
            these = pins.delete().where(pins.c.image_id.in_(part))
            gone += self._database.change(these if host is None else these.where(pins.c.host == host))
        return gone

    def of_host(self, host: str) -> set[str]:
        """The images pinned on this host."""
        return {row.image_id for row in self._database.rows(sa.select(pins.c.image_id).where(pins.c.host == host))}

    def all(self, image_ids: Collection[str] | None = None, host: str | None = None) -> list[Pin]:
        """Pins by image, then host; of these images only, of this host only."""
        wanted = sa.select(pins)
        if host is not None:
            wanted = wanted.where(pins.c.host == host)
        parts = [None] if image_ids is None else list(distinct(image_ids))
        found = []
        for part in parts:
            some = wanted if part is None else wanted.where(pins.c.image_id.in_(part))
            found += [Pin(row.image_id, row.host, row.who, row.pinned_at) for row in self._database.rows(some)]
        return sorted(found, key=lambda pin: (pin.image_id, pin.host))
