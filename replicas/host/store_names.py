"""What each host calls its http store, as its janitor told the ledger.

The rows do not tell: whichever host answers a GET writes its own name into every http location, so that the host that
answered last sees its own name everywhere.
"""

import logging
from collections.abc import Mapping

import sqlalchemy as sa

from ..errors import LedgerError
from ..ledger.schema.connection import LedgerDatabase
from ..ledger.schema.tables import hosts

log = logging.getLogger(__name__)


def tell(database: LedgerDatabase, host: str, store: str | None) -> None:
    """The ledger has the name, if it has the host; tables a version behind have no place for it, and do no harm.

    Each pass calls it: written is only what differs. Killed here leaves the name of before, until the next pass.
    """
    is_host = hosts.c.name == host
    try:
        if any(row.http_store != store for row in database.rows(sa.select(hosts.c.http_store).where(is_host))):
            database.change(hosts.update().where(is_host).values(http_store=store))
    except LedgerError as error:
        log.info("host %s: the name of its http store is not in the ledger: %s", host, error)


def told(database: LedgerDatabase) -> Mapping[str, str]:
    """The name by host, of those that told one. Raises LedgerError."""
    rows = database.rows(sa.select(hosts.c.name, hosts.c.http_store).where(hosts.c.http_store.is_not(None)))
    return {row.name: row.http_store for row in rows}
