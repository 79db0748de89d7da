"""The places of the fault matrix: each a real server, with a proxy in front of it that goes wrong on demand."""

import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.configuration import SIGNING_KEYS
from services.glance.site import GlanceSite
from services.stores.gateway import Gateway
from services.stores.swift import Swift
from services.web.nginx import Nginx
from services.web.proxy import FaultyProxy

from glance_replicas.model import HOST_KEY, Location
from glance_replicas.signing import parse_keys, sign
from glance_replicas.stores.body import Limits
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.sources import Sources, from_settings
from glance_replicas.stores.swift import reader as swift_reader
from support.places.readers import LIMITS, dlo, load, plain, s3_place, slo, swift_url
from support.worlds.cached import keep
from support.worlds.scenes import settle

DATA = random.Random(11).randbytes(50_000)
HASTY = Limits(connect=5, stall=0.5)


# While this holds the place has a fault; with what it yields the place is looked at.
Own = Callable[["Backend"], AbstractContextManager[tuple["Backend", Location]]]


@dataclass(frozen=True)
class Backend:
    """One kind of place. `hold` makes it hold other bytes than the image's (None: no bytes), where the image is."""

    hold: Callable[[bytes | None], Location]
    patient: Sources
    hasty: Sources  # for faults whose verdict is `stalled`
    proxy: FaultyProxy | None = None
    path: Callable[[Location], str] = lambda _: ""  # what is in the target of every request for the object
    expired: Callable[[Location], tuple[Sources, Location]] | None = None
    part: Callable[[bytes | None], Location] | None = None  # one segment holds this, or is gone
    rot: Callable[[], Location] | None = None  # a byte changes on the store's own disk
    own: Mapping[str, Own] = field(default_factory=dict)  # how a place has a fault that does not come from a proxy


def location(url: str, store: str | None = None) -> Location:
    return Location(str(uuid.uuid4()), url, {"store": store} if store else {})


@contextmanager
def file_backend(folder: Path) -> Iterator[Backend]:
    def hold(content: bytes | None) -> Location:
        path = folder / str(uuid.uuid4())
        if content is not None:
            path.write_bytes(content)
        return location(f"file://{path}")

    hold(b"so that the folder is not empty")
    sources = Sources([file_reader.Reader([folder])])
    yield Backend(hold, sources, sources)


@contextmanager
def http_backend(folder: Path) -> Iterator[Backend]:
    (folder / "www").mkdir()
    with Nginx(folder / "nginx", folder / "www") as nginx, FaultyProxy(nginx.address, nginx.port) as proxy:

        def hold(content: bytes | None) -> Location:
            name = str(uuid.uuid4())
            if content is not None:
                (nginx.root / name).write_bytes(content)
            return location(f"{proxy.url}/{name}")

        yield Backend(hold, Sources([http_reader.Reader(LIMITS)]), Sources([http_reader.Reader(HASTY)]), proxy)


@contextmanager
def cached_backend(folder: Path) -> Iterator[Backend]:
    """A real host; what it holds is changed on its disk, behind its back."""
    keys = parse_keys(SIGNING_KEYS)

    with (
        GlanceSite(folder / "site") as site,
        site.add_host("127.0.0.2", options={"replicas": {"janitor": "false"}}) as host,
        FaultyProxy(host.address, host.port) as proxy,
    ):

        def sources(limits: Limits, lifetime: int = 600) -> Sources:
            def signed(copy: Location) -> str:
                """What is signed is the host's own URL, whatever stands before it."""
                own = f"{host.url}/replicas/{copy.image_id}"
                return f"{copy.url}?{sign(own, keys, lifetime).partition('?')[2]}"

            return Sources([], peers=http_reader.Peers(limits, signed))

        image_id = str(host.client().create(data=DATA)["id"])
        host.client().download(image_id)
        path = host.cache_dir / image_id
        settle(path.exists)
        here = Location(image_id, f"{proxy.url}/replicas/{image_id}", {HOST_KEY: host.name, "store": "web"})

        def hold(content: bytes | None) -> Location:
            path.unlink(missing_ok=True)
            if content is not None:
                keep(path, content, claims=DATA)
            return here

        yield Backend(
            hold,
            sources(LIMITS),
            sources(HASTY),
            proxy,
            expired=lambda one: (sources(LIMITS, -5), one),
        )


