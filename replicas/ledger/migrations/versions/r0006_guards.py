"""Rows that rivals on several nodes of a cluster both write, so that one of them fails."""

from alembic import op

from glance_replicas.ledger.migrations.guards import MYSQL, columns

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, unless it is there: on a cluster upgrades take turns by it."""
    op.create_table(
        "replica_guards",
        *columns(),
        if_not_exists=True,
        **MYSQL,
    )
