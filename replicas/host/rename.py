"""What the ledger keeps for a host under the name that it had before is kept under its new one."""

import sqlalchemy as sa

from ..ledger.schema.connection import LedgerDatabase
from ..ledger.schema.tables import copies, pins, withdrawals


def rename(ledger_database: LedgerDatabase, old: str, new: str) -> None:
    """Pins, copies asked for and removals asked for, in one transaction. Raises LedgerError.

    What the new name has already stays as it is. The old name's own row goes when its registrations have gone.
    """

    def work(connection: sa.Connection) -> None:
        for table in (pins, copies):
            held = sa.select(table.c.image_id).where(table.c.host == new)
            ours = {row.image_id for row in connection.execute(held)}
            for row in connection.execute(sa.select(table.c.image_id).where(table.c.host == old)).all():
                this = sa.and_(table.c.image_id == row.image_id, table.c.host == old)
                if row.image_id in ours:
                    connection.execute(table.delete().where(this))
                else:
                    connection.execute(table.update().where(this).values(host=new))
        is_open = sa.and_(withdrawals.c.host == old, withdrawals.c.finished_at.is_(None))
        connection.execute(withdrawals.update().where(is_open).values(host=new))

    ledger_database.write(work)
