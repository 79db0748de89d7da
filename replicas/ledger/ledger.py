"""Our own tables: hosts, results of verification, withdrawals, fills in progress.

URLs are kept redacted: a place is known by the hash of what identifies it (`place_key`), and whoever needs
the real URL takes it from the catalogue.
"""

import functools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from .. import __version__
from ..database import transactions
from ..database.dialect import clock, upsert, utc_now
from ..location import redact_text
from ..model import Host, Last, Location, Result
from . import migrations, record_results
from . import rows as ledger_rows
from .connection import LedgerDatabase
from .rows import Fill, Withdrawal, place_key, url_key
from .tables import checks, fills, hosts, states, withdrawals

__all__ = ["Fill", "Ledger", "Withdrawal", "place_key", "url_key"]

CHUNK = 500  # rows of one statement


class Ledger:
    """Our tables, in Glance's database or elsewhere. Every method raises LedgerError when it cannot be asked.

    Safe for threads and after a fork. Ages are by the database's clock, so hosts need not agree on the time.
    """

    def __init__(self, url: str) -> None:
        self.database = LedgerDatabase(url)

    def close(self) -> None:
        """No connection is open; the next call opens one again."""
        self.database.close()

    def upgrade(self) -> list[str]:
        """The tables are those this version needs; returns the revisions applied, none if they were."""
        return self.database.upgrade()

    def version(self) -> str | None:
        """The revision of the tables; None when there are none."""
        return self.database.version()

    def is_current(self) -> bool:
        """Whether the tables are those this version needs."""
        return self.version() == migrations.latest()

    def heartbeat(self, host: Host) -> None:
        """The host is known with these numbers, as of now; `host.heartbeat` and its age are not looked at."""
        names = ("name", "zone", "url", "files", "bytes_used", "bytes_free")
        row = {name: getattr(host, name) for name in names} | {"version": __version__}
        self.database.write(lambda connection: upsert(connection, hosts, [row | {"heartbeat": clock(connection)}]))

    def hosts(self) -> list[Host]:
        """Every host ever heard of and not forgotten, by name."""

        def work(connection: sa.Connection) -> list[Host]:
            rows = connection.execute(sa.select(*_HOST).order_by(hosts.c.name)).all()
            now = clock(connection)
            return [ledger_rows.host(row, now) for row in rows]

        return sorted(self.database.read(work), key=lambda host: host.name)

    def forget_host(self, name: str) -> bool:
        """The host is unknown; False when it was. A host that lives comes back with its next heartbeat."""
        return self.database.change(hosts.delete().where(hosts.c.name == name)) > 0

    def record(self, results: Sequence[Result]) -> None:
        """The results are in the history, and the last recorded of each location is its state.

        All are of now by the database's clock; `checked_at`, by the clock of the machine that looked, is not asked.
        """
        for start in range(0, len(results), CHUNK):
            self.database.write(functools.partial(record_results.record, results=results[start : start + CHUNK]))

    def states(self, image_ids: Collection[str], *, full: bool = False) -> dict[tuple[str, str], Result]:
        """The latest result of each location, by (image id, `place_key`); damage that a quick look did not see stays.

        With `full` the latest look that read every byte, where there was one; its size, detail and seconds
        are not kept. The location has the redacted URL and, of its metadata, the host.
        """
        found: dict[tuple[str, str], Result] = {}
        ids = sorted(set(image_ids))
        for start in range(0, len(ids), CHUNK):
            wanted = sa.select(states).where(states.c.image_id.in_(ids[start : start + CHUNK]))
            if full:
                wanted = wanted.where(states.c.full_checked_at.is_not(None))
            for row in self.database.rows(wanted):
                found[row.image_id, row.place] = ledger_rows.full_result(row) if full else ledger_rows.state(row)
        return found

    def lasts(self, image_ids: Collection[str]) -> dict[tuple[str, str], Last]:
        """What is known of each place of these images, by (image id, `place_key`), in short."""
        found: dict[tuple[str, str], Last] = {}
        ids = sorted(set(image_ids))
        for start in range(0, len(ids), CHUNK):
            wanted = sa.select(*_LAST).where(states.c.image_id.in_(ids[start : start + CHUNK]))
            for image_id, place, verdict, evidence, at, full_verdict, full_at in self.database.rows(wanted):
                found[image_id, place] = ledger_rows.last(verdict, evidence, at, full_verdict, full_at)
        return found

    def keys(self, image_ids: Collection[str], condition: sa.ColumnElement[bool]) -> set[tuple[str, str]]:
        """Image id and `place_key` of these images' places whose rows of `replica_states` fulfil a condition."""
        found: set[tuple[str, str]] = set()
        ids = sorted(set(image_ids))
        for start in range(0, len(ids), CHUNK):
            wanted = sa.select(states.c.image_id, states.c.place).where(condition)
            found.update(self.database.tuples(wanted.where(states.c.image_id.in_(ids[start : start + CHUNK]))))
        return found

    def by_age(
        self, before: datetime, *, full: bool | None = None, page: int = 1000
    ) -> Iterator[tuple[str, str, Last]]:
        """Every place last looked at before that moment, the oldest look first: image id, `place_key`, what is known.

        With `full` True by the last look that read every byte; False: those of which there was none yet. No
        connection is held while the caller works.
        """
        column = states.c.full_checked_at if full else states.c.checked_at
        wanted = sa.select(*_LAST).where(column < before).order_by(column, states.c.image_id, states.c.place)
        if full is False:
            wanted = wanted.where(states.c.full_checked_at.is_(None))
        part = wanted
        while rows := self.database.rows(part.limit(page)):
            for image_id, place, *rest in rows:
                yield image_id, place, ledger_rows.last(*rest)
            end = rows[-1]
            at = end.full_checked_at if full else end.checked_at
            later = sa.tuple_(states.c.image_id, states.c.place) > sa.tuple_(end.image_id, end.place)
            part = wanted.where(column >= at, sa.or_(column > at, later))

    def now(self) -> datetime:
        """The database's time."""
        return self.database.read(clock)

    def history(self, image_id: str, limit: int = 50) -> list[Result]:
        """The last results of an image's locations, newest first."""
        wanted = sa.select(checks).where(checks.c.image_id == image_id)
        wanted = wanted.order_by(checks.c.checked_at.desc(), checks.c.id.desc()).limit(limit)
        return [ledger_rows.result(row) for row in self.database.rows(wanted)]

    def last_recorded(self) -> int:
        """The number of the newest result in the history; 0: there is none."""
        return int(self.database.rows(sa.select(sa.func.coalesce(sa.func.max(checks.c.id), 0)))[0][0])

    def recorded_since(self, number: int, image_id: str) -> list[Result]:
        """What came to the history of an image after that result, in the order it came, whatever its clocks say."""
        wanted = sa.select(checks).where(checks.c.image_id == image_id, checks.c.id > number).order_by(checks.c.id)
        return [ledger_rows.result(row) for row in self.database.rows(wanted)]

    def trim(self, older_than_seconds: float) -> int:
        """The history goes back this far at most; returns how many rows went. States stay."""
        end = self.database.read(clock) - timedelta(seconds=older_than_seconds)
        old = sa.select(checks.c.id).where(checks.c.checked_at < end).order_by(checks.c.id).limit(CHUNK)
        gone = 0
        while ids := [row.id for row in self.database.rows(old)]:  # in short transactions: others record meanwhile
            gone += self.database.change(checks.delete().where(checks.c.id.in_(ids)))
        return gone

    def request_withdrawal(
        self,
        location: Location,
        *,
        reason: str,
        who: str,
        proof: Mapping[str, object] | None = None,
        row_only: bool = False,
    ) -> int:
        """The removal of this copy is asked for; returns its number. `proof` is anything JSON can hold.

        With `row_only` no host is asked for anything until `hand_over`: the row is the caller's to withdraw.
        """
        row = ledger_rows.whereabouts(location) | {"location_id": location.row, "row_only": row_only}
        row |= {
            "reason": transactions.clean(redact_text(reason), ledger_rows.TEXT),
            "who": transactions.clean(who, 255),
        }
        row["proof"] = None if proof is None else json.dumps(dict(proof), default=str)

        def work(connection: sa.Connection) -> int:
            done = connection.execute(withdrawals.insert().values(row | {"requested_at": clock(connection)}))
            key = done.inserted_primary_key
            assert key is not None  # one row was inserted
            return int(key[0])

        return self.database.write(work)

    def pending_withdrawals(self, host: str) -> list[Withdrawal]:
        """What this host is still asked to remove, oldest first."""
        mine = sa.and_(withdrawals.c.host == host, withdrawals.c.row_only.is_not(sa.true()))
        wanted = sa.select(withdrawals).where(mine, withdrawals.c.finished_at.is_(None))
        return [ledger_rows.withdrawal(row) for row in self.database.rows(wanted.order_by(withdrawals.c.id))]

    def hand_over(self, withdrawal_id: int, proof: Mapping[str, object] | None = None) -> None:
        """The janitor of its host is to remove the file now, and to finish the request; a `proof` replaces its own."""
        this = withdrawals.update().where(withdrawals.c.id == withdrawal_id)
        told = {} if proof is None else {"proof": json.dumps(dict(proof), default=str)}
        self.database.change(this.values(row_only=False, finished_at=None, **told))

    def refuse_withdrawal(self, withdrawal_id: int, why: str) -> None:
        """It is not done, and its proof says why not."""
        this = withdrawals.c.id == withdrawal_id

        def work(connection: sa.Connection) -> None:
            proof = connection.execute(sa.select(withdrawals.c.proof).where(this)).scalar()
            told = json.dumps({**json.loads(proof or "{}"), "refused": transactions.clean(why, ledger_rows.TEXT)})
            connection.execute(withdrawals.update().where(this).values(proof=told, finished_at=utc_now()))

        self.database.write(work)

    def finish_withdrawal(self, withdrawal_id: int) -> None:
        """It is done; the first time counts."""
        this = sa.and_(withdrawals.c.id == withdrawal_id, withdrawals.c.finished_at.is_(None))
        self.database.change(withdrawals.update().where(this).values(finished_at=utc_now()))

    def withdrawals(
        self,
        limit: int = 100,
        *,
        image_ids: Collection[str] | None = None,
        host: str | None = None,
        within_seconds: float | None = None,
        is_open: bool = False,
    ) -> list[Withdrawal]:
        """The last requests, newest first: of these images, of this host, so recent; `is_open`: not yet done."""

        def work(connection: sa.Connection) -> list[Withdrawal]:
            wanted = sa.select(withdrawals).order_by(withdrawals.c.id.desc()).limit(limit)
            if image_ids is not None:
                wanted = wanted.where(withdrawals.c.image_id.in_(sorted(set(image_ids))))
            if host is not None:
                wanted = wanted.where(withdrawals.c.host == host)
            if within_seconds is not None:
                start = clock(connection) - timedelta(seconds=within_seconds)
                wanted = wanted.where(withdrawals.c.requested_at >= start)
            if is_open:
                wanted = wanted.where(withdrawals.c.finished_at.is_(None))
            return [ledger_rows.withdrawal(row) for row in connection.execute(wanted)]

        return self.database.read(work)

    def withdrawn(self, image_ids: Collection[str]) -> dict[tuple[str, int], Withdrawal]:
        """The last request for each row of Glance's that was named in one, by (image id, row)."""
        found: dict[tuple[str, int], Withdrawal] = {}
        ids = sorted(set(image_ids))
        for start in range(0, len(ids), CHUNK):
            chosen = withdrawals.c.image_id.in_(ids[start : start + CHUNK])
            wanted = sa.select(withdrawals).where(chosen, withdrawals.c.location_id.is_not(None))
            for row in self.database.rows(wanted.order_by(withdrawals.c.id)):
                found[row.image_id, row.location_id] = ledger_rows.withdrawal(row)
        return found

    def claim_fill(self, image_id: str, host: str, url: str, lease_seconds: float, *, done: int = 0) -> list[Fill]:
        """Others see for `lease_seconds` that this host is filling the image, `done` bytes so far. Renew in time.

        Returns what `fills` would. First claims take turns, so that of two hosts the one that started later always
        sees the other; on MariaDB, too, whose view of the table begins with the first plain read, after the turn.
        """
        this = sa.and_(fills.c.image_id == image_id, fills.c.host == host)

        def work(connection: sa.Connection) -> list[Fill]:
            row = _lease(connection, url, lease_seconds, done)
            held = fills.update().where(this, fills.c.expires_at >= row["renewed_at"])
            if not connection.execute(held.values(row)).rowcount:
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

    def all_fills(self) -> list[tuple[str, Fill]]:
        """Every fill in progress on any host with its image id: leases that hold, by image and host."""

        def work(connection: sa.Connection) -> list[tuple[str, Fill]]:
            now = clock(connection)
            held = sa.select(fills).where(fills.c.expires_at > now).order_by(fills.c.image_id, fills.c.host)
            return [(row.image_id, ledger_rows.fill(row, now)) for row in connection.execute(held)]

        return self.database.read(work)

    def fills(self, image_id: str, max_age_seconds: float) -> list[Fill]:
        """Who is filling the image: leases that hold, renewed in the last `max_age_seconds`; the longest first."""
        return self.database.read(lambda one: _fills(one, clock(one), image_id, max_age_seconds))


def _fills(connection: sa.Connection, now: datetime, image_id: str, max_age_seconds: float) -> list[Fill]:
    fresh = sa.and_(fills.c.expires_at > now, fills.c.renewed_at >= now - timedelta(seconds=max_age_seconds))
    rows = connection.execute(
        sa.select(fills).where(fills.c.image_id == image_id, fresh).order_by(fills.c.started_at, fills.c.host)
    )
    return [ledger_rows.fill(row, now) for row in rows]


def _lease(connection: sa.Connection, url: str, seconds: float, done: int) -> dict[str, Any]:
    now = clock(connection)
    return {"url": url, "renewed_at": now, "expires_at": now + timedelta(seconds=seconds), "bytes": done}


# No column more than is needed: a host whose tables are a version behind still finds the others.
_HOST = [hosts.c[name] for name in ("name", "zone", "url", "heartbeat", "files", "bytes_used", "bytes_free")]
_LAST = [states.c[name] for name in ("image_id", "place", "verdict", "evidence", "checked_at")]
_LAST += [states.c.full_verdict, states.c.full_checked_at]
