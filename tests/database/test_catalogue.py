"""Glance's rows, beside the installed Glance, on three databases."""

import json
import logging
import multiprocessing
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from glance import context as glance_context
from glance.common import crypt as glance_crypt
from glance.common import exception as glance_exception
from glance.db import ImageRepo
from glance.db.sqlalchemy import models
from oslo_config import cfg
from oslo_db import exception as db_exception
from services import eventually
from sqlalchemy.dialects import mysql, postgresql, sqlite

from glance_replicas.catalogue import encryption, tables
from glance_replicas.catalogue.images import Catalogue, LockedImage
from glance_replicas.database import transactions
from glance_replicas.errors import CatalogueError, ConfigError, Refused
from glance_replicas.location import replica_url
from glance_replicas.model import Digest, Image, Location

HERE = {"replica_host": "host-1", "replica_zone": "z", "store": "http"}
on_host = partial(replica_url, "http://h")  # the URL of an image's copy on that host
KEY = "0123456789abcdef"
ROW = {"disk_format": "raw", "container_format": "bare", "visibility": "shared"}


@pytest.fixture
def catalogue(glance_database_url: str) -> Iterator[Catalogue]:
    """The catalogue of an empty Glance."""
    made = Catalogue(glance_database_url)
    yield made
    made.close()


@pytest.fixture
def glance_key() -> Iterator[str]:
    """Glance encrypts URLs with this key."""
    cfg.CONF.set_override("metadata_encryption_key", KEY)
    yield KEY
    cfg.CONF.clear_override("metadata_encryption_key")


@pytest.fixture
def engine(glance_database_url: str) -> Iterator[sa.Engine]:
    """Another way in."""
    made = transactions.engine(glance_database_url)
    yield made
    made.dispose()


def admin() -> Any:
    return glance_context.RequestContext(is_admin=True, roles=["admin"], project_id="p1")


def new(glance: ModuleType, *urls: str, **values: Any) -> str:
    """An image in Glance's database, with durable locations."""
    places = [{"url": url, "metadata": {"store": "fast"}, "status": "active"} for url in urls]
    made = glance.image_create(admin(), ROW | {"status": "active", "owner": "p1", "locations": places} | values)
    return str(made["id"])


def rows(engine: sa.Engine, image_id: str) -> list[Any]:
    """Every location row of an image, whatever its state."""
    table = models.ImageLocation.__table__
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table).where(table.c.image_id == image_id).order_by(table.c.id)))


def urls(image: Image | None) -> list[str]:
    assert image is not None
    return [one.url for one in image.locations]


def fill(url: str, images: int, locations: int) -> None:
    """Many images with many locations each, made inside the database, which is fast."""
    engine = transactions.engine(url)
    number = {
        "sqlite": "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {0}) SELECT n FROM c)",
        "postgresql": "(SELECT generate_series(1, {0}) AS n)",
    }.get(engine.dialect.name, "(SELECT seq AS n FROM seq_1_to_{0})")
    join = "||" if engine.dialect.name != "mysql" else None
    name = "'00000000-0000-4000-8000-' || substr('000000000000' || s.n, -12)"
    if engine.dialect.name == "postgresql":
        name = "'00000000-0000-4000-8000-' || lpad(s.n::text, 12, '0')"
    if join is None:
        name = "concat('00000000-0000-4000-8000-', lpad(s.n, 12, '0'))"
    with transactions.transaction(engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO images (id, status, created_at, deleted, min_disk, min_ram, protected, os_hidden, size,"
                f" visibility) SELECT {name}, 'active', '2026-01-01 00:00:00', :no, 0, 0, :no, :no, 7, 'public'"
                f" FROM {number.format(images)} AS s"
            ),
            {"no": False},
        )
        connection.execute(
            sa.text(
                "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, deleted)"
                " SELECT i.id, 'file:///somewhere/far/away/and/deep', '{\"store\": \"fast\"}', 'active',"
                f" '2026-01-01 00:00:00', :no FROM images AS i CROSS JOIN {number.format(locations)} AS s"
            ),
            {"no": False},
        )
    engine.dispose()


