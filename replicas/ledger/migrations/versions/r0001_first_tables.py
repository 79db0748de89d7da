"""Hosts, checks and their latest state, withdrawals, fills."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the tables; the columns are written out, because the code's own definitions move on."""
    op.create_table(
        "replica_hosts",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("zone", sa.String(255)),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("heartbeat", _moment(), nullable=False),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("bytes_used", sa.BigInteger, nullable=False),
        sa.Column("bytes_free", sa.BigInteger, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        **MYSQL,
    )
    _checks()
    _withdrawals()
    op.create_table(
        "replica_fills",
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("started_at", _moment(), nullable=False),
        sa.Column("renewed_at", _moment(), nullable=False),
        sa.Column("expires_at", _moment(), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        **MYSQL,
    )


def _checks() -> None:
    op.create_table(
        "replica_checks",
        sa.Column("id", _key(), primary_key=True, autoincrement=True),
        sa.Column("image_id", sa.String(36), nullable=False),
        sa.Column("place", sa.String(64), nullable=False),
        *_looked(),
        **MYSQL,
    )
    op.create_index("ix_replica_checks_image_id", "replica_checks", ["image_id", "checked_at"])
    op.create_index("ix_replica_checks_checked_at", "replica_checks", ["checked_at"])
    op.create_table(
        "replica_states",
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("place", sa.String(64), primary_key=True),
        *_looked(),
        sa.Column("full_verdict", sa.String(20)),
        sa.Column("full_checked_at", _moment()),
        **MYSQL,
    )
    op.create_index("ix_replica_states_checked_at", "replica_states", ["checked_at"])


def _withdrawals() -> None:
    op.create_table(
        "replica_withdrawals",
        sa.Column("id", _key(), primary_key=True, autoincrement=True),
        sa.Column("image_id", sa.String(36), nullable=False),
        sa.Column("place", sa.String(64), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("proof", sa.Text),
        sa.Column("requested_at", _moment(), nullable=False),
        sa.Column("finished_at", _moment()),
        **MYSQL,
    )
    op.create_index("ix_replica_withdrawals_host", "replica_withdrawals", ["host", "finished_at"])


def _looked() -> list[sa.Column[Any]]:
    return [
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("evidence", sa.String(20), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("checked_at", _moment(), nullable=False),
    ]


def _moment() -> sa.types.TypeEngine[Any]:
    return sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _key() -> sa.types.TypeEngine[Any]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")
