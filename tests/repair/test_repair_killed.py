"""kill -9 in the middle of what `replica repair` writes to a real Swift, and by its S3 to parts of an upload.

The object is the old one or the new one, a segment too; what is left over is cleaned by the next repair, or listed.
"""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from oslo_config import cfg
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from services.web.proxy import FaultyProxy
from support.places.readers import LIMITS, s3_url, swift_url
from support.programs import Programs
from support.worlds.deep import CONTAINER, Deep, image_id
from support.worlds.scenes import settle

from glance_replicas import settings
from glance_replicas.stores.s3.reader import S3Store

pytest_plugins = ["support.desk"]

MIB = 1 << 20
MB = 1000 * 1024  # as glance_store counts
DATA = random.Random(31).randbytes(4 * MB + 17)
OLD = DATA[::-1]
LARGE = {"swift_store_large_object_size": "1", "swift_store_large_object_chunk_size": "1"}
BUCKET = "repaired"


@pytest.fixture
def deep(tmp_path: Path, swift: Swift, programs: Programs) -> Iterator[Deep]:
    """Everything above a megabyte is segments of a megabyte."""
    made = Deep(tmp_path / "site", swift, programs)
    made.host.configure({"fast": LARGE})
    yield made
    made.close()


@contextmanager
def repairing(deep: Deep, name: str) -> Iterator[Callable[[], None]]:
    """`replica repair` at work; what is given kills it, and it was still at work."""
    process = deep.start("repair", name, "--yes")
    ended: list[int] = []

    def kill() -> None:
        ended.append(process.kill().status)
        assert ended == [-signal.SIGKILL]

    try:
        yield kill
    finally:
        if not ended:
            process.kill()


def content(deep: Deep, name: str) -> bytes:
    return bytes(deep.connection.get_object(CONTAINER, name)[1])


def parts(deep: Deep, prefix: str) -> list[str]:
    return [one["name"] for one in deep.connection.get_container(CONTAINER, prefix=prefix)[1]]


def strays(deep: Deep) -> dict[str, str]:
    """What an audit finds dark, and what it says of it."""
    rows = deep.run("audit", "--store", "fast", "--grace", "0s", "-f", "json").rows
    return {row["Name"].removeprefix(f"{CONTAINER}/"): row["Next"] for row in rows if row["Kind"] == "dark"}


def large(deep: Deep, name: str, data: bytes) -> None:
    """As Glance writes it: segments beside a manifest."""
    for number in range(0, len(data), MB):
        deep.connection.put_object(CONTAINER, f"{name}-{number // MB + 1:05d}", data[number : number + MB])
    deep.connection.put_object(CONTAINER, name, b"", headers={"X-Object-Manifest": f"{CONTAINER}/{name}-"})


