"""The contract of every reader: one suite over files, web servers, Swift's kinds of object, S3, Ceph and a driver."""

import concurrent.futures
import contextlib
import io
import json
import os
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from glance_store._drivers import rbd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_config import cfg
from services import eventually
from services.ceph import Ceph
from services.faulty import FaultyServer
from services.gateway import Gateway
from services.nginx import Nginx
from services.swift import Swift

from glance_replicas import settings as our_settings
from glance_replicas.checksum import BLOCK
from glance_replicas.errors import Absent, Unsupported, WrongAnswer
from glance_replicas.model import Location
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.s3 import reader as s3_reader
from glance_replicas.stores.sources import Body, Limits, Sources, from_settings

LIMITS = Limits(connect=5, stall=20)
DATA = random.Random(7).randbytes(2 * BLOCK + 4711)
SIZE = len(DATA)
PLACES = ["file", "faulty", "nginx", "swift", "dlo", "slo", "s3", "radosgw", "rbd", "store"]


@dataclass(frozen=True)
class Place:
    """Somewhere bytes can be, and the sources that read from there."""

    sources: Sources
    put: Callable[[bytes], str]  # the URL
    absent: str
    store: str | None = None

    def location(self, url: str) -> Location:
        return Location(str(uuid.UUID(int=0)), url, {"store": self.store} if self.store else {})

    def open(self, url: str, offset: int = 0) -> Body:
        return self.sources.open(self.location(url), offset)

    def size(self, url: str) -> int | None:
        return self.sources.size(self.location(url))


def load(folder: Path, text: str) -> Sources:
    """Sources as a program makes them from this glance-api.conf."""
    conf = folder / "glance-api.conf"
    conf.write_text(f"{text}\n[database]\nconnection = sqlite://\n")
    return from_settings(our_settings.load([str(conf)]), limits=LIMITS)


def folder_place(folder: Path, sources: Sources, store: str | None = None) -> Place:
    def put(data: bytes) -> str:
        path = folder / str(uuid.uuid4())
        path.write_bytes(data)
        return f"file://{path}"

    put(b"so that the folder is not empty")
    return Place(sources, put, f"file://{folder}/{uuid.uuid4()}", store)


def file_place(folder: Path) -> Place:
    return folder_place(folder, Sources([file_reader.Reader([folder])]))


def store_place(folder: Path) -> Place:
    from glance_replicas.stores.drivers import reader as driver_reader

    load(folder, "[DEFAULT]\nenabled_backends = disk:file, web:http\n[disk]\nfilesystem_store_datadir = /nowhere")
    from oslo_config import cfg

    return folder_place(
        folder, Sources([], driver_reader.Reader(cfg.CONF, [("web", "http"), ("disk", "file")])), "disk"
    )


def swift_place(swift: Swift, folder: Path, upload: Callable[[Any, str, bytes], None]) -> Place:
    options = "\n".join(f"{name} = {value}" for name, value in swift.store_options().items())
    sources = load(folder, f"[DEFAULT]\nenabled_backends = fast:swift\n[fast]\n{options}")
    connection = swift.connection()
    connection.put_container(swift.container)
    connection.put_container("segments")

    def put(data: bytes) -> str:
        name = str(uuid.uuid4())
        upload(connection, name, data)
        return swift_url(swift, name)

    return Place(sources, put, swift_url(swift, "absent"), "fast")


def swift_url(swift: Swift, name: str, container: str | None = None) -> str:
    """The URL as Glance writes it for a single-tenant store."""
    options = swift.store_options()
    user, key = quote(options["swift_store_user"]), quote(options["swift_store_key"])
    address = options["swift_store_auth_address"].removeprefix("http://").rstrip("/")
    return f"swift+http://{user}:{key}@{address}/{container or swift.container}/{name}"


