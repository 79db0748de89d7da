"""What of our own tables is past: rows that only tell of things that are over, older than an age.

Rows go in short transactions by their keys, so that hosts and verifiers write meanwhile; killed in between, it has done
a part, and the next one does the rest.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..database.chunks import CHUNK, chunks
from ..database.dialect import clock
from ..model import is_image_id
from .schema.connection import LedgerDatabase
from .schema.tables import claims, guards, hosts, orphans, pins, runs, states, verify_requests, withdrawals

Key = tuple[str, str]  # image id, place


class Purge:
    """Every method raises LedgerError when the ledger cannot be asked. What is younger than the age stays."""

    def __init__(self, database: LedgerDatabase, older_than_seconds: float) -> None:
        self._database = database
        self._end: datetime = database.read(clock) - timedelta(seconds=older_than_seconds)

    def runs(self) -> int:
        """Finished runs are forgotten; how many, as everywhere here."""
        return self._delete(runs, runs.c.finished_at < self._end)

    def claims(self) -> int:
        """Claims that ran out are gone: whoever made them is dead."""
        return self._delete(claims, claims.c.expires_at < self._end)

    def verify_requests(self) -> int:
        """Verifications that a host was asked for and never made are asked for no longer."""
        return self._delete(verify_requests, verify_requests.c.requested_at < self._end)

    def withdrawals(self) -> int:
        """The record of finished removals goes back to the age at most."""
        return self._delete(withdrawals, withdrawals.c.finished_at < self._end)

    def orphans(self) -> int:
        """What an audit found dark or lost, and none has looked for since, is forgotten."""
        return self._delete(orphans, orphans.c.last_seen < self._end)

    def pins(self, living: Callable[[list[str]], Collection[str]]) -> int:
        """Pins of images that are no more are gone.

        `living` says which of these images there are; what it raises ends the purge with nothing else gone.
        """
        gone, old = 0, pins.c.pinned_at < self._end
        for ids in self._images(pins, old):
            here = sa.and_(pins.c.image_id.in_(set(ids) - set(living(ids))), old)
            gone += self._delete(pins, here)
        return gone

    def guards(self, living: Callable[[list[str]], Collection[str]]) -> int:
        """Rows by which decisions about an image take turns are gone with their images, whatever their age.

        `living` as of `pins`. Nothing is lost by it: a decision that needs one makes it.
        """
        gone, last = 0, ""
        names = sa.select(guards.c.name).where(guards.c.owner.is_(None)).order_by(guards.c.name).limit(CHUNK)
        while ids := [row.name for row in self._database.rows(names.where(guards.c.name > last))]:
            over = [one for one in sorted(set(ids) - set(living(ids))) if is_image_id(one)]
            gone += self._drop(guards, [(one,) for one in over], guards.c.owner.is_(None))
            last = ids[-1]
        return gone

    def states(self, listed: Callable[[list[str]], Collection[Key]]) -> int:
        """Last results of locations that are no more are forgotten.

        `listed` says which locations images of these ids have; what it raises ends the purge with nothing else gone.
        """
        gone = 0
        for ids in self._images(states, states.c.checked_at < self._end):
            here = sa.and_(states.c.image_id.in_(ids), states.c.checked_at < self._end)
            keys = self._database.rows(sa.select(states.c.image_id, states.c.place).where(here))
            kept = listed(ids)
            gone += self._drop(states, [tuple(key) for key in keys if tuple(key) not in kept], here)
        return gone

    def host(self, name: str) -> bool:
        """The host is forgotten, unless it was heard of meanwhile."""
        this = sa.and_(hosts.c.name == name, hosts.c.heartbeat < self._end)
        return self._database.change(hosts.delete().where(this)) > 0

    def _images(self, table: sa.Table, which: sa.ColumnElement[bool]) -> Iterator[list[str]]:
        """The ids of images with such rows, a few at a time."""
        wanted = sa.select(table.c.image_id).where(which).distinct()
        wanted, last = wanted.order_by(table.c.image_id).limit(CHUNK), ""
        while ids := [row.image_id for row in self._database.rows(wanted.where(table.c.image_id > last))]:
            yield ids
            last = ids[-1]

    def _delete(self, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
        key, gone = list(table.primary_key.columns), 0
        some = sa.select(*key).where(which).order_by(*key).limit(CHUNK)
        while rows := self._database.rows(some):
            gone += self._drop(table, [tuple(row) for row in rows], which)
        return gone

    def _drop(self, table: sa.Table, keys: list[tuple[object, ...]], which: sa.ColumnElement[bool]) -> int:
        """Rows of these keys, if that still holds of them."""
        key, gone = sa.tuple_(*table.primary_key.columns), 0
        for part in chunks(keys):
            these = sa.and_(key.in_(part), which)
            gone += self._database.change(table.delete().where(these))
        return gone