@pytest.mark.parametrize("table", [tables.images, tables.locations, tables.properties, tables.tags], ids=str)
def test_our_columns_are_glances(table: sa.Table) -> None:
    """Names, types on every database, nullability and keys are those of the installed Glance's models."""
    theirs = models.BASE.metadata.tables[table.name]
    for column in table.c:
        other = theirs.c[column.name]
        for dialect in (sqlite.dialect(), postgresql.dialect(), mysql.dialect()):
            assert column.type.compile(dialect) == other.type.compile(dialect), column
        assert (column.nullable, column.primary_key) == (other.nullable, other.primary_key), column
        assert str(getattr(column.server_default, "arg", None)) == str(getattr(other.server_default, "arg", None))
        assert {key.target_fullname for key in column.foreign_keys} == {
            key.target_fullname for key in other.foreign_keys
        }
    needed = {one.name for one in theirs.c if not one.nullable and one.server_default is None}
    assert table.name != "image_locations" or needed <= set(table.c.keys())  # what an INSERT must give


def test_tags_and_properties(catalogue: Catalogue, glance: ModuleType) -> None:
    """What Glance shows of each image, without what was taken away; images that have none are absent."""
    one = new(glance, properties={"os_distro": "ubuntu", "gone": "x", "empty": ""})
    glance.image_tag_set_all(admin(), one, ["golden", "latest"])
    other, bare = new(glance, properties={"os_distro": "debian"}), new(glance)
    glance.image_tag_create(admin(), one, "late")
    glance.image_tag_create(admin(), other, "gone")
    glance.image_tag_delete(admin(), other, "gone")
    glance.image_update(admin(), one, {"properties": {"os_distro": "ubuntu", "empty": ""}}, purge_props=True)
    assert catalogue.tags([one, other, bare]) == {one: {"golden", "latest", "late"}}
    assert catalogue.properties([one, other, bare]) == {
        one: {"os_distro": "ubuntu", "empty": ""},
        other: {"os_distro": "debian"},
    }
    assert catalogue.tags([]) == catalogue.properties([bare]) == {}


def test_add_is_what_glance_writes(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """A row of ours is Glance's own in every column, Glance reads it, and `updated_at` stays."""
    image_id = new(glance, "file:///a")
    before = glance.image_get(admin(), image_id)["updated_at"]
    glance.image_location_add(
        admin(), image_id, {"url": "http://h/1", "metadata": HERE | {"é": [1, None]}, "status": "active"}
    )
    assert catalogue.add(image_id, "http://h/2", HERE | {"é": [1, None]})
    theirs, ours = (dict(row._mapping) for row in rows(engine, image_id)[1:])
    with engine.connect() as connection:
        texts = connection.scalars(sa.text("SELECT meta_data FROM image_locations ORDER BY id")).all()
    assert texts[1] == texts[2]
    for name in ("created_at", "updated_at"):
        assert abs((theirs.pop(name) - ours.pop(name)).total_seconds()) < 5
    assert (theirs.pop("id") < ours.pop("id"), theirs.pop("value"), ours.pop("value")) == (
        True,
        "http://h/1",
        "http://h/2",
    )
    assert theirs == ours
    read = ImageRepo(admin(), glance).get(image_id).locations
    assert [(one["url"], one["metadata"]) for one in read][2] == ("http://h/2", HERE | {"é": [1, None]})
    assert glance.image_get(admin(), image_id)["updated_at"] == before


def test_add_twice_is_one_row(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """The same URL is one row, other metadata or not; once withdrawn it can be added again."""
    image_id = new(glance)
    assert catalogue.add(image_id, "http://h/1", HERE)
    assert not catalogue.add(image_id, "http://h/1", HERE)
    assert not catalogue.add(image_id, "http://h/1", {})
    assert len(rows(engine, image_id)) == 1
    assert catalogue.withdraw_url(image_id, "http://h/1") == 1
    assert catalogue.add(image_id, "http://h/1", HERE)
    assert [row.deleted for row in rows(engine, image_id)] == [True, False]


def test_add_only_to_images_that_live(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """Active and deactivated images take a location; any other state, and no image at all, is Refused."""
    assert catalogue.add(new(glance, status="deactivated"), "http://h/1", HERE)
    refused = [new(glance, status=status) for status in ("queued", "saving", "killed", "deleted", "pending_delete")]
    refused += [new(glance), str(uuid.uuid4())]
    glance.image_destroy(admin(), refused[5])  # deleted, its status left at active
    for image_id in refused:
        with pytest.raises(Refused, match=image_id):
            catalogue.add(image_id, "http://h/1", HERE)
        assert not rows(engine, image_id)


@pytest.mark.parametrize("text", ["\U0001f600", "\0", "\ud800"])
def test_characters_glance_refuses(catalogue: Catalogue, glance: ModuleType, text: str) -> None:
    """What utf8mb3 or PostgreSQL cannot hold is Refused everywhere; the rest of Unicode is stored and comes back."""
    image_id = new(glance)
    with pytest.raises(Refused, match="characters"):
        catalogue.add(image_id, f"http://h/{text}", HERE)
    if text == "\U0001f600":
        with pytest.raises(glance_exception.Invalid):
            glance.image_location_add(admin(), image_id, {"url": text, "metadata": {}, "status": "active"})
    assert catalogue.add(image_id, "http://h/ä€", HERE | {"note": "\U0001f600"})
    image = catalogue.image(image_id)
    assert urls(image) == ["http://h/ä€"]
    assert image is not None
    assert image.locations[0].metadata["note"] == "\U0001f600"


def add_some(url: str, image_ids: list[str], number: int) -> int:
    """One of many hosts: its own URL and a common one on each image; returns how many rows it made."""
    catalogue = Catalogue(url)
    added = sum(
        catalogue.add(image_id, f"http://h/{name}", HERE) for image_id in image_ids for name in (number, "common")
    )
    catalogue.close()
    return added


def test_many_add_at_once(glance_database_url: str, glance: ModuleType, engine: sa.Engine) -> None:
    """Threads and processes adding the same and different URLs leave each URL once, and lose none."""
    image_ids = [new(glance, "file:///a") for _ in range(4)]
    glance.get_engine().dispose()
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=add_some, args=(glance_database_url, image_ids, 100 + n)) for n in range(4)]
    for worker in workers:
        worker.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: add_some(glance_database_url, image_ids, n), range(8)))
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    expected = sorted(["file:///a", "http://h/common", *(f"http://h/{n}" for n in (*range(8), *range(100, 104)))])
    for image_id in image_ids:
        assert sorted(row.value for row in rows(engine, image_id)) == expected


