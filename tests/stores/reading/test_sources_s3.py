"""The S3 reader over real S3 servers, and what glance_store's driver and a real Glance write there."""

import base64
import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from services import free_port
from services.glance.site import GlanceSite
from services.stores.gateway import Gateway
from services.stores.swift import Swift
from support.places.readers import LIMITS, Place, load, read, s3_place, s3_url

from glance_replicas.errors import Absent, Denied, SourceError, Unreachable, Unsupported
from glance_replicas.location import place as place_of
from glance_replicas.model import Digest, Image, Location, Result
from glance_replicas.stores.s3 import reader as s3_reader
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

DATA = random.Random(12).randbytes(100_000)
SHA256 = hashlib.sha256(DATA)
MD5 = hashlib.md5(DATA)


@pytest.fixture(scope="module")
def place(swift: Swift, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return s3_place(swift, tmp_path_factory.mktemp("s3"))


@pytest.fixture(scope="module")
def url(place: Place) -> str:
    return place.put(DATA)


def other(swift: Swift, folder: Path, **changes: str) -> Place:
    """A store with some options changed."""
    options = swift.s3_options() | {f"s3_store_{name}": value for name, value in changes.items()}
    lines = "\n".join(f"{name} = {value}" for name, value in options.items())
    sources = load(folder, f"[glance_store]\nstores = s3\ndefault_store = s3\n{lines}")
    return Place(sources, lambda _: "", s3_url(swift.url, "absent"))


def error(place: Place, url: str) -> SourceError:
    """What `open` raises, and `size` as well; no key or signature is in either text."""
    found = []
    for call in (place.open, place.size):
        with pytest.raises(SourceError) as caught:
            call(url)
        assert "Signature" not in str(caught.value)
        found.append(caught.value)
    assert type(found[0]) is type(found[1])
    return found[0]


def stored(place: Place, url: str) -> Result:
    """A look at what S3 says of an object that is to be DATA."""
    one = place.location(url)
    image = Image(one.image_id, "active", len(DATA), Digest("sha256", SHA256.hexdigest()), checksum=MD5.hexdigest())
    return probe(place.sources, image, one, Evidence.STORED)


def test_single_store(swift: Swift, tmp_path: Path, url: str) -> None:
    """A cloud without store ids reads it too, from any offset, with every spelling of the scheme."""
    place = other(swift, tmp_path)
    for scheme in ("s3", "s3+http", "s3+https"):
        assert read(place.open(url.replace("s3://", f"{scheme}://"), 7)) == DATA[7:]


def test_credentials_of_the_options(swift: Swift, tmp_path: Path, url: str) -> None:
    """As in glance_store, user and password in a URL change nothing, and are shown nowhere."""
    place = other(swift, tmp_path)
    assert read(place.open(url.replace("s3://", "s3://someone:hush@"))) == DATA
    assert "hush" not in str(error(place, s3_url(swift.url, "absent").replace("s3://", "s3://someone:hush@")))


def test_one_copy_under_three_schemes() -> None:
    """All of them read the same object, so that they are two names of one copy, which counts once."""
    first, *others = (Location("x", f"{name}://host/bucket/key") for name in ("s3", "s3+http", "s3+https"))
    assert all(place_of(first) == place_of(other) for other in others)
    assert place_of(first) != place_of(Location("x", "s3://host/bucket/other"))


def test_refused(swift: Swift, tmp_path: Path, url: str) -> None:
    """A wrong secret, and an access key that nobody has, are Denied."""
    assert type(error(other(swift, tmp_path, secret_key="0" * 32), url)) is Denied
    assert type(error(other(swift, tmp_path, access_key="0" * 32), url)) is Denied


def test_bucket_missing(swift: Swift, place: Place) -> None:
    """Without its bucket an object is not missing: this may be another account, or another server."""
    assert type(error(place, place.absent)) is Absent
    assert type(error(place, s3_url(swift.url, "absent", "no-such-bucket"))) is Unreachable


def test_another_server(place: Place, url: str) -> None:
    """A URL of another server is looked for in the store's own, as Glance does; not there is then not missing."""
    moved = url.replace("//127.0.0.1", "//s3.example.org")
    assert read(place.open(moved)) == DATA
    caught = error(place, place.absent.replace("//127.0.0.1", "//s3.example.org"))
    assert type(caught) is Unreachable
    assert "names another" in str(caught)


def test_nobody_there(swift: Swift, tmp_path: Path, url: str) -> None:
    """A server that is gone says nothing about any object."""
    assert type(error(other(swift, tmp_path, host=f"http://127.0.0.1:{free_port()}"), url)) is Unreachable


@pytest.mark.parametrize("bad", ["s3://key", "s3://host/key", "s3://http://h/bucket/key", "s3://host//", "s3://h/ /k"])
def test_no_url(place: Place, bad: str) -> None:
    """A URL without server, bucket or key is Unsupported."""
    assert type(error(place, bad)) is Unsupported


@pytest.mark.parametrize("name", ["host", "access_key", "secret_key"])
def test_options_missing(swift: Swift, tmp_path: Path, url: str, name: str) -> None:
    """A store without server or keys says which options it wants."""
    options = {key: value for key, value in swift.s3_options().items() if key != f"s3_store_{name}"}
    lines = "\n".join(f"{key} = {value}" for key, value in options.items())
    place = Place(load(tmp_path, f"[glance_store]\nstores = s3\n{lines}"), lambda _: "", "")
    assert f"s3_store_{name}" in str(error(place, url))


def test_stored(place: Place, url: str) -> None:
    """The ETag of an object of one part is held against the image's md5."""
    result = stored(place, url)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, Evidence.STORED)
    result = stored(place, place.put(DATA[::-1]))
    assert (result.verdict, result.evidence) == (Verdict.CORRUPT, Evidence.STORED)
    assert stored(place, place.put(DATA[1:])).verdict is Verdict.WRONG_SIZE
    assert stored(place, place.absent).verdict is Verdict.MISSING


