"""Our own tables, their clock and their upsert, on SQLite, PostgreSQL and MariaDB.

Every moment is written by the database's clock or converted to UTC, and read back aware. Columns change here
and in a migration together; a test compares the two.
"""

from typing import Any

import sqlalchemy as sa

from ...database.dialect import Moment

PREFIX = "replica_"
VERSION_TABLE = "replica_alembic_version"


metadata = sa.MetaData()

_Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # the only integer SQLite counts up by itself


def _table(name: str, *parts: sa.schema.SchemaItem) -> sa.Table:
    """Host names and ids are told apart by case everywhere, as on PostgreSQL and SQLite."""
    return sa.Table(
        PREFIX + name, metadata, *parts, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin"
    )


def _looked() -> list[sa.Column[Any]]:
    """What one verification of one location left."""
    return [
        sa.Column("url", sa.Text, nullable=False),  # redacted
        sa.Column("host", sa.String(255)),  # None: durable
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("evidence", sa.String(20), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger),  # bytes
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("checked_at", Moment, nullable=False),
    ]


hosts = _table(
    "hosts",
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("zone", sa.String(255)),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("heartbeat", Moment, nullable=False),
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("bytes_used", sa.BigInteger, nullable=False),
    sa.Column("bytes_free", sa.BigInteger, nullable=False),
    sa.Column("version", sa.String(64), nullable=False),  # of this package
    sa.Column("http_store", sa.String(255)),  # what the host calls its http store
    sa.Column("counted_at", Moment),  # when `cached` last had every copy of the host that Glance's table has
)

cached = _table(
    "cached",
    sa.Column("host", sa.String(255), primary_key=True),  # first: a pass reads its own rows, in one piece
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("since", Moment, nullable=False),  # of the registration
    sa.Column("gone_at", Moment),  # None: the copy is there
    sa.Index("ix_replica_cached_image_id", "image_id"),
)

checks = _table(
    "checks",
    sa.Column("id", _Key, primary_key=True, autoincrement=True),
    sa.Column("image_id", sa.String(36), nullable=False),
    sa.Column("place", sa.String(64), nullable=False),  # ledger.place_key
    *_looked(),
    sa.Index("ix_replica_checks_image_id", "image_id", "checked_at"),
    sa.Index("ix_replica_checks_checked_at", "checked_at"),
)

states = _table(
    "states",
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("place", sa.String(64), primary_key=True),
    *_looked(),
    sa.Column("full_verdict", sa.String(20)),  # of the last verification that read every byte
    sa.Column("full_checked_at", Moment),
    sa.Index("ix_replica_states_checked_at", "checked_at"),
    sa.Index("ix_replica_states_full_checked_at", "full_checked_at"),
)

withdrawals = _table(
    "withdrawals",
    sa.Column("id", _Key, primary_key=True, autoincrement=True),
    sa.Column("image_id", sa.String(36), nullable=False),
    sa.Column("place", sa.String(64), nullable=False),
    sa.Column("url", sa.Text, nullable=False),  # redacted
    sa.Column("host", sa.String(255)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("proof", sa.Text),  # JSON
    sa.Column("requested_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),
    sa.Column("location_id", sa.BigInteger),  # of Glance's row, which keeps it when a stale save brings it back
    sa.Column("row_only", sa.Boolean),  # nothing for the janitor of the host, or not yet
    sa.Index("ix_replica_withdrawals_host", "host", "finished_at"),
    sa.Index("ix_replica_withdrawals_image_id", "image_id"),
)

fills = _table(
    "fills",
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),  # where a follower reads it, unsigned
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("renewed_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # written so far
)

copies = _table(
    "copies",
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),  # that is to have the copy
    sa.Column("state", sa.String(20), nullable=False),  # copies.State
    sa.Column("priority", sa.Integer, nullable=False),  # the highest first
    sa.Column("pin", sa.Boolean, nullable=False),  # the copy is to stay once it is there
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("requested_at", Moment, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("renewed_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("not_before", Moment),  # of the next try
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # on the host so far
    sa.Column("size", sa.BigInteger),  # bytes of the image, once known
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("ix_replica_copies_host", "host", "state"),
)

pins = _table(
    "pins",
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("pinned_at", Moment, nullable=False),
    sa.Index("ix_replica_pins_host", "host"),
)

uses = _table(
    "uses",
    sa.Column("day", sa.Date, primary_key=True),  # UTC
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("downloads", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),  # sent to clients
    sa.Column("hit_bytes", sa.BigInteger, nullable=False),  # of these, from a complete cached file
    sa.Index("ix_replica_uses_image_id", "image_id", "day"),
)

runs = _table(
    "runs",
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("options", sa.Text, nullable=False),  # JSON: what is verified, and how deep
    sa.Column("started_at", Moment, nullable=False),  # a result from before is not of this run
    sa.Column("finished_at", Moment),
)

claims = _table(
    "claims",
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("place", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),  # the process that verifies
    sa.Column("expires_at", Moment, nullable=False),
    sa.Index("ix_replica_claims_expires_at", "expires_at"),
)

verify_requests = _table(
    "looks",
    sa.Column("image_id", sa.String(36), primary_key=True),
    sa.Column("host", sa.String(255), primary_key=True),  # that is to read its own file
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("rate", sa.BigInteger),  # bytes per second at most; None: as fast as it can
    sa.Column("requested_at", Moment, nullable=False),
    sa.Column("renewed_at", Moment),  # while the host reads
    sa.Index("ix_replica_looks_host", "host", "requested_at"),
)

orphans = _table(
    "strays",
    sa.Column("place", sa.String(255), primary_key=True),  # host:NAME or store:ID
    sa.Column("key", sa.String(64), primary_key=True),  # sha256 of the name
    sa.Column("name", sa.Text, nullable=False),  # file or object, without credentials
    sa.Column("kind", sa.String(20), nullable=False),  # dark or lost
    sa.Column("image_id", sa.String(36)),
    sa.Column("size", sa.BigInteger),  # bytes
    sa.Column("first_seen", Moment, nullable=False),
    sa.Column("last_seen", Moment, nullable=False),
    sa.Column("sightings", sa.Integer, nullable=False),
)

guards = _table(
    "guards",  # `database.several_writers` writes them
    sa.Column("name", sa.String(64), primary_key=True),  # an image's id, or what else one transaction at a time decides
    sa.Column("n", sa.BigInteger, nullable=False),  # other than before with each
    sa.Column("owner", sa.String(255)),  # of a lease on the name
    sa.Column("expires_at", Moment),
)
