"""Glance's schema, made by `glance-manage db_sync`, once for each kind of database in a test run."""

import functools
import hashlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .. import need
from ..configuration import conf_text
from ..once import once
from ..process import run


def db_sync(url: str) -> None:
    """The database has the tables of the installed Glance."""
    with tempfile.TemporaryDirectory(prefix="glance-replicas-") as folder:
        conf = Path(folder, "glance-manage.conf")
        conf.write_text(conf_text({"database": {"connection": url.replace("%", "%%")}}))
        run([need("glance-manage"), "--config-file", conf, "db_sync"])


def ledger_url(database_url: str) -> str:
    """Where our own tables are when no option says otherwise."""
    from glance_replicas.settings import default_ledger

    return default_ledger(database_url)


def add_ledger(url: str) -> None:
    """The database has our own tables."""
    from glance_replicas.ledger.ledger import Ledger

    ledger = Ledger(url)
    try:
        ledger.upgrade()
    finally:
        ledger.close()


def query(url: str, statement: str, /, **values: Any) -> list[dict[str, Any]]:
    """What a SQL statement with `:name` values finds; a change is committed."""
    with _engine(url).begin() as connection:
        result = connection.execute(sa.text(statement), values)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []


@functools.cache
def _engine(url: str) -> sa.Engine:
    """It knows its server from the first call on; no connection is open between calls, so that a fork may use it."""
    return sa.create_engine(url, poolclass=sa.NullPool)


def add_image(url: str, image_id: str, data: bytes, status: str = "active") -> None:
    """Glance knows an image of these bytes, without locations, as if it had been uploaded."""
    query(
        url,
        "INSERT INTO images (id, name, size, status, created_at, updated_at, deleted, min_disk, min_ram, protected,"
        " visibility, os_hidden, os_hash_algo, os_hash_value, checksum) VALUES (:id, 'x', :size, :status,"
        " CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, :gone, 0, 0, :no, 'shared', :no, 'sha512', :digest, :md5)",
        id=image_id,
        size=len(data),
        status=status,
        gone=status == "deleted",
        no=False,
        digest=hashlib.sha512(data).hexdigest(),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )


def has_schema(url: str) -> bool:
    """Whether Glance's tables are there."""
    return sa.inspect(_engine(url)).has_table("images")


def _sqlite_template(folder: Path) -> None:
    path = folder / "glance.sqlite"
    db_sync(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")  # stays with the file; readers do not wait for the writer
    connection.close()


def sqlite_database(path: Path) -> str:
    """The URL of a new SQLite database at `path` with Glance's tables."""
    shutil.copyfile(once("schema", _sqlite_template) / "glance.sqlite", path)
    return sqlite_url(path)


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file; a busy database is waited for, half a minute at most."""
    return f"sqlite:///{path}?timeout=30"