def test_add_against_delete(catalogue: Catalogue, glance: ModuleType) -> None:
    """An add that races with Glance's DELETE is Refused or its row goes too: none outlives the image."""
    image_ids, outcomes = [new(glance, "file:///a") for _ in range(15)], []

    def add(image_id: str) -> None:
        try:
            outcomes.append(catalogue.add(image_id, on_host(image_id), HERE))
        except Refused:
            outcomes.append(False)

    def delete(image_id: str) -> None:
        """As glance.db.ImageRepo.remove: the status first, then the rows."""
        for step in (
            lambda: glance.image_update(admin(), image_id, {"status": "deleted"}),
            lambda: glance.image_destroy(admin(), image_id),
        ):
            eventually(lambda step=step: done(step))

    def done(step: Any) -> bool:
        try:
            step()
        except (
            db_exception.DBError,
            sa.exc.OperationalError,
        ):  # SQLite: Glance does not wait for a writer it has read before
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        for image_id in image_ids:
            list(pool.map(lambda one, image_id=image_id: one(image_id), (add, delete)))
    assert len(outcomes) == len(image_ids)
    assert set(catalogue.statuses(image_ids).values()) == {"deleted"}
    assert list(catalogue.of_host("host-1")) == []


def test_withdraw_is_one_row(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """Exactly that row goes, once; Glance sees the same. What comes later has its row again, and no more rows."""
    image_id, other = new(glance, "file:///a"), new(glance)
    catalogue.add(image_id, on_host(image_id), HERE)
    image = catalogue.image(image_id)
    assert image is not None
    [location] = image.cached
    assert not catalogue.withdraw(Location(other, location.url, HERE, location.row))
    assert catalogue.withdraw(location)
    assert not catalogue.withdraw(location)
    gone = rows(engine, image_id)[1]
    assert (gone.status, gone.deleted, gone.deleted_at == gone.updated_at) == ("deleted", True, True)
    elsewhere = f"http://127.0.0.9:9292/replicas/{image_id}"
    catalogue.add(image_id, elsewhere, {**HERE, "replica_host": "api9"})
    assert not catalogue.withdraw(location), "another's by now"
    assert urls(catalogue.image(image_id)) == ["file:///a", elsewhere]
    catalogue.add(image_id, on_host(image_id), HERE)
    assert len(rows(engine, image_id)) == 3
    with pytest.raises(Refused):
        catalogue.withdraw(Location(image_id, on_host(image_id), HERE))
    assert catalogue.withdraw_url(image_id, on_host(image_id)) == 1
    assert catalogue.withdraw_url(image_id, on_host(image_id)) == 0
    assert [one["url"] for one in ImageRepo(admin(), glance).get(image_id).locations] == ["file:///a", elsewhere]


def test_many_withdraw_at_once(catalogue: Catalogue, glance: ModuleType) -> None:
    """Of several that withdraw one row exactly one is told it did."""
    image_id = new(glance, "file:///a")
    image = catalogue.image(image_id)
    assert image is not None
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(catalogue.withdraw, image.locations * 6)) == [False] * 5 + [True]


