"""URLs and texts in our tables lose credentials that earlier versions held for a part of a path. No table changes."""

from alembic import op

from glance_replicas.ledger.migrations.redaction import redact_rows

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take them out."""
    redact_rows(op.get_bind())
