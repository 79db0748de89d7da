"""Upgrades take turns on a Galera cluster, where the locks of a server are known to its own node only."""

import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import sqlalchemy as sa

from ...database import several_writers, transactions
from ...database.dialect import clock
from ...errors import LedgerError
from ..schema.tables import guards
from .guards import table

log = logging.getLogger(__name__)

SECONDS = 60.0  # how long the next one waits for an upgrade that was killed
WAIT_SECONDS = 600.0  # for an upgrade that runs; then this one ends with an error
_POLL_SECONDS = 1.0  # each look writes the row, and may make the holder write it twice
_NAME = "db upgrade"
_this = guards.c.name == _NAME


@contextlib.contextmanager
def held(engine: sa.Engine) -> Iterator[None]:
    """No other upgrade is at work, on any node; what those before have done is seen. Raises LedgerError after a while.

    Killed meanwhile: the next one goes on after a minute.
    """
    owner = f"{socket.gethostname()} {uuid.uuid4()}"
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
    _take(engine, owner)
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(engine, owner, over), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()
        _update(engine, owner, lambda _: None, "given back: the next upgrade waits up to a minute")


def _take(engine: sa.Engine, owner: str) -> None:
    def work(connection: sa.Connection) -> str | None:
        several_writers.guard(connection, _NAME)
        now = clock(connection)
        row = connection.execute(sa.select(guards.c.owner, guards.c.expires_at).where(_this)).one()
        if row.owner is not None and row.expires_at > now:
            return str(row.owner)
        until = now + timedelta(seconds=SECONDS)
        connection.execute(guards.update().where(_this).values(owner=owner, expires_at=until))
        return None

    end = time.monotonic() + WAIT_SECONDS
    while (other := transactions.writing(engine, work)) is not None:
        if time.monotonic() > end:
            raise LedgerError(
                f"another upgrade has been running on host {other.split()[0]} for {WAIT_SECONDS:.0f} s; when it has "
                "ended, run: replica db upgrade"
            )
        time.sleep(_POLL_SECONDS)


def _renew(engine: sa.Engine, owner: str, over: threading.Event) -> None:
    while not over.wait(SECONDS / 6):
        _update(engine, owner, lambda now: now + timedelta(seconds=SECONDS), "renewed")


def _update(engine: sa.Engine, owner: str, until: Callable[[datetime], datetime | None], what: str) -> None:
    """The lease holds until then; None: it is nobody's. A fault is logged: the lease ends by itself."""

    def work(connection: sa.Connection) -> int:
        end = until(clock(connection))
        mine = guards.update().where(_this, guards.c.owner == owner)
        return connection.execute(mine.values(owner=owner if end else None, expires_at=end)).rowcount

    try:
        if not transactions.writing(engine, work):
            log.error("the lease of this upgrade is another's by now: two upgrades may be running")
    except (sa.exc.SQLAlchemyError, transactions.Unsettled) as error:
        log.warning("the lease of this upgrade was not %s: %s", what, error)