def test_encrypted_urls(glance_database_url: str, glance: ModuleType, engine: sa.Engine, glance_key: str) -> None:
    """With metadata_encryption_key Glance reads our rows, we read Glance's, and no URL is in the clear."""
    catalogue, repo = Catalogue(glance_database_url, glance_key), ImageRepo(admin(), glance)
    image_id, theirs = new(glance), "swift://u:pä@h/c/o"
    image = repo.get(image_id)
    image.locations = [{"url": theirs, "metadata": {}, "status": "active"}]
    repo.save(image)
    assert catalogue.add(image_id, "http://h/1", HERE)
    assert not catalogue.add(image_id, "http://h/1", HERE)
    assert not catalogue.add(image_id, theirs, HERE)
    assert urls(catalogue.image(image_id)) == [theirs, "http://h/1"]
    assert [one["url"] for one in repo.get(image_id).locations] == [theirs, "http://h/1"]
    assert not any(":" in row.value for row in rows(engine, image_id))
    assert catalogue.withdraw_url(image_id, "http://h/1") == 1
    assert [one["url"] for one in repo.get(image_id).locations] == [theirs]
    catalogue.close()


@pytest.mark.parametrize("length", [0, 1, 14, 15, 16, 17, 100])
@pytest.mark.parametrize("size", [16, 24, 32])
def test_both_ciphers(length: int, size: int) -> None:
    """Glance opens what we close and the other way round, at every length about a block; never the same twice."""
    key, url = "k" * size, "file:" + "ä" * length
    assert glance_crypt.urlsafe_decrypt(key, encryption.encrypt(key, url)) == url
    assert encryption.decrypt(key, glance_crypt.urlsafe_encrypt(key, url)) == url
    assert encryption.encrypt(key, url) != encryption.encrypt(key, url)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "file:///plain",
        "not base64 \u20ac",
        "QUJD",
        encryption.encrypt("x" * 16, "file:///a"),
        encryption.encrypt(KEY, ""),
    ],
    ids=["empty", "plain", "not base64", "short", "another key", "empty inside"],
)
def test_what_the_key_does_not_open(stored: str) -> None:
    """Plain text, rubbish, another key's text and an empty URL are all refused."""
    with pytest.raises(ValueError):
        encryption.decrypt(KEY, stored)


