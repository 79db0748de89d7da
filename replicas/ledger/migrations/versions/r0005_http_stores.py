"""What each host calls its http store, so that `replica check` sees two that call it differently."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; NULL until the host's next pass."""
    op.add_column("replica_hosts", sa.Column("http_store", sa.String(255)))
