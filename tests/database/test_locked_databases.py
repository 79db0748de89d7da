"""A backup, a lock or a read-only server: reads go on, writes wait, and downloads begin all the same.

Sources: MariaDB MDEV-5336 (BACKUP STAGE), Percona's notes on FLUSH TABLES WITH READ LOCK.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from services.databases.schema import add_image
from services.databases.servers import MariaDB, Postgres
from services.glance.site import GlanceHost, GlanceSite
from support.worlds.scenes import new_image, settle

from glance_replicas.catalogue.images import Catalogue, LockedImage
from glance_replicas.errors import CatalogueError
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host
from glance_replicas.settings import default_ledger

SIZE = (3 << 20) + 17
FIRST_BYTE = 3.0  # seconds
CLIENTS = 16
IMAGE = "70000000-0000-4000-8000-000000000001"


@contextmanager
def a_host(folder: Path, url: str | None) -> Iterator[GlanceHost]:
    """A host that knows of another one: a fill has to be claimed before its first byte."""
    with GlanceSite(folder, url, options={"replicas": {"janitor_interval_seconds": "2"}}) as made:
        ledger = Ledger(default_ledger(made.database_url))
        ledger.upgrade()
        ledger.heartbeat(Host("other", "zone-b", "http://127.0.0.9:9"))
        ledger.close()
        yield made.add_host("127.0.0.2", processes=1, threads=CLIENTS + 4)


@contextmanager
def held(url: str, *statements: str, undo: str = "") -> Iterator[None]:
    """One more session has said this; it is over in the end."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    raw = engine.raw_connection()
    driver: Any = raw.dbapi_connection
    if engine.dialect.name == "sqlite":
        driver.isolation_level = None  # no transaction of its own
    elif engine.dialect.name == "postgresql":
        driver.autocommit = True
    cursor = raw.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
        yield
    finally:
        for statement in filter(None, undo.split("; ")):
            cursor.execute(statement)
        raw.invalidate()
        engine.dispose()


def first_byte(host: GlanceHost, image_id: str) -> tuple[float, bytes]:
    """Seconds until the first byte of a download, and all of its bytes."""
    began = time.monotonic()
    answer = host.client().download(image_id, stream=True)
    assert answer.status_code == 200
    body = answer.iter_content(65536)
    first = next(body)
    return time.monotonic() - began, first + b"".join(body)


def shown(host: GlanceHost, image_id: str) -> tuple[float, str]:
    """Seconds until the image's document is there, and the signed URL of this host in it."""
    began = time.monotonic()
    (url,) = (one["url"] for one in host.client().replicas(image_id)["replicas"] if one["host"] == host.name)
    return time.monotonic() - began, str(url)


def opened(url: str) -> tuple[float, int]:
    """Seconds until a signed URL has sent all, and how many bytes these were."""
    began = time.monotonic()
    with requests.Session() as session:
        session.trust_env = False
        body = session.get(url, timeout=90).content
    return time.monotonic() - began, len(body)


def downloads(host: GlanceHost, url: str, *statements: str, undo: str = "") -> None:
    """Many misses at once, a hit, the document and a signed URL while the lock is held; the row comes afterwards."""
    image_id, data = new_image(host, SIZE)
    hit, _ = new_image(host, SIZE)
    assert host.client().download(hit).status_code == 200
    settle(lambda: host.name in registered(host, hit))
    with held(url, *statements, undo=undo):
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = list(pool.map(lambda _: first_byte(host, image_id), range(CLIENTS)))
        assert all(body == data for _, body in found)
        assert max(seconds for seconds, _ in found) < FIRST_BYTE, "misses"
        assert first_byte(host, image_id)[0] < FIRST_BYTE, "a hit or a follower"
        assert first_byte(host, hit)[0] < FIRST_BYTE, "a hit"
        seconds, signed = shown(host, hit)
        assert seconds < FIRST_BYTE, "the document"
        seconds, length = opened(signed)
        assert (length, seconds < FIRST_BYTE) == (SIZE, True), "a signed URL"
    settle(lambda: host.name in registered(host, image_id), 90)


def registered(host: GlanceHost, image_id: str) -> list[str | None]:
    """The hosts that have a row of the image."""
    return [one["metadata"].get("replica_host") for one in host.site.locations(image_id)]


def test_mariadb_is_backed_up(mariadb: MariaDB, tmp_path: Path) -> None:
    """Under MariaDB's global read lock, in a backup's last stage and read-only first bytes come at once, rows later."""
    url = mariadb.create_glance("locked")
    with a_host(tmp_path / "site", mariadb.ordinary(url)) as host:
        downloads(host, url, "FLUSH TABLES WITH READ LOCK")
        downloads(host, url, "BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT")
        downloads(host, url, "SET GLOBAL read_only = 1", undo="SET GLOBAL read_only = 0")


def test_postgresql_is_locked(postgres: Postgres, tmp_path: Path) -> None:
    """With a table of ours locked, or the database read-only, on PostgreSQL: the same."""
    with a_host(tmp_path / "site", postgres.create_glance("locked")) as host:
        url = host.site.database_url
        downloads(host, url, "BEGIN", "LOCK TABLE replica_fills IN ACCESS EXCLUSIVE MODE")
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'locked'"
        others += " AND pid != pg_backend_pid()"
        change = "ALTER DATABASE locked SET default_transaction_read_only = "
        downloads(host, url, f"{change} on", others, undo=f"{change} off; {others}")


def test_sqlite_is_locked(tmp_path: Path) -> None:
    """While another process holds the file of the ledger on SQLite: the same."""
    with a_host(tmp_path / "site", None) as host:
        downloads(host, host.site.ledger_url, "BEGIN EXCLUSIVE")


def test_a_commit_that_may_not_be_is_refused(mariadb: MariaDB) -> None:
    """A global lock outlasts what the server lets a commit wait for it (1205): it says so, and nothing was changed."""
    url = mariadb.create_glance("test_refused_commit")
    catalogue = Catalogue(f"{url}&init_command=SET+SESSION+lock_wait_timeout%3D1")
    add_image(url, IMAGE, b"x")
    catalogue.add(IMAGE, "file:///a", {})
    with ExitStack() as backup:

        def decide(locked: LockedImage) -> None:
            assert locked.withdraw(locked.image.locations[0])
            backup.enter_context(held(url, "FLUSH TABLES WITH READ LOCK", undo="UNLOCK TABLES"))

        with pytest.raises(CatalogueError, match="Lock wait timeout exceeded") as refused:
            catalogue.decide(IMAGE, decide)
    assert "not known" not in str(refused.value)
    image = catalogue.image(IMAGE)
    assert image is not None
    assert len(image.locations) == 1
    catalogue.close()