def test_an_unreadable_row_stops_nothing(
    glance_database_url: str, glance: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """A URL the key does not open is named as such, distinct for each row, logged by row and not by content."""
    stored = [encryption.encrypt("another key 1234", url) for url in ("file:///a", "file:///b")]
    image_id = new(glance, *stored, encryption.encrypt(KEY, "file:///good"))
    catalogue = Catalogue(glance_database_url, KEY)
    [image] = catalogue.images()
    assert [one.url for one in image.locations] == [
        f"undecryptable:///image_locations/{image.locations[0].row}",
        f"undecryptable:///image_locations/{image.locations[1].row}",
        "file:///good",
    ]
    assert caplog.text.count(image_id) == 2
    assert not any(one in caplog.text for one in stored)
    catalogue.close()


def test_a_key_that_is_none() -> None:
    """A key AES cannot take stops the start, and is not shown."""
    with pytest.raises(ConfigError) as caught:
        Catalogue("sqlite:///x", "tooshort")
    assert "tooshort" not in str(caught.value)


def test_one_image(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """Every field, the locations in order of insertion, and only those that Glance shows."""
    digest = "ab" * 64
    values = {"name": "n", "size": 1 << 40, "checksum": "cd" * 16, "os_hash_algo": "sha512", "os_hash_value": digest}
    image_id = new(glance, "file:///a", "file:///b", "file:///c", visibility="public", **values)
    state = models.ImageLocation.__table__
    with engine.begin() as connection:
        connection.execute(state.update().where(state.c.value == "file:///b").values(status="pending_delete"))
    catalogue.add(image_id, on_host(image_id), HERE)
    image = catalogue.image(image_id)
    assert image is not None
    rest = (image.name, image.owner, image.visibility, image.checksum, image.size)
    assert rest == ("n", "p1", "public", "cd" * 16, 1 << 40)
    assert image.digest == Digest("sha512", digest)
    assert [(one.url, one.store, one.host, one.row is None) for one in image.locations] == [
        ("file:///a", "fast", None, False),
        ("file:///c", "fast", None, False),
        (on_host(image_id), "http", "host-1", False),
    ]
    assert catalogue.image(str(uuid.uuid4())) is None


def test_statuses(catalogue: Catalogue, glance: ModuleType) -> None:
    """Each image with a row has its status, deleted ones say so, others are absent; more ids than one statement."""
    live = {new(glance, status=status): status for status in ("active", "deactivated", "queued")}
    gone = [new(glance), new(glance)]
    for image_id in gone:
        glance.image_destroy(admin(), image_id)
    glance.image_update(
        glance_context.RequestContext(is_admin=True, show_deleted=True), gone[1], {"status": "pending_delete"}
    )
    nothing = [str(uuid.uuid4()) for _ in range(1200)]
    expected = live | {gone[0]: "deleted", gone[1]: "pending_delete"}
    assert catalogue.statuses([*nothing, *expected]) == expected
    assert catalogue.statuses([]) == {}
    for image_id, status in expected.items():
        image = catalogue.image(image_id)
        assert image is not None
        assert image.status == status


def test_images_by_filter(catalogue: Catalogue, glance: ModuleType) -> None:
    """Each filter, alone and together, over several batches, gives exactly the images it names, by id."""
    made = {
        new(glance, "file:///a", "file:///b", owner=f"p{n % 2}", name=f"n{n % 3}", status=status): (
            n % 2,
            n % 3,
            status,
        )
        for n, status in enumerate(["active", "deactivated", "queued"] * 4)
    }
    live = sorted(one for one, (_, _, status) in made.items() if status != "queued")
    found = list(catalogue.images(batch=3))
    assert [image.id for image in found] == live
    assert all(len(image.locations) == 2 for image in found)
    assert {image.id for image in catalogue.images(owner="p1")} == {one for one in live if made[one][0] == 1}
    assert {image.id for image in catalogue.images(name="n0", statuses=["active"])} == {
        one for one in live if made[one][1:] == (0, "active")
    }
    assert {image.id for image in catalogue.images(statuses=["queued"])} == set(made) - set(live)
    assert [image.id for image in catalogue.images([*live[:4], str(uuid.uuid4())], batch=2)] == live[:4]
    assert list(catalogue.images([])) == []
    glance.image_destroy(admin(), live[0])
    assert [image.id for image in catalogue.images()] == live[1:]
    assert [image.id for image in catalogue.images(statuses=["deleted"])] == live[:1]


def test_images_added_meanwhile(catalogue: Catalogue, glance: ModuleType) -> None:
    """An image whose id is still to come is seen, one that went is not, and the rest come once each."""
    names = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(1, 8)]
    for name in names[:5]:
        new(glance, "file:///a", id=name)
    stream = catalogue.images(batch=2)
    seen = [next(stream).id, next(stream).id]
    new(glance, "file:///a", id=names[6])
    glance.image_destroy(admin(), names[3])
    assert seen + [image.id for image in stream] == [*names[:3], names[4], names[6]]


def test_a_stream_holds_no_connection(catalogue: Catalogue, glance_database_url: str, glance: ModuleType) -> None:
    """Between batches nothing is open: a writer that needs the database for itself gets it."""
    for _ in range(4):
        new(glance, "file:///a")
    stream = catalogue.images(batch=1)
    next(stream)
    other = transactions.engine(glance_database_url)
    alone = {"sqlite": "BEGIN EXCLUSIVE", "postgresql": "LOCK TABLE images NOWAIT"}
    with other.connect() as connection:
        raw = connection.connection.cursor()  # SQLAlchemy would begin by itself
        raw.execute(alone.get(other.dialect.name, "LOCK TABLE images WRITE NOWAIT"))
        raw.execute("ROLLBACK" if other.dialect.name != "mysql" else "UNLOCK TABLES")
        raw.close()
    assert len(list(stream)) == 3
    other.dispose()


def test_memory_does_not_grow(glance_database_url: str) -> None:
    """200,000 locations of 40,000 images stream through a few megabytes."""
    fill(glance_database_url, 40_000, 5)
    catalogue = Catalogue(glance_database_url)
    stream = catalogue.images()
    seen = len(next(stream).locations)
    tracemalloc.start()
    for number, image in enumerate(stream):
        seen += len(image.locations)
        if number == 4_000:  # tracing is slow: a tenth shows growth, the rest is counted at full speed
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert seen == 200_000
    assert peak < 6 << 20  # the 20,000 locations of this tenth, kept, take more than 12 MiB
    catalogue.close()


def test_of_host(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """The JSON decides, not the text; every state of image counts; rows that are deleted do not."""
    names = ["h", "h%", "h_", 'h"', "h\\", "hé", "H", "replica_host"]
    image_ids = {name: new(glance, status="deactivated") for name in names}
    for name, image_id in image_ids.items():
        catalogue.add(image_id, f"http://x/1/replicas/{image_id}", {"note": "h", "replica_host": name})
        catalogue.add(image_id, "http://x/5", {"replica_host": name})  # a user's: no URL of a host
        catalogue.add(image_id, "http://x/2", {"replica_hosts": "h", "note": name})
        catalogue.add(image_id, f"http://x/3/replicas/{image_id}", {"replica_host": name})
        assert catalogue.withdraw_url(image_id, f"http://x/3/replicas/{image_id}") == 1
    for name, image_id in image_ids.items():
        assert [(one.image_id, one.url) for one in catalogue.of_host(name)] == [
            (image_id, f"http://x/1/replicas/{image_id}")
        ]
    images = models.Image.__table__
    with engine.begin() as connection:
        connection.execute(images.update().where(images.c.id == image_ids["h"]).values(deleted=True, status="deleted"))
        table = models.ImageLocation.__table__
        bare = {"image_id": image_ids["h"], "value": "http://x/4", "meta_data": sa.null(), "deleted": False}
        connection.execute(table.insert().values(bare))
        connection.execute(
            sa.text("UPDATE image_locations SET meta_data = :text WHERE value = 'http://x/2'"),
            {"text": json.dumps(["replica_host", "h"])},
        )
    assert [one.url for one in catalogue.of_host("h")] == [f"http://x/1/replicas/{image_ids['h']}"]


def test_ages(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine) -> None:
    """How long ago each active row was made, of the images asked for."""
    image_id, other = new(glance, "file:///a", "file:///b"), new(glance, "file:///c")
    first, second = (row.id for row in rows(engine, image_id))
    made = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=3)
    table = models.ImageLocation.__table__
    with engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == first).values(created_at=made))
    ages = catalogue.ages([image_id])
    assert ages.keys() == {first, second}
    assert ages[first] >= 3 * 86400
    assert 0 <= ages[second] < ages[first] - 2 * 86400
    assert len(catalogue.ages([image_id, other])) == 3