@pytest.mark.parametrize("done", [0, 1, 2])
def test_new_segments(deep: Deep, faulty: FaultyServer, done: int) -> None:
    """So many segments are there and the next is being sent: the object is the old one. The next repair clears up."""
    name = image_id(400)
    deep.connection.put_object(CONTAINER, name, OLD)
    deep.image(name, DATA, swift_url(deep.swift, name, CONTAINER), faulty.put("/good", DATA))
    faulty.change("/good", rate=MB // 2)
    with repairing(deep, name) as kill:
        settle(lambda: faulty.reads("/good") == 2 and len(parts(deep, f"{name}.a-")) >= done, 60)
        kill()
    assert content(deep, name) == OLD
    assert done <= len(parts(deep, f"{name}.a-")) < 5
    assert set(strays(deep)) == set(parts(deep, f"{name}.a-"))
    faulty.change("/good")
    (row,) = (done := deep.run("repair", name, "--yes", "-f", "json")).rows
    assert (done.status, row["Action"], row["After"]) == (0, "restored", "intact")
    assert content(deep, name) == DATA
    assert parts(deep, f"{name}.a-") == [f"{name}.a-{number:05d}" for number in range(1, 6)]
    assert strays(deep) == {}


def test_segments_in_place(deep: Deep, faulty: FaultyServer) -> None:
    """Of a large object two segments are wrong: after the kill each is the old or the new one, whole, and none else.

    It is damaged until both are right, and the next repair writes what is missing only.
    """
    name = image_id(401)
    large(deep, name, DATA)
    for number in (2, 4):
        deep.connection.put_object(CONTAINER, f"{name}-{number:05d}", OLD[:MB])
    deep.image(name, DATA, swift_url(deep.swift, name, CONTAINER), faulty.put("/good", DATA))
    with repairing(deep, name) as kill:
        settle(lambda: faulty.reads("/good") >= 1, 60)
        faulty.change("/good", rate=MB)
        second = DATA[MB : 2 * MB]
        settle(lambda: deep.connection.get_object(CONTAINER, f"{name}-00002")[1] == second, 60)
        kill()
    assert content(deep, name) == DATA[: 3 * MB] + OLD[:MB] + DATA[4 * MB :]
    assert deep.run("verify", name).status == 1
    stamps = {
        one["name"]: one["last_modified"] for one in deep.connection.get_container(CONTAINER, prefix=f"{name}-")[1]
    }
    faulty.change("/good")
    assert deep.run("repair", name, "--yes").status == 0
    assert content(deep, name) == DATA
    after = {
        one["name"]: one["last_modified"] for one in deep.connection.get_container(CONTAINER, prefix=f"{name}-")[1]
    }
    assert [one for one in stamps if stamps[one] != after[one]] == [f"{name}-00004"]
    assert strays(deep) == {}


def test_old_segments(deep: Deep, faulty: FaultyServer) -> None:
    """The new object stands and the old segments are about to go: it is the new one, and an audit lists the others."""
    name = image_id(402)
    large(deep, name, OLD + b"more")
    deep.connection.put_object(CONTAINER, f"{name}-99999", b"stranger")
    deep.image(name, DATA, swift_url(deep.swift, name, CONTAINER), faulty.put("/good", DATA))
    with FaultyProxy("127.0.0.1", int(deep.swift.url.rpartition(":")[2])) as proxy:
        deep.host.configure({"fast": {"swift_store_endpoint": proxy.url + deep.swift.account_path}})
        proxy.order("hang", f"/{name}-00001")
        with repairing(deep, name) as kill:
            settle(lambda: proxy.hanging, 60)
            kill()
    deep.host.configure({"fast": {"swift_store_endpoint": ""}})
    assert content(deep, name) == DATA
    left = parts(deep, f"{name}-")
    assert len(left) == 6
    assert deep.run("repair", name, "--yes").status == 0
    found = strays(deep)
    assert set(found) == set(left)


@pytest.fixture
def client(deep: Deep) -> Iterator[Any]:
    """The bucket of a store `deep`, which makes an upload of parts of everything from 5 MiB on."""
    options = deep.swift.s3_options(large_object_mb=5) | {"s3_store_bucket": BUCKET}
    deep.host.configure({"DEFAULT": {"enabled_backends": "fast:swift, deep:s3, web:http"}, "deep": options})
    settings.load([str(deep.host.config_file)])
    made = S3Store(cfg.CONF, "deep", LIMITS).client()
    made.create_bucket(Bucket=BUCKET)
    yield made
    for one in made.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        made.delete_object(Bucket=BUCKET, Key=one["Key"])
    made.delete_bucket(Bucket=BUCKET)


def test_parts_of_an_upload(deep: Deep, faulty: FaultyServer, client: Any) -> None:
    """Some parts are there: S3 has the old object. Audits list what was left, the next repair ends it."""
    name, data = image_id(403), random.Random(32).randbytes(12 * MIB + 5)
    client.put_object(Bucket=BUCKET, Key=name, Body=data[::-1])
    deep.image(name, data, faulty.put("/good", data))
    deep.site.add_location(name, s3_url(deep.swift.url, name, BUCKET), {"store": "deep"})
    faulty.change("/good", rate=3 * MIB)

    def uploads() -> list[str]:
        return [one["UploadId"] for one in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def sent() -> int:
        return sum(len(client.list_parts(Bucket=BUCKET, Key=name, UploadId=one).get("Parts", ())) for one in uploads())

    with repairing(deep, name) as kill:
        settle(lambda: sent() >= 1, 60)
        kill()
    assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == data[::-1]
    (left,) = uploads()
    (row,) = (done := deep.run("audit", "--store", "deep", "--grace", "0s", "-f", "json")).rows
    assert (done.status, row["Name"], row["Action"]) == (1, f"{BUCKET}/{name}?uploadId={quote(left, safe='')}", "keep")
    assert "never completed" in row["Next"]
    client.delete_object(Bucket=BUCKET, Key=name)
    done = deep.run("audit", "--store", "deep")
    assert done.status == 3
    assert f"{BUCKET} is empty, the catalogue names files in it" in done.out, "an upload is no object"
    faulty.change("/good")
    (row,) = (done := deep.run("repair", name, "--yes", "-f", "json")).rows
    assert (done.status, row["Action"], row["After"]) == (0, "restored", "intact")
    assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == data
    assert uploads() == []
