"""What an error of a database means, as far as the remedy differs: by MariaDB's numbers, and PostgreSQL's states."""

import enum
import sqlite3

import sqlalchemy as sa


class Fault(enum.Enum):
    """What kind of failure a database reported, as far as the remedy differs."""

    CONFLICT = "conflict"  # the transaction was rolled back for another's sake: do it again
    NO_QUORUM = "no quorum"  # this node of a cluster does nothing now; the next connection may be to another one
    NO_TABLE = "no table"  # or a table of another version
    OTHER = "other"


_POSTGRES = {"40001": Fault.CONFLICT, "40P01": Fault.CONFLICT, "42P01": Fault.NO_TABLE, "42703": Fault.NO_TABLE}
_MYSQL = {  # 1020 is innodb_snapshot_isolation, 1205 not among them: that wait was long enough
    1213: Fault.CONFLICT,
    1020: Fault.CONFLICT,
    1146: Fault.NO_TABLE,
    1054: Fault.NO_TABLE,
    1047: Fault.NO_QUORUM,
}
_REFUSED = {  # what MariaDB and MySQL answer to a COMMIT that they have not done; 1180 is none: other nodes may have it
    1205,  # a global lock outlasted lock_wait_timeout; rolled back
    1290,  # read-only by now; rolled back
    1836,
}
_REFUSED_STATES = ("23", "25", "40")  # classes of PostgreSQL's: constraints that were put off, read-only, conflicts
_UNSETTLED_STATE = "40003"  # statement completion unknown


def fault(error: BaseException) -> Fault:
    """What kind of failure this error stands for."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        return _sqlite_fault(cause)
    number, state = _codes(error)
    return _POSTGRES.get(state, Fault.OTHER) if number is None else _MYSQL.get(number, Fault.OTHER)


def is_refusal(error: sa.exc.DBAPIError) -> bool:
    """Of an error of a COMMIT, whether the server itself says that it has not done it: anything else is no answer."""
    if isinstance(error.orig, sqlite3.Error) or fault(error) in (Fault.CONFLICT, Fault.NO_QUORUM):
        return True
    number, state = _codes(error)
    return number in _REFUSED or (state != _UNSETTLED_STATE and state.startswith(_REFUSED_STATES))


def _codes(error: BaseException) -> tuple[int | None, str]:
    """The number that MariaDB and MySQL give an error, and PostgreSQL's state; None and nothing where there is none."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    number = next(iter(getattr(cause, "args", ())), None)
    if isinstance(number, int):  # the drivers of MariaDB and MySQL
        return number, ""
    return None, str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")  # psycopg, psycopg2


def _sqlite_fault(cause: sqlite3.Error) -> Fault:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Fault.CONFLICT
    absent = str(cause).startswith(("no such table", "no such column")) or "has no column named" in str(cause)
    return Fault.NO_TABLE if absent else Fault.OTHER