@pytest.fixture(params=["swift", "gateway"])
def server(request: pytest.FixtureRequest) -> Any:
    """Swift's S3 and Ceph's."""
    return request.getfixturevalue(request.param)


def test_stored_parts(server: Swift | Gateway, tmp_path: Path) -> None:
    """The ETag of a multipart upload is no digest: `size`, and the detail says why; the bytes are read as one."""
    place = s3_place(server, tmp_path)
    client = s3_reader.S3Store(cfg.CONF, "deep", LIMITS).client()
    names: dict[str, Any] = {"Bucket": server.bucket, "Key": "parts"}
    upload = client.create_multipart_upload(**names)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(DATA), 40_000), 1):
        body = DATA[start : start + 40_000]
        etag = client.upload_part(**names, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        parts.append({"ETag": etag, "PartNumber": number})
    client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})
    url = s3_url(server.url, "parts")
    result = stored(place, url)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, Evidence.SIZE)
    assert "no digest of the whole" in result.detail
    assert read(place.open(url, 39_999)) == DATA[39_999:]


SHA256_64 = base64.b64encode(SHA256.digest()).decode()
ETAG = f'"{MD5.hexdigest()}"'
HEADERS = [
    ({"ETag": ETAG}, ["md5"]),
    ({"ETag": ETAG.upper()}, ["md5"]),
    ({"ETag": f'"{MD5.hexdigest()}-3"'}, []),
    ({"ETag": ETAG, "x-amz-server-side-encryption": "AES256"}, ["md5"]),
    ({"ETag": ETAG, "x-amz-server-side-encryption": "aws:kms"}, []),
    ({"ETag": ETAG, "x-amz-server-side-encryption-customer-algorithm": "AES256"}, []),
    ({"ETag": ETAG, "x-amz-checksum-sha256": SHA256_64}, ["sha256", "md5"]),
    ({"x-amz-checksum-sha256": SHA256_64, "x-amz-checksum-type": "FULL_OBJECT"}, ["sha256"]),
    ({"x-amz-checksum-sha256": SHA256_64, "x-amz-checksum-type": "COMPOSITE"}, []),
    ({"x-amz-checksum-sha256": f"{SHA256_64}-3"}, []),
    ({"x-amz-checksum-sha256": "AAAA", "x-amz-checksum-crc32": "AAAAAA=="}, []),
    ({}, []),
]


