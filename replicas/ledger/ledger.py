"""Our own tables: one object for what most callers ask, one module for each question.

URLs are kept redacted: a place is known by the hash of what identifies it (`place_key`), and whoever needs
the real URL takes it from the catalogue.
"""

from datetime import datetime

from ..database import several_writers
from ..database.dialect import clock
from . import migrations
from .fills import Fills
from .hosts import HostRows
from .removals import Removals
from .results import Results
from .schema.connection import LedgerDatabase
from .schema.rows import FillClaim, Withdrawal, place_key, url_key

__all__ = ["FillClaim", "Ledger", "Withdrawal", "place_key", "url_key"]


class Ledger(HostRows, Results, Removals, Fills):
    """Our tables, in Glance's database or elsewhere. Every method raises LedgerError when it cannot be asked.

    Safe for threads and after a fork. Ages are by the database's clock, so hosts need not agree on the time.
    """

    def __init__(self, url: str, rivals: several_writers.Rivals = several_writers.RIVALS) -> None:
        self.database, self._rivals = LedgerDatabase(url), rivals

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

    def now(self) -> datetime:
        """The database's time."""
        return self.database.read(clock)
