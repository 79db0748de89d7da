"""Writer and listing of S3, on the S3 servers of Swift and Ceph: one PUT, many parts, and pages."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from oslo_config import cfg
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.stores.gateway import Gateway
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from services.web.proxy import FaultyProxy
from support.places.originals import Original
from support.places.readers import LIMITS, load, read, s3_url
from support.programs import Programs

from glance_replicas.errors import Corrupt, Refused, SourceError, Unreachable, Unwritable
from glance_replicas.model import Location
from glance_replicas.stores.s3.listing import Listing
from glance_replicas.stores.s3.reader import S3Store
from glance_replicas.stores.s3.writer import Writer
from glance_replicas.stores.sources import Sources

pytest_plugins = ["support.desk"]

BUCKET = "written"
ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
DATA = random.Random(12).randbytes((11 << 20) + 3)  # more than two parts


def configured(folder: Path, options: dict[str, str]) -> Sources:
    """A store `deep` with these options, for this process."""
    options |= {"s3_store_bucket": BUCKET, "s3_store_large_object_chunk_size": "5"}
    lines = "\n".join(f"{name} = {value}" for name, value in options.items())
    return load(folder, f"[DEFAULT]\nenabled_backends = deep:s3\n[deep]\n{lines}")


@pytest.fixture(params=["swift", "gateway"])
def server(request: pytest.FixtureRequest) -> Any:
    """Swift's S3 and Ceph's."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[100, 6], ids=["one PUT", "parts"])
def sources(request: pytest.FixtureRequest, server: Swift | Gateway, tmp_path: Path) -> Sources:
    """Options under which this image is one object, or an upload of parts."""
    return configured(tmp_path, server.s3_options() | {"s3_store_large_object_size": str(request.param)})


