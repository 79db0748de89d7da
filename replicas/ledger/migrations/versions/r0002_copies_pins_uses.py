"""Copies that hosts are asked to fetch, copies that stay, and how much images are used."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the tables; the columns are written out, because the code's own definitions move on."""
    op.create_table(
        "replica_copies",
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("pin", sa.Boolean, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("requested_at", _moment(), nullable=False),
        sa.Column("started_at", _moment()),
        sa.Column("renewed_at", _moment()),
        sa.Column("finished_at", _moment()),
        sa.Column("not_before", _moment()),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("detail", sa.Text, nullable=False),
        **MYSQL,
    )
    op.create_index("ix_replica_copies_host", "replica_copies", ["host", "state"])
    op.create_table(
        "replica_pins",
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("pinned_at", _moment(), nullable=False),
        **MYSQL,
    )
    op.create_index("ix_replica_pins_host", "replica_pins", ["host"])
    op.create_table(
        "replica_uses",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("downloads", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("hit_bytes", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_index("ix_replica_uses_image_id", "replica_uses", ["image_id", "day"])


def _moment() -> sa.types.TypeEngine[Any]:
    return sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