def test_a_decision_holds_the_row(catalogue: Catalogue, glance: ModuleType, glance_database_url: str) -> None:
    """While one is made no other, no `add` and no change by Glance gets through; afterwards all do."""
    image_id, order = new(glance, "file:///a", "file:///b"), []
    engine = transactions.engine(glance_database_url)

    def decides() -> None:
        order.append(("decide", catalogue.decide(image_id, lambda held: len(held.image.locations))))

    def adds() -> None:
        order.append(("add", catalogue.add(image_id, "http://h/1", HERE)))

    def renames() -> None:
        images = models.Image.__table__
        with engine.begin() as connection:
            connection.execute(images.update().where(images.c.id == image_id).values(name="other"))
        order.append(("rename", True))

    with ThreadPoolExecutor(3) as pool:

        def work(held: LockedImage) -> list[Future[None]]:
            begun = [pool.submit(one) for one in (decides, adds, renames)]
            time.sleep(0.5)
            assert order == []
            assert held.withdraw(held.image.locations[0])
            assert not held.withdraw(held.image.locations[0])
            return begun

        for future in catalogue.decide(image_id, work):
            future.result(20)
    assert {name for name, _ in order} == {"decide", "add", "rename"}
    added_first = [name for name, _ in order].index("add") < [name for name, _ in order].index("decide")
    assert dict(order)["decide"] == (2 if added_first else 1)  # what it saw was fresh
    assert urls(catalogue.image(image_id)) == ["file:///b", "http://h/1"]
    engine.dispose()


