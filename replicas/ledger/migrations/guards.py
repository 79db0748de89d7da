"""The table `replica_guards` as revision 0006 makes it. It stays as it is: what comes later is a revision of its own.

An upgrade on a Galera cluster makes it before all revisions: they take turns by it.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def columns() -> list[sa.Column[Any]]:
    """New ones with each call, since a column belongs to one table."""
    moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    return [
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("expires_at", moment),
    ]


table = sa.Table("replica_guards", sa.MetaData(), *columns(), **MYSQL)