@contextmanager
def swift_backend(folder: Path, swift: Swift, upload: Callable[[Any, str, bytes], None]) -> Iterator[Backend]:
    connection = swift.connection()
    connection.put_container(swift.container)
    connection.put_container("segments")
    with FaultyProxy(swift.address, swift.ports["proxy"]) as proxy:
        options = swift.store_options() | {"swift_store_endpoint": proxy.url + swift.account_path}
        lines = "\n".join(f"{name} = {value}" for name, value in options.items())
        patient = load(folder, f"[DEFAULT]\nenabled_backends = fast:swift\n[fast]\n{lines}")

        def hold(content: bytes | None) -> Location:
            name = str(uuid.uuid4())
            if content is not None:
                upload(connection, name, content)
            return location(swift_url(swift, name), "fast")

        def part(content: bytes | None) -> Location:
            one = hold(DATA)
            name = f"{one.url.rpartition('/')[2]}-00002"
            if content is None:
                connection.delete_object("segments", name)
            else:
                connection.put_object("segments", name, content)
            return one

        def expired(one: Location) -> tuple[Sources, Location]:
            return patient, location(one.url.replace(":testing@", ":withdrawn@"), "fast")

        hasty = sources_of(folder, HASTY)
        for one, other in zip(hasty._readers, patient._readers, strict=True):
            if isinstance(one, swift_reader.Reader) and isinstance(other, swift_reader.Reader):
                one._accounts = other._accounts  # Keystone may take longer than these limits
        yield Backend(
            hold,
            patient,
            hasty,
            proxy,
            lambda one: f"/{swift.container}/{one.url.rpartition('/')[2]}",
            expired,
            part if upload is not plain else None,
            lambda: rotten(swift, hold),
        )
    connection.close()


@contextmanager
def s3_backend(folder: Path, server: Swift | Gateway) -> Iterator[Backend]:
    with FaultyProxy(server.address, server.s3_port) as proxy:
        made = s3_place(server, folder, proxy.url)

        def hold(content: bytes | None) -> Location:
            return location(made.absent if content is None else made.put(content), "deep")

        def expired(one: Location) -> tuple[Sources, Location]:
            conf = folder / "glance-api.conf"
            secret = server.another_secret()
            conf.write_text(re.sub("s3_store_secret_key = .*", f"s3_store_secret_key = {secret}", conf.read_text()))
            return sources_of(folder, LIMITS), one

        yield Backend(
            hold,
            made.sources,
            sources_of(folder, HASTY),
            proxy,
            lambda one: f"/{server.bucket}/{one.url.rpartition('/')[2]}",
            expired,
            rot=lambda: rotten(server, hold),
        )


def sources_of(folder: Path, limits: Limits) -> Sources:
    """Sources of the configuration in this folder."""
    from glance_replicas import settings

    return from_settings(settings.load([str(folder / "glance-api.conf")]), limits=limits)


def rotten(server: Swift | Gateway, hold: Callable[[bytes], Location]) -> Location:
    """The image, with a byte changed on the server's own disk."""
    one, edge = hold(DATA), DATA[:1000]
    if isinstance(server, Gateway):
        server.ceph.rot(DATA)
        return one
    for path in (server.folder / "devices").rglob("*.data"):
        with path.open("r+b") as data:
            if data.read(len(edge)) == edge:
                data.seek(500)
                data.write(bytes([DATA[500] ^ 0xFF]))
    return one


BACKENDS: dict[str, Callable[..., Any]] = {
    "file": file_backend,
    "http": http_backend,
    "cached": cached_backend,
    "Swift": lambda folder, swift: swift_backend(folder, swift, plain),
    "Swift DLO": lambda folder, swift: swift_backend(folder, swift, dlo),
    "Swift SLO": lambda folder, swift: swift_backend(folder, swift, slo),
    "S3": s3_backend,
    "S3 (radosgw)": s3_backend,
}
