"""What hosts are asked to fetch ahead of need: for an image and a host one row, the latest request.

A row waits, runs and ends; the host that is asked does all of that by itself, whoever asked it and wherever that
program is by now. A row that runs belongs to no process: a host that starts again finds it due.
"""

import enum
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ..database import transactions
from ..database.chunks import chunks, distinct
from ..database.dialect import clock, upsert
from ..location import redact_text
from .schema.connection import LedgerDatabase
from .schema.rows import TEXT, age
from .schema.tables import copies, hosts

HIGH, NORMAL, LOW = 100, 0, -100
PRIORITIES = {"high": HIGH, "normal": NORMAL, "low": LOW}


class State(enum.StrEnum):
    """How far a request has come."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"  # a word of a newer version: nothing is done about it

    @classmethod
    def _missing_(cls, value: object) -> "State":
        return cls.UNKNOWN

    @property
    def is_open(self) -> bool:
        """There is still something to be done."""
        return self in OPEN


OPEN = (State.WAITING, State.RUNNING)


@dataclass(frozen=True)
class PrefetchRequest:
    """One request. Ages are by the database's clock; those of what has not happened yet are None."""

    image_id: str
    host: str
    state: State
    priority: int
    pin: bool  # the copy is to stay
    who: str
    age_seconds: float  # of the request
    ended_seconds: float | None  # since it was done, failed or cancelled
    wait_seconds: float  # until it is tried again
    attempts: int  # that failed one after the other, without a byte more
    bytes: int  # on the host so far
    size: int | None  # bytes of the image, once known
    detail: str


class PrefetchRequests:
    """Every method raises LedgerError when the ledger cannot be asked. Safe for threads and after a fork."""

    def __init__(self, ledger_database: LedgerDatabase) -> None:
        self._database = ledger_database

    def request(
        self,
        image_ids: Collection[str],
        hosts: Collection[str],
        *,
        who: str,
        priority: int = NORMAL,
        pin: bool = False,
    ) -> int:
        """Each host is to fetch each image; of how many copies that was not so before.

        A request that is still open goes on as it is, with the higher priority and with the pin if either has it; one
        that has ended begins anew. A row there says nothing of whether the host holds the image.
        """
        pairs = list(itertools.product(sorted(set(image_ids)), sorted(set(hosts))))
        asked = {"who": transactions.clean(who, 255), "priority": priority, "pin": pin}
        return sum(
            self._database.write(lambda connection, part=part: _ask(connection, part, asked))  # type: ignore[misc]
            for part in chunks(pairs)
        )

    def due(self, host: str, limit: int) -> list[PrefetchRequest]:
        """What this host is to do now: the highest priority first, of the same the oldest."""

        def work(connection: sa.Connection) -> list[PrefetchRequest]:
            now = clock(connection)
            ready = sa.or_(copies.c.not_before.is_(None), copies.c.not_before <= now)
            wanted = sa.select(copies).where(copies.c.host == host, _is_open(), ready)
            ordered = wanted.order_by(copies.c.priority.desc(), copies.c.requested_at, copies.c.image_id)
            return [_copying(row, now) for row in connection.execute(ordered.limit(limit))]

        return self._database.read(work)

    def progress(self, image_id: str, host: str, done: int, size: int) -> bool:
        """It runs, `done` bytes of `size` are there; False: it was cancelled, or has ended otherwise."""
        what = {"state": State.RUNNING, "bytes": done, "size": size, "detail": ""}
        return self._change(
            image_id,
            host,
            lambda now: what | {"started_at": sa.func.coalesce(copies.c.started_at, now), "renewed_at": now},
        )

    def finished(self, image_id: str, host: str, size: int) -> bool:
        """The host has the image, complete and verified; False: the request had ended before."""
        what = {"state": State.DONE, "bytes": size, "size": size, "detail": ""}
        return self._change(image_id, host, lambda now: what | {"finished_at": now})

    def failed(self, image_id: str, host: str, detail: str) -> bool:
        """It will not be tried again; False: the request had ended before."""
        what = {"state": State.FAILED, "detail": transactions.clean(redact_text(detail), TEXT)}
        return self._change(image_id, host, lambda now: what | {"finished_at": now})

    def put_off(self, image_id: str, host: str, detail: str, seconds: float, attempts: int) -> bool:
        """It waits, `seconds` at least, after so many attempts that failed; False: it was cancelled, or has ended."""
        what = {"state": State.WAITING, "detail": transactions.clean(redact_text(detail), TEXT), "attempts": attempts}
        return self._change(image_id, host, lambda now: what | {"not_before": now + timedelta(seconds=seconds)})

    def cancel(self, image_ids: Collection[str] | None = None, hosts: Collection[str] | None = None) -> int:
        """Open requests for these images on these hosts (None: all) are cancelled; how many there were."""
        gone = 0
        for part in distinct(image_ids) if image_ids is not None else [None]:
            which = [_is_open()]
            which += [] if part is None else [copies.c.image_id.in_(part)]
            which += [] if hosts is None else [copies.c.host.in_(sorted(set(hosts)))]
            gone += self._database.write(lambda connection, which=which: _cancel(connection, which))  # type: ignore[misc]
        return gone

    def list(
        self,
        image_ids: Collection[str] | None = None,
        hosts: Collection[str] | None = None,
        states: Collection[State] | None = None,
    ) -> list[PrefetchRequest]:
        """The requests for these images, on these hosts, in these states (None: any), oldest first."""
        wanted = sa.select(copies)
        for column, values in ((copies.c.host, hosts), (copies.c.state, states)):
            if values is not None:
                wanted = wanted.where(column.in_(sorted(set(values))))
        found: list[PrefetchRequest] = []
        for part in distinct(image_ids) if image_ids is not None else [None]:
            some = wanted if part is None else wanted.where(copies.c.image_id.in_(part))
            found += self._database.read(lambda connection, some=some: _listed(connection, some))  # type: ignore[misc]
        return sorted(found, key=lambda request: (-request.age_seconds, request.image_id, request.host))

    def trim(self, older_than_seconds: float) -> int:
        """Requests that ended longer ago are forgotten; how many."""

        def work(connection: sa.Connection) -> int:
            end = clock(connection) - timedelta(seconds=older_than_seconds)
            return connection.execute(copies.delete().where(sa.not_(_is_open()), copies.c.finished_at < end)).rowcount

        return self._database.write(work)

    def _change(self, image_id: str, host: str, values: Callable[[datetime], dict[str, Any]]) -> bool:
        """An open request gets the values of this moment."""
        this = sa.and_(copies.c.image_id == image_id, copies.c.host == host, _is_open())

        def work(connection: sa.Connection) -> bool:
            return connection.execute(copies.update().where(this).values(values(clock(connection)))).rowcount > 0

        return self._database.write(work)


