"""Upgrades take turns on a Galera cluster, where the locks of a server are known to its own node only."""

import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta

import sqlalchemy as sa

from ...database import several_writers, transactions
from ...database.dialect import clock
from ...errors import LedgerError
from ..tables import guards

log = logging.getLogger(__name__)

SECONDS = 60.0  # how long the next one waits for an upgrade that was killed
WAIT_SECONDS = 600.0
_NAME = "db upgrade"
_this = guards.c.name == _NAME


@contextlib.contextmanager
def held(engine: sa.Engine) -> Iterator[None]:
    """No other upgrade is at work, on any node; what those before have done is seen. Raises LedgerError after a while.

    Killed meanwhile: the next one goes on after a minute.
    """
    owner = f"{socket.gethostname()} {uuid.uuid4()}"
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateTable(guards, if_not_exists=True))
    _take(engine, owner)
    over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(engine, owner, over), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        over.set()
        renewal.join()
        mine = guards.update().where(_this, guards.c.owner == owner)
        transactions.writing(engine, lambda one: one.execute(mine.values(owner=None, expires_at=None)))


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
            raise LedgerError(f"another upgrade is at work for {WAIT_SECONDS:.0f} s: on host {other.split()[0]}")
        time.sleep(0.2)


def _renew(engine: sa.Engine, owner: str, over: threading.Event) -> None:
    def work(connection: sa.Connection) -> None:
        until = clock(connection) + timedelta(seconds=SECONDS)
        connection.execute(guards.update().where(_this, guards.c.owner == owner).values(expires_at=until))

    while not over.wait(SECONDS / 6):
        try:
            transactions.writing(engine, work)
        except (sa.exc.SQLAlchemyError, transactions.Unsettled) as error:
            log.warning("the lease of this upgrade was not renewed: %s", error)
