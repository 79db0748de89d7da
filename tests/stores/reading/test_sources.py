"""The contract of every reader: one suite over files, web servers, Swift's kinds of object, S3, Ceph, others."""

import concurrent.futures
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services import eventually
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from services.web.nginx import Nginx
from support import outside
from support.places.readers import (
    DATA,
    LIMITS,
    SIZE,
    Place,
    dlo,
    file_place,
    load,
    outside_place,
    plain,
    rbd_place,
    read,
    s3_place,
    slo,
    store_place,
    swift_place,
    swift_url,
)

from glance_replicas.checksum import BLOCK
from glance_replicas.errors import Absent, Unsupported, WrongAnswer
from glance_replicas.model import Location
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.sources import Sources

PLACES = ["file", "faulty", "nginx", "swift", "dlo", "slo", "s3", "radosgw", "rbd", "store", "outside"]


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Every kind of place in turn."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "file":
        yield file_place(folder)
    elif request.param == "store":
        yield store_place(folder)
    elif request.param == "outside":
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(outside.install(folder))
            yield outside_place(folder)
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
