"""Rows that rivals on several nodes of a cluster both write, so that one of them fails."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the table, unless it is there: on a cluster upgrades take turns by it."""
    op.create_table(
        "replica_guards",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("expires_at", sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")),
        if_not_exists=True,
        **MYSQL,
    )