def _ask(connection: sa.Connection, pairs: list[tuple[str, str]], asked: dict[str, Any]) -> int:
    """Requests take turns (on the row of a host), so that of two the higher priority stands."""
    connection.execute(sa.select(hosts.c.name).order_by(hosts.c.name).limit(1).with_for_update())
    key = sa.tuple_(copies.c.image_id, copies.c.host)
    still = sa.and_(key.in_(pairs), _is_open())
    higher = sa.case((copies.c.priority < asked["priority"], asked["priority"]), else_=copies.c.priority)
    raised = {"priority": higher} | ({"pin": True} if asked["pin"] else {})
    connection.execute(copies.update().where(still).values(raised))
    known = {tuple(row) for row in connection.execute(sa.select(copies.c.image_id, copies.c.host).where(still))}
    fresh = asked | {
        "state": State.WAITING,
        "requested_at": clock(connection),
        **dict.fromkeys(("started_at", "renewed_at", "finished_at", "not_before", "size")),
        "attempts": 0,
        "bytes": 0,
        "detail": "",
    }
    rows = [{"image_id": image_id, "host": host} | fresh for image_id, host in pairs if (image_id, host) not in known]
    if rows:
        upsert(connection, copies, rows)
    return len(rows)


def _cancel(connection: sa.Connection, which: list[Any]) -> int:
    ended = {"state": State.CANCELLED, "finished_at": clock(connection), "detail": ""}
    return connection.execute(copies.update().where(*which).values(ended)).rowcount


def _listed(connection: sa.Connection, wanted: sa.Select[Any]) -> list[PrefetchRequest]:
    now = clock(connection)
    return [_copying(row, now) for row in connection.execute(wanted)]


def _is_open() -> sa.ColumnElement[bool]:
    return copies.c.state.in_(OPEN)


def _copying(row: Any, now: datetime) -> PrefetchRequest:
    return PrefetchRequest(
        *(row.image_id, row.host, State(row.state), row.priority, bool(row.pin), row.who),
        *(age(row.requested_at, now), None if row.finished_at is None else age(row.finished_at, now)),
        max(0.0, (row.not_before - now).total_seconds()) if row.not_before else 0.0,
        *(row.attempts, row.bytes, row.size, row.detail),
    )
