"""Which host has which image: one row of ours for each cached copy, whether Glance's table has one for it or not."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the table, its index and the hosts' column; each may be there, of an upgrade that was killed (MariaDB)."""
    moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    op.create_table(
        "replica_cached",
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("since", moment, nullable=False),
        sa.Column("gone_at", moment),
        if_not_exists=True,
        **MYSQL,
    )
    op.create_index("ix_replica_cached_image_id", "replica_cached", ["image_id"], if_not_exists=True)
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("replica_hosts")}
    if "counted_at" not in there:
        op.add_column("replica_hosts", sa.Column("counted_at", moment))