def s3_place(place: Swift | Gateway, folder: Path, server: str | None = None) -> Place:
    """An S3 server; `server` is what stands in front of it."""
    options = place.s3_options(server)
    lines = "\n".join(f"{name} = {value}" for name, value in options.items())
    sources = load(folder, f"[DEFAULT]\nenabled_backends = deep:s3\n[deep]\n{lines}")
    client = s3_reader.S3Store(cfg.CONF, "deep", LIMITS).client()
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=place.bucket)

    def put(data: bytes) -> str:
        name = str(uuid.uuid4())
        client.put_object(Bucket=place.bucket, Key=name, Body=data)
        return s3_url(server or place.url, name)

    return Place(sources, put, s3_url(server or place.url, "absent"), "deep")


def s3_url(server: str, name: str, bucket: str = Swift.bucket) -> str:
    """The URL as Glance writes it."""
    return f"s3://{server.removeprefix('http://')}/{bucket}/{name}"


def rbd_place(ceph: Ceph, folder: Path) -> Place:
    """An RBD store, and images in it as glance_store writes them."""
    lines = "\n".join(f"{name} = {value}" for name, value in ceph.store_options().items())
    sources = load(folder, f"[DEFAULT]\nenabled_backends = block:rbd, web:http\n[block]\n{lines}")
    driver = rbd.Store(cfg.CONF, "block")
    driver.configure()

    def put(data: bytes) -> str:
        return str(driver.add(str(uuid.uuid4()), io.BytesIO(data), len(data), "sha512")[0])

    return Place(sources, put, f"rbd://{ceph.fsid}/{ceph.pool}/{uuid.uuid4()}/snap", "block")


def plain(connection: Any, name: str, data: bytes) -> None:
    connection.put_object(Swift.container, name, io.BytesIO(data), content_length=len(data))


def segments(connection: Any, name: str, data: bytes) -> list[dict[str, Any]]:
    """Upload in five pieces; their description as SLO wants it."""
    step = len(data) // 5 + 1
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    found = []
    for number, piece in enumerate(pieces):
        etag = connection.put_object("segments", f"{name}-{number:05}", io.BytesIO(piece), content_length=len(piece))
        found.append({"path": f"/segments/{name}-{number:05}", "etag": etag, "size_bytes": len(piece)})
    return found


def dlo(connection: Any, name: str, data: bytes) -> None:
    segments(connection, name, data)
    connection.put_object(Swift.container, name, b"", headers={"X-Object-Manifest": f"segments/{name}-"})


def slo(connection: Any, name: str, data: bytes) -> None:
    if not data:  # Swift refuses a manifest without segments
        plain(connection, name, data)
        return
    manifest = json.dumps(segments(connection, name, data))
    connection.put_object(Swift.container, name, manifest, query_string="multipart-manifest=put")


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Every kind of place in turn."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "file":
        yield file_place(folder)
    elif request.param == "store":
        yield store_place(folder)
    elif request.param == "faulty":
        with FaultyServer() as server:
            sources = Sources([http_reader.Reader(LIMITS)])
            yield Place(sources, lambda data: server.put(f"/{uuid.uuid4()}", data), f"{server.url}/absent")
    elif request.param == "nginx":
        (folder / "www").mkdir()
        with Nginx(folder / "nginx", folder / "www") as nginx:

            def put(data: bytes) -> str:
                name = str(uuid.uuid4())
                (nginx.root / name).write_bytes(data)
                return nginx.url_of(name)

            yield Place(Sources([http_reader.Reader(LIMITS)]), put, nginx.url_of("absent"))
    elif request.param == "s3":
        yield s3_place(request.getfixturevalue("swift"), folder)
    elif request.param == "radosgw":
        yield s3_place(request.getfixturevalue("gateway"), folder)
    elif request.param == "rbd":
        yield rbd_place(request.getfixturevalue("ceph"), folder)
    else:
        upload = {"swift": plain, "dlo": dlo, "slo": slo}[request.param]
        yield swift_place(request.getfixturevalue("swift"), folder, upload)