@pytest.fixture
def client(sources: Sources) -> Iterator[Any]:
    """The bucket, empty."""
    made = S3Store(cfg.CONF, "deep", LIMITS).client()
    made.create_bucket(Bucket=BUCKET)
    yield made
    for one in made.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        made.abort_multipart_upload(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"])
    for one in made.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        made.delete_object(Bucket=BUCKET, Key=one["Key"])
    made.delete_bucket(Bucket=BUCKET)


def restore(
    server: Swift | Gateway, original: Original | None = None, ready: Any = lambda: None, name: str = "image"
) -> Any:
    url = s3_url(server.url, name, BUCKET)
    return Writer(cfg.CONF, "deep", LIMITS).rewrite(url, original or Original(DATA), ready)


def test_in_place(server: Swift | Gateway, sources: Sources, client: Any) -> None:
    """An object with other bytes, and then one that is not there, hold the image; taken back, nothing does."""
    client.put_object(Bucket=BUCKET, Key="image", Body=b"damaged")
    left = client.create_multipart_upload(Bucket=BUCKET, Key="image")["UploadId"]  # by a kill
    restored = restore(server)
    restored.keep()
    location = Location("x", s3_url(server.url, "image", BUCKET), {"store": "deep"})
    assert read(sources.open(location)) == DATA
    uploads = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
    assert {one["UploadId"] for one in uploads} <= {left}
    restored.remove()
    assert client.list_objects_v2(Bucket=BUCKET).get("KeyCount") == 0
    restore(server).keep()
    assert read(sources.open(location)) == DATA


def test_wrong_bytes_change_nothing(server: Swift | Gateway, sources: Sources, client: Any) -> None:
    """A source that turns out wrong, or a catalogue that says no: the object is as it was, and no upload is open."""
    client.put_object(Bucket=BUCKET, Key="image", Body=b"damaged")

    def no() -> None:
        raise Refused("deleted meanwhile")

    with pytest.raises(Corrupt):
        restore(server, Original(DATA, given=DATA[:-1] + b"!"))
    with pytest.raises(Refused):
        restore(server, ready=no)
    assert client.get_object(Bucket=BUCKET, Key="image")["Body"].read() == b"damaged"
    assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_another_server(server: Swift | Gateway, sources: Sources, client: Any) -> None:
    """A URL that names another server than the options is not written to the one that is asked in any case."""
    with pytest.raises(Unwritable, match="another server"):
        Writer(cfg.CONF, "deep", LIMITS).rewrite(
            s3_url("http://elsewhere", "image", BUCKET), Original(DATA), lambda: None
        )
    with pytest.raises((Unwritable, SourceError)):
        url = s3_url(server.url, "image", "no-such-bucket")
        Writer(cfg.CONF, "deep", LIMITS).rewrite(url, Original(DATA), lambda: None)


@pytest.mark.parametrize("sources", [100], indirect=True)
def test_listing(server: Swift | Gateway, sources: Sources, client: Any) -> None:
    """All pages, with sizes; one that does not come is an error; what was written since is not removed."""
    names = [f"{number}/\u00e9 %&?" for number in range(5)]
    for name in names:
        client.put_object(Bucket=BUCKET, Key=name, Body=b"bytes")
    listing = Listing(cfg.CONF, "deep", LIMITS, page=2)
    found = list(listing.entries())
    assert [(one.name, one.size) for one in found] == [(f"{BUCKET}/{name}", 5) for name in names]
    for store in ("deep", "gone", "another"):
        assert (
            listing.name_of(Location("x", s3_url(server.url, "image", BUCKET), {"store": store})) == f"{BUCKET}/image"
        )
    assert listing.name_of(Location("x", s3_url(server.url, "image", "other"), {"store": "deep"})) is None
    assert not listing.remove(replace(found[0], size=4))
    assert listing.remove(found[0])
    assert not listing.remove(found[0])
    entries = listing.entries()
    next(entries)
    for name in names:
        client.delete_object(Bucket=BUCKET, Key=name)
    client.delete_bucket(Bucket=BUCKET)
    with pytest.raises(SourceError):
        list(entries)
    client.create_bucket(Bucket=BUCKET)


def test_uploads_never_completed(client: Any) -> None:
    """They are listed behind the objects, page by page, dark by themselves, and end with their parts."""
    started = [client.create_multipart_upload(Bucket=BUCKET, Key=ID)["UploadId"] for _ in range(3)]
    client.upload_part(Bucket=BUCKET, Key=ID, UploadId=started[0], PartNumber=1, Body=b"part")
    client.put_object(Bucket=BUCKET, Key=ID, Body=b"bytes")
    listing = Listing(cfg.CONF, "deep", LIMITS, page=2)
    whole, *uploads = listing.entries()
    assert (whole.name, whole.spare) == (f"{BUCKET}/{ID}", "")
    assert {one.name for one in uploads} == {f"{BUCKET}/{ID}?uploadId={quote(one, safe='')}" for one in started}
    assert {(one.image_id, one.size) for one in uploads} == {(ID, None)}
    assert all(one.spare and one.modified for one in uploads)
    first, *others = uploads
    assert listing.remove(first)
    assert not listing.remove(first)
    assert list(listing.entries()) == [whole, *others]


@pytest.mark.parametrize("status", [403, 501, 500])
def test_no_list_of_uploads(server: Swift | Gateway, tmp_path: Path, client: Any, caplog: Any, status: int) -> None:
    """A server that does not tell of uploads, or not to us: its objects are listed; any other trouble is an error."""
    client.put_object(Bucket=BUCKET, Key=ID, Body=b"bytes")
    with FaultyProxy("127.0.0.1", int(server.url.rpartition(":")[2])) as proxy:
        configured(tmp_path, server.s3_options(proxy.url))
        proxy.order(status, "uploads")
        entries = Listing(cfg.CONF, "deep", LIMITS).entries()
        if status == 500:
            with pytest.raises(Unreachable):
                list(entries)
        else:
            assert [one.name for one in entries] == [f"{BUCKET}/{ID}"]
            assert "uploads that were never completed are not listed" in caplog.text


@pytest.mark.parametrize("sources", [6], indirect=True)
def test_an_image_that_is_only_cached_goes_back(
    server: Swift | Gateway, sources: Sources, client: Any, *, programs: Programs, faulty: FaultyServer, tmp_path: Path
) -> None:
    """`replica repair --to-store`: one PUT and an upload of parts, into the bucket and under the name that Glance gives
    them, with a row that Glance's own driver reads; what a run killed before its row left is found."""
    options = server.s3_options() | {
        "s3_store_bucket": BUCKET,
        "s3_store_large_object_size": "6",
        "s3_store_large_object_chunk_size": "5",
    }
    site = GlanceSite(tmp_path / "site", store="s3", options={"fast": options})
    host = site.add_host("127.0.0.2", start=False)

    def run(*words: object, status: int = 0) -> Any:
        done = programs.run("--config-file", host.config_file, *words)
        assert done.status == status, done
        return done

    for number, data in enumerate((DATA[:100_000], DATA)):
        name = f"b0000000-0000-4000-8000-{number:012d}"
        faulty.put(f"/replicas/{name}", data)
        add_image(site.database_url, name, data)
        site.add_location(name, f"{faulty.url}/replicas/{name}", {"store": "web", "replica_host": "api9"})
        run("repair", name, "--to-store", "fast", status=1)
        assert not client.list_objects_v2(Bucket=BUCKET, Prefix=name).get("KeyCount"), "only a plan so far"
        run("repair", name, "--to-store", "fast", "--yes")
        assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == data
        [row] = [one for one in site.locations(name) if one["url"].startswith("s3")]
        assert row["url"].endswith(f"/{BUCKET}/{name}")
        assert row["metadata"] == {"store": "fast"}
        run("verify", name)
        site.rows("DELETE FROM image_locations WHERE value LIKE 's3%' AND image_id = :i", i=name)
        written = client.head_object(Bucket=BUCKET, Key=name)["LastModified"]
        run("repair", name, "--to-store", "fast", "--yes")
        assert client.head_object(Bucket=BUCKET, Key=name)["LastModified"] == written
        assert [one["url"] for one in site.locations(name) if one["url"].startswith("s3")] == [row["url"]]
    client.put_object(Bucket=BUCKET, Key=name, Body=b"another's")
    site.rows("DELETE FROM image_locations WHERE value LIKE 's3%' AND image_id = :i", i=name)
    assert "never overwritten" in run("repair", name, "--to-store", "fast", "--yes", status=1).out
    assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == b"another's"


@pytest.mark.parametrize("sources", [6], indirect=True)
def test_a_bucket_that_is_not_there(
    server: Swift | Gateway, sources: Sources, programs: Programs, faulty: FaultyServer, tmp_path: Path
) -> None:
    """`--to-store` makes no bucket: it says which one is missing, no row is added, and its copy is what it was."""
    name = "b0000000-0000-4000-8000-000000000009"
    options = server.s3_options() | {"s3_store_bucket": "not-there"}
    site = GlanceSite(tmp_path / "site", store="s3", options={"fast": options})
    host = site.add_host("127.0.0.2", start=False)
    faulty.put(f"/replicas/{name}", DATA)
    add_image(site.database_url, name, DATA)
    site.add_location(name, f"{faulty.url}/replicas/{name}", {"store": "web", "replica_host": "api9"})
    done = programs.run("--config-file", host.config_file, "repair", name, "--to-store", "fast", "--yes")
    assert done.status == 1, done
    assert "nothing was written" in done.out
    assert "/not-there/" in done.out
    assert "overwritten" not in done.out
    assert len(site.locations(name)) == 1
