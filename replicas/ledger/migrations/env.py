"""What Alembic runs for every command: migrate over the connection `migrations.upgrade` hands in."""

import logging
import time
from typing import Any

import sqlalchemy as sa
from alembic import context

from glance_replicas.ledger.schema.tables import PREFIX, VERSION_TABLE, metadata

log = logging.getLogger("glance_replicas.ledger.migrations")


def is_ours(name: str | None, kind: str, _: Any) -> bool:
    """Whether Alembic may look at this: never at Glance's tables, which share the database."""
    return kind != "table" or (name is not None and name.startswith(PREFIX))


def migrate(connection: sa.Connection) -> None:
    """Run the wanted migrations, logging the seconds each took."""
    last = time.monotonic()

    def applied(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
        nonlocal last
        now = time.monotonic()
        log.info("migration %s took %.1f s", step.up_revision_id, now - last)
        last = now

    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=is_ours,
        on_version_apply=applied,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


migrate(context.config.attributes["connection"])
