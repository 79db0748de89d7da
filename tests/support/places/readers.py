"""Places of every kind with bytes in them, as the readers' tests and others need them."""

import contextlib
import io
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from glance_store._drivers import rbd
from oslo_config import cfg
from services.stores.ceph import Ceph
from services.stores.gateway import Gateway
from services.stores.swift import Swift

from glance_replicas import settings as our_settings
from glance_replicas.checksum import BLOCK
from glance_replicas.model import Location
from glance_replicas.stores.body import Body, Limits
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.s3 import reader as s3_reader
from glance_replicas.stores.sources import Sources, from_settings

LIMITS = Limits(connect=5, stall=20)


DATA = random.Random(7).randbytes(2 * BLOCK + 4711)


SIZE = len(DATA)


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


def outside_place(folder: Path) -> Place:
    """A store whose kind another distribution registers, the one of docs/add-a-backend.md."""
    held = folder / "held"
    held.mkdir()
    sources = load(folder, f"[DEFAULT]\nenabled_backends = far:attic\n[far]\nattic_folder = {held}")

    def put(data: bytes) -> str:
        path = held / str(uuid.uuid4())
        path.write_bytes(data)
        return f"attic://{path.name}"

    put(b"so that the folder is not empty")
    return Place(sources, put, f"attic://{uuid.uuid4()}", "far")


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


def read(body: Body) -> bytes:
    with body:
        return b"".join(body)