def test_a_decision_is_bounded_and_rolls_back(catalogue: Catalogue, glance: ModuleType) -> None:
    """A second one gives up with CatalogueError after the tries it was given; an exception undoes the withdrawal."""
    image_id = new(glance, "file:///a")

    def fails(held: LockedImage) -> None:
        assert held.withdraw(held.image.locations[0])
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(waits).result(20)
        assert time.monotonic() - started < transactions.ATTEMPTS + 5  # on SQLite each try waits
        raise RuntimeError

    def waits() -> None:
        with pytest.raises(CatalogueError):
            catalogue.decide(image_id, lambda _: pytest.fail("two hold one lock"), wait_seconds=1.0)

    with pytest.raises(RuntimeError):
        catalogue.decide(image_id, fails)
    assert urls(catalogue.image(image_id)) == ["file:///a"]
    with pytest.raises(Refused):
        catalogue.decide(str(uuid.uuid4()), lambda _: pytest.fail("locked nothing"))


def test_two_prunes(catalogue: Catalogue, glance: ModuleType) -> None:
    """Many that each remove one location while two are left never remove the last."""
    image_id = new(glance, *(f"file:///{n}" for n in range(6)))
    start = threading.Barrier(6)

    def prune(number: int) -> bool:
        start.wait(10)
        return catalogue.decide(image_id, partial(withdraw, f"file:///{number}"), wait_seconds=20)

    def withdraw(url: str, held: LockedImage) -> bool:
        (mine,) = (location for location in held.image.locations if location.url == url)
        return len(held.image.locations) > 1 and held.withdraw(mine)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(prune, range(6))) == 5
    assert len(urls(catalogue.image(image_id))) == 1


def test_no_tables(database_url: str) -> None:
    """An empty database is told from one that is down, and the remedy named."""
    catalogue = Catalogue(database_url)
    for call in (
        lambda: catalogue.image("x"),
        lambda: list(catalogue.images()),
        lambda: catalogue.statuses(["x"]),
        lambda: list(catalogue.of_host("x")),
        lambda: catalogue.add("x", "http://h/1", {}),
        lambda: catalogue.withdraw(Location("x", "http://h/1", {}, 1)),
    ):
        with pytest.raises(CatalogueError, match="glance-manage db_sync"):
            call()
    catalogue.close()


def test_metadata_that_is_none(catalogue: Catalogue, glance: ModuleType, engine: sa.Engine, caplog: Any) -> None:
    """Broken JSON in one row leaves a location without metadata and a line in the log."""
    image_id = new(glance, "file:///a")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE image_locations SET meta_data = '{\"store\": '"))
    caplog.set_level(logging.WARNING)
    image = catalogue.image(image_id)
    assert image is not None
    assert image.locations[0].metadata == {}
    assert image_id in caplog.text


def test_the_catalogue_of_nowhere(tmp_path: Path) -> None:
    """A SQLite file in a folder that is not there is a CatalogueError that names it."""
    with pytest.raises(CatalogueError, match=r"absent/glance\.sqlite"):
        Catalogue(f"sqlite:///{tmp_path}/absent/glance.sqlite").image("x")