@pytest.fixture(scope="module")
def url(place: Place) -> str:
    """`DATA` in that place."""
    return place.put(DATA)


def read(body: Body) -> bytes:
    with body:
        return b"".join(body)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_whole(place: Place, url: str) -> None:
    """Every byte comes, in chunks of 1 to BLOCK bytes, and the body states the size."""
    with place.open(url) as body:
        chunks = list(body)
    assert b"".join(chunks) == DATA
    assert body.size == SIZE
    assert all(0 < len(chunk) <= BLOCK for chunk in chunks)


@pytest.mark.parametrize("offset", [0, 1, SIZE // 2, SIZE - 1, SIZE])
def test_offset(place: Place, url: str, offset: int) -> None:
    """The bytes from an offset on are exact, at the edges too, and the size is that of the whole object."""
    body = place.open(url, offset)
    assert body.size == SIZE
    assert read(body) == DATA[offset:]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, SIZE))
def test_any_offset(place: Place, url: str, offset: int) -> None:
    """The same for any offset."""
    assert read(place.open(url, offset)) == DATA[offset:]


def test_offset_beyond_the_end(place: Place, url: str) -> None:
    """An object shorter than the offset is a wrong answer, never an empty body."""
    with pytest.raises(WrongAnswer):
        read(place.open(url, SIZE + 1))


def test_size(place: Place, url: str) -> None:
    """The length without the bytes."""
    assert place.size(url) == SIZE


def test_absent(place: Place) -> None:
    """What is not there is Absent, and nothing else."""
    with pytest.raises(Absent):
        place.open(place.absent)
    with pytest.raises(Absent):
        place.size(place.absent)


def test_empty(place: Place) -> None:
    """An object of no bytes is read as such; its size is 0, or unknown."""
    empty = place.put(b"")
    assert read(place.open(empty)) == b""
    assert place.size(empty) in (0, None)


def test_threads(place: Place, url: str) -> None:
    """Eight threads at once get their own bytes each."""
    offsets = [SIZE * n // 16 for n in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda offset: read(place.open(url, offset)), offsets)) == [DATA[n:] for n in offsets]


def test_two_bodies_of_one_thread(place: Place, url: str) -> None:
    """Two bodies read alternately do not disturb each other."""
    with place.open(url) as one, place.open(url, 1) as other:
        first, second = iter(one), iter(other)
        start, start_of_other = next(first), next(second)
        assert start + b"".join(first) == DATA
        assert start_of_other + b"".join(second) == DATA[1:]


def test_close_early(place: Place, url: str) -> None:
    """Bodies closed before, at and after their first chunk, twice even, leave no descriptor behind."""
    read(place.open(url))
    before = descriptors()
    for _ in range(10):
        place.open(url).close()
        with place.open(url) as body:
            next(iter(body))
        body.close()
    assert eventually(lambda: descriptors() <= before + 1)  # one more connection may be kept


def test_no_reader() -> None:
    """A URL of a kind that nothing reads is Unsupported, and the text names the scheme but no password."""
    with pytest.raises(Unsupported, match="rbd") as caught:
        Sources([http_reader.Reader()]).open(Location("x", "rbd://user:hush@fsid/pool/image/snap"))
    assert "hush" not in str(caught.value)


def test_ambiguous_store(swift: Swift, tmp_path: Path) -> None:
    """A location that names no store is not looked for in one of several: "not there" would be no answer."""
    options = "\n".join(f"{name} = {value}" for name, value in swift.store_options().items())
    sources = load(tmp_path, f"[DEFAULT]\nenabled_backends = a:swift, b:swift\n[a]\n{options}\n[b]\n{options}")
    swift.connection().put_container(swift.container)  # what is not there is absent where the container answers
    with pytest.raises(Unsupported, match="names no store and 2"):
        sources.size(Location("x", swift_url(swift, "absent")))
    with pytest.raises(Absent):
        sources.size(Location("x", swift_url(swift, "absent"), {"store": "b"}))