@pytest.mark.parametrize(("headers", "kinds"), HEADERS, ids=str)
def test_digests(headers: dict[str, str], kinds: list[str]) -> None:
    """What S3 may say is believed only where it is a digest of the whole content."""
    values = {"md5": MD5.hexdigest(), "sha256": SHA256.hexdigest()}
    assert s3_reader.digests(headers) == tuple(Digest(kind, values[kind]) for kind in kinds)


def test_written_by_the_driver(server: Swift | Gateway, tmp_path: Path) -> None:
    """What glance_store's own driver writes, in one part and in several, is read and looked at under its URL."""
    from glance_store._drivers import s3 as driver

    place = s3_place(server, tmp_path)
    store = driver.Store(cfg.CONF, "deep")
    store.configure()
    store.configure_add()
    for large_object in (1 << 30, 1):
        store.s3_store_large_object_size = large_object
        name = f"driver-{large_object}"
        written, size, md5, digest, _ = store.add(name, io.BytesIO(DATA), len(DATA), "sha512")
        assert (size, md5) == (len(DATA), MD5.hexdigest())
        one = Location(place.location(written).image_id, written, {"store": "deep"})
        image = Image(one.image_id, "active", size, Digest("sha512", digest), checksum=md5)
        assert probe(place.sources, image, one, Evidence.FULL).verdict is Verdict.INTACT
        assert probe(place.sources, image, one, Evidence.STORED).verdict is Verdict.INTACT


@pytest.fixture(scope="module")
def site(swift: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    with GlanceSite(tmp_path_factory.mktemp("site"), store="s3", swift=swift) as made:
        yield made


def test_written_by_glance(site: GlanceSite, tmp_path: Path) -> None:
    """An image uploaded to a real Glance with an S3 store: its location as it stands in the catalogue is intact."""
    from glance_replicas import settings
    from glance_replicas.catalogue.images import Catalogue
    from glance_replicas.stores.sources import from_settings

    host = site.add_host(pipeline="stock", processes=1)
    image_id = str(host.client().create(data=DATA)["id"])
    host.configure(pipeline="replicas")
    found = settings.load([str(host.config_file)])
    image = Catalogue(found.database).image(image_id)
    assert image is not None
    [one] = image.locations
    assert one.url.startswith("s3://127.0.0.1:")
    sources = from_settings(found, limits=LIMITS)
    for evidence in (Evidence.FULL, Evidence.STORED):
        result = probe(sources, image, one, evidence)
        assert (result.verdict, result.evidence) == (Verdict.INTACT, evidence)


@pytest.mark.parametrize("metadata", [{}, {"backend": "s1"}, {"store": "gone"}], ids=["none", "old key", "renamed"])
def test_rows_that_name_no_store_there_is(swift: Swift, tmp_path: Path, metadata: dict[str, str]) -> None:
    """With two stores a row from before multi-store is found by server and bucket, and asked for in no other."""
    texts, kind = [], next(iter(metadata), "none")
    for store in ("s1", "s2"):
        options = swift.s3_options() | {"s3_store_bucket": f"bucket-{kind}-{store}"}
        texts.append("\n".join([f"[{store}]", *(f"{name} = {value}" for name, value in options.items())]))
    sources = load(tmp_path, "\n".join(["[DEFAULT]", "enabled_backends = s1:s3, s2:s3", *texts]))
    client = s3_reader.S3Store(cfg.CONF, "s1", LIMITS).client()
    image = Image("x", "active", len(DATA), Digest("sha256", SHA256.hexdigest()))
    for store, data in (("s1", DATA), ("s2", bytes(len(DATA)))):
        client.create_bucket(Bucket=f"bucket-{kind}-{store}")
        client.put_object(Bucket=f"bucket-{kind}-{store}", Key="x", Body=data)
    found = {
        name: probe(
            sources, image, Location("x", s3_url(swift.url, "x", f"bucket-{kind}-{name}"), metadata), Evidence.FULL
        )
        for name in ("s1", "s2", "s3")
    }
    assert [one.verdict for one in found.values()] == [Verdict.INTACT, Verdict.CORRUPT, Verdict.UNSUPPORTED]
    assert "let its owner or an admin GET /v2/images/x" in found["s3"].detail
    gone = Location("x", s3_url(swift.url, "y", f"bucket-{kind}-s2"), metadata)
    assert probe(sources, image, gone, Evidence.FULL).verdict is Verdict.MISSING
