"""Verification runs that machines share, looks that hosts are asked for, what no row or no file belongs to, and which
of Glance's rows a withdrawal was about.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    """Make the tables; the columns are written out, because the code's own definitions move on."""
    op.create_table(
        "replica_runs",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("started_at", _moment(), nullable=False),
        sa.Column("finished_at", _moment()),
        **MYSQL,
    )
    op.create_table(
        "replica_claims",
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("place", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("expires_at", _moment(), nullable=False),
        **MYSQL,
    )
    op.create_index("ix_replica_claims_expires_at", "replica_claims", ["expires_at"])
    op.create_table(
        "replica_looks",
        sa.Column("image_id", sa.String(36), primary_key=True),
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("rate", sa.BigInteger),
        sa.Column("requested_at", _moment(), nullable=False),
        sa.Column("renewed_at", _moment()),
        **MYSQL,
    )
    op.create_index("ix_replica_states_full_checked_at", "replica_states", ["full_checked_at"])
    op.create_index("ix_replica_looks_host", "replica_looks", ["host", "requested_at"])
    op.create_table(
        "replica_strays",
        sa.Column("place", sa.String(255), primary_key=True),
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("image_id", sa.String(36)),
        sa.Column("size", sa.BigInteger),
        sa.Column("first_seen", _moment(), nullable=False),
        sa.Column("last_seen", _moment(), nullable=False),
        sa.Column("sightings", sa.Integer, nullable=False),
        **MYSQL,
    )
    op.add_column("replica_withdrawals", sa.Column("location_id", sa.BigInteger))
    op.add_column("replica_withdrawals", sa.Column("row_only", sa.Boolean))
    op.create_index("ix_replica_withdrawals_image_id", "replica_withdrawals", ["image_id"])


def _moment() -> sa.types.TypeEngine[Any]:
    return sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
