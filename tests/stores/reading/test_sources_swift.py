"""The Swift reader: credentials in every form, refusals, and a 404 that means something else than "missing"."""

import hashlib
import io
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from oslo_config import cfg
from services import free_port
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from support.places.readers import LIMITS, Place, dlo, load, plain, read, slo, swift_place, swift_url

from glance_replicas.errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported, WrongAnswer
from glance_replicas.model import Digest, Image, Result
from glance_replicas.stores.body import Limits
from glance_replicas.stores.swift import reader as swift_module
from glance_replicas.stores.swift.account import Account, Endpoint
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

DATA = random.Random(9).randbytes(100_000)
KEY = ":testing@"  # as it stands in a URL


@pytest.fixture(scope="module")
def url(swift: Swift, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plain object."""
    return swift_place(swift, tmp_path_factory.mktemp("swift"), plain).put(DATA)


def single(swift: Swift, folder: Path, **changes: str) -> Place:
    """A single-store cloud with Swift, with some options changed."""
    options = "\n".join(f"{name} = {value}" for name, value in (swift.store_options() | changes).items())
    sources = load(folder, f"[glance_store]\nstores = swift\ndefault_store = swift\n{options}")
    return Place(sources, lambda _: "", swift_url(swift, "absent"))


def error(place: Place, url: str) -> type[SourceError]:
    """What `open` raises, and `size` as well; the key is in neither text."""
    kinds = set()
    for call in (place.open, place.size):
        with pytest.raises(SourceError) as caught:
            call(url)
        assert KEY not in str(caught.value)
        kinds.add(type(caught.value))
    assert len(kinds) == 1
    return kinds.pop()


def test_single_store(swift: Swift, tmp_path: Path, url: str) -> None:
    """The URL that Glance writes, with user and key in it, in a cloud without store ids."""
    assert read(single(swift, tmp_path).open(url)) == DATA


def test_configuration_file(swift: Swift, tmp_path: Path, url: str) -> None:
    """`swift+config` URLs take user, key and address from the file named in the options; an unknown name does not."""
    options = swift.store_options()
    names = ("user", "key", "auth_address")
    lines = "\n".join(f"{name} = {options[f'swift_store_{name}']}" for name in names)
    (tmp_path / "swift.conf").write_text(f"[known]\n{lines}\nproject_domain_id = default\nuser_domain_id = default\n")
    place = single(swift, tmp_path, swift_store_config_file=str(tmp_path / "swift.conf"))
    name = url.rpartition("/")[2]
    assert read(place.open(f"swift+config://known/{swift.container}/{name}", 5)) == DATA[5:]
    assert error(place, f"swift+config://unknown/{swift.container}/{name}") is Unsupported


def test_no_configuration_file(swift: Swift, tmp_path: Path) -> None:
    """A file that is not there is an error of ours for every URL, not of the library."""
    place = single(swift, tmp_path, swift_store_config_file=str(tmp_path / "nowhere"))
    assert error(place, "swift+config://known/glance/x") is Unsupported


def test_unreadable_configuration(swift: Swift, tmp_path: Path) -> None:
    """A password that the library's parser cannot read (a `%` stands for another option) is an error of that URL."""
    (tmp_path / "swift.conf").write_text("[known]\nuser = a:b\nkey = 50%\nauth_address = http://keystone/v3\n")
    place = single(swift, tmp_path, swift_store_config_file=str(tmp_path / "swift.conf"))
    assert error(place, "swift+config://known/glance/x") is Unsupported


class Named(Account):
    """An account whose address is its user's name; nobody is asked."""

    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://{self._credentials.user}", "token")


def test_many_threads_read_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each URL gets the credentials of its own store's file, whoever else is reading his."""
    monkeypatch.setattr(swift_module, "Account", Named)
    stores = ("red", "blue")
    text = "[DEFAULT]\nenabled_backends = red:swift, blue:swift\n[glance_store]\ndefault_backend = red\n"
    for store in stores:
        rest = "".join(f"[other{number}]\nuser = u\nkey = k\nauth_address = http://a/v3\n" for number in range(20))
        (tmp_path / store).write_text(f"[known]\nuser = {store}:u\nkey = k\nauth_address = http://a/v3\n{rest}")
        text += f"[{store}]\nswift_store_config_file = {tmp_path / store}\ndefault_swift_reference = known\n"
    load(tmp_path, text)
    readers = {store: swift_module.Reader(cfg.CONF, store, LIMITS) for store in stores}

    def ask(store: str) -> set[str]:
        url = "swift+config://known/glance/x"
        return {readers[store].ask(url, lambda target, _: target.url) for _ in range(20)}

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, stores * 4))
    finally:
        sys.setswitchinterval(before)
    assert found == [{f"http://{store}:u/glance/x"} for store in stores * 4]


@pytest.mark.parametrize(
    "bad", ["swift://a:b:c@", "swift://", "swift+http://host/c/o", "swift+http://a:b:c@http://h/c/o"]
)
def test_no_url(swift: Swift, tmp_path: Path, bad: str) -> None:
    """A URL without credentials, or that is none, is Unsupported."""
    assert error(single(swift, tmp_path), bad) is Unsupported


def test_wrong_key(swift: Swift, tmp_path: Path, url: str) -> None:
    """A key that Keystone refuses is Denied."""
    assert error(single(swift, tmp_path), url.replace(KEY, ":other@")) is Denied


def test_authorisation_not_there(swift: Swift, tmp_path: Path, url: str) -> None:
    """An authorisation service that is gone, or answers 404, says nothing about any object."""
    place = single(swift, tmp_path)
    port = str(swift.keystone.port)
    assert error(place, url.replace(f":{port}/", f":{free_port()}/")) is Unreachable
    assert error(place, url.replace(f":{port}/v3", f":{swift.ports['proxy']}/nothing/v3")) is Unreachable


def test_no_such_endpoint(swift: Swift, tmp_path: Path, url: str) -> None:
    """A region without an object store is Unreachable."""
    assert error(single(swift, tmp_path, swift_store_region="elsewhere"), url) is Unreachable


def test_container_missing(swift: Swift, tmp_path: Path) -> None:
    """Without its container an object is not missing: this may be another account than the one it is in."""
    place = single(swift, tmp_path)
    assert error(place, swift_url(swift, "absent")) is Absent
    assert error(place, swift_url(swift, "absent", "no-such-container")) is Unreachable


def test_token_revoked(swift: Swift, tmp_path: Path, url: str) -> None:
    """A token that is refused is replaced once, unseen by the caller."""
    place = single(swift, tmp_path)
    assert place.size(url) == len(DATA)
    [account] = place.sources._readers[1]._accounts.values()  # type: ignore[attr-defined]
    token = account.endpoint().token
    headers = {"X-Auth-Token": token, "X-Subject-Token": token}
    requests.delete(f"{swift.keystone.auth_url}/auth/tokens", headers=headers, timeout=10).raise_for_status()
    account._endpoint = type(account._endpoint)(
        account.endpoint().url, "no token at all"
    )  # Swift's middleware keeps the old one
    assert read(place.open(url)) == DATA
    assert account.endpoint().token not in (token, "no token at all")


def test_segment_missing(swift: Swift, tmp_path: Path) -> None:
    """A DLO that lost a segment is shorter than it was; an SLO does not deliver. Neither ends as if it were whole."""
    connection = swift.connection()
    for upload in (dlo, slo):
        place = swift_place(swift, tmp_path, upload)
        url = place.put(DATA)
        name = url.rpartition("/")[2]
        connection.delete_object("segments", f"{name}-00002")
        if upload is dlo:
            assert place.size(url) == len(DATA) - (len(DATA) // 5 + 1)
        else:
            with pytest.raises((Unreachable, WrongAnswer)):
                read(place.open(url))


def stored(place: Place, url: str) -> Result:
    """A look at what Swift says of an object that is to be DATA."""
    sha512, md5 = hashlib.sha512(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()
    location = place.location(url)
    image = Image(location.image_id, "active", len(DATA), Digest("sha512", sha512), checksum=md5)
    return probe(place.sources, image, location, Evidence.STORED)


def test_stored_plain(swift: Swift, tmp_path: Path, url: str) -> None:
    """The ETag of a plain object is held against the image's md5; nothing is read."""
    reads = swift.count(url.rpartition("/")[2])
    result = stored(single(swift, tmp_path), url)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, Evidence.STORED)
    place = swift_place(swift, tmp_path, plain)
    result = stored(place, place.put(DATA[::-1]))
    assert (result.verdict, result.evidence) == (Verdict.CORRUPT, Evidence.STORED)
    assert stored(place, place.put(DATA[1:])).verdict is Verdict.WRONG_SIZE
    assert swift.count(url.rpartition("/")[2]) == reads


def test_stored_without_md5(swift: Swift, tmp_path: Path, url: str) -> None:
    """An image without an md5 has nothing to hold an ETag against: `size`, and it is said."""
    place = single(swift, tmp_path)
    image = Image(place.location(url).image_id, "active", len(DATA), Digest("sha512", "00" * 64))
    result = probe(place.sources, image, place.location(url), Evidence.STORED)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, Evidence.SIZE)


@pytest.mark.parametrize("upload", [dlo, slo])
def test_stored_large(swift: Swift, tmp_path: Path, upload: Any) -> None:
    """Segments that are there as listed are `size`; one that is gone, or is another one, is damage by `stored`."""
    connection, place = swift.connection(), swift_place(swift, tmp_path, upload)
    result = stored(place, place.put(DATA))
    assert (result.verdict, result.evidence) == (Verdict.INTACT, Evidence.SIZE)
    assert "5 segments" in result.detail
    replaced = place.put(DATA)
    piece = b"x" * (len(DATA) // 5 + 1)
    connection.put_object("segments", f"{replaced.rpartition('/')[2]}-00001", io.BytesIO(piece))
    gone = place.put(DATA)
    connection.delete_object("segments", f"{gone.rpartition('/')[2]}-00003")
    if upload is slo:
        for url, text in ((replaced, "segment 2 of 5 of the SLO"), (gone, "segment 4 of 5 of the SLO")):
            result = stored(place, url)
            assert (result.verdict, result.evidence) == (Verdict.CORRUPT, Evidence.STORED)
            assert text in result.detail
    else:  # its list is made of what is there
        assert stored(place, replaced).verdict is Verdict.INTACT
        assert stored(place, gone).verdict is Verdict.WRONG_SIZE


def test_stored_one_segment(swift: Swift, tmp_path: Path) -> None:
    """What Glance makes of an upload whose size it is not told: a DLO of one segment, whose ETag is the image's md5."""
    connection, place = swift.connection(), swift_place(swift, tmp_path, plain)
    url = place.put(b"")
    name = url.rpartition("/")[2]
    connection.put_object("segments", f"{name}-00001", io.BytesIO(DATA))
    connection.put_object(swift.container, name, b"", headers={"X-Object-Manifest": f"segments/{name}-"})
    result = stored(place, url)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, Evidence.STORED)
    connection.put_object("segments", f"{name}-00001", io.BytesIO(DATA[::-1]))
    assert stored(place, url).verdict is Verdict.CORRUPT


def test_stored_absent(swift: Swift, tmp_path: Path) -> None:
    """What is not there is missing by any evidence; a container that is not there is not."""
    place = single(swift, tmp_path)
    assert stored(place, swift_url(swift, "absent")).verdict is Verdict.MISSING
    assert stored(place, swift_url(swift, "absent", "no-such-container")).verdict is Verdict.UNREACHABLE


@pytest.fixture
def faulty_swift(swift: Swift, faulty: FaultyServer, tmp_path: Path) -> swift_module.Reader:
    """A reader with short limits of a cloud whose storage, though not its Keystone, is the server with faults."""
    single(swift, tmp_path, swift_store_endpoint=f"{faulty.url}/v1/AUTH_test")
    patient, made = (swift_module.Reader(cfg.CONF, None, one) for one in (LIMITS, Limits(connect=0.5, stall=0.5)))
    with pytest.raises(Unreachable):
        patient.size(swift_url(swift, "absent", "c"))
    made._accounts = patient._accounts  # Keystone may take longer than these limits
    return made


@pytest.fixture
def base(swift: Swift) -> str:
    """What the URL of an object in container `c` begins with."""
    return swift_url(swift, "", "c")


def test_request(faulty_swift: swift_module.Reader, faulty: FaultyServer, base: str) -> None:
    """What goes out: a token, the range, no key, and names quoted as Glance quotes them."""
    faulty.put("/v1/AUTH_test/c/o%25", DATA)
    with faulty_swift.open(f"{base}o%", 7) as body:
        assert b"".join(body) == DATA[7:]
    [request] = faulty.requests("/v1/AUTH_test/c/o%25")
    assert request.range == "bytes=7-"
    assert request.headers["X-Auth-Token"]
    assert "testing" not in str(request)


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        ({"stall_before_headers": True}, Stalled),
        ({"stall_at": 50_000}, Stalled),
        ({"truncate_at": 50_000}, Unreachable),
        ({"status": 503}, Unreachable),
        ({"status": 401}, Denied),
        ({"status": 403}, Denied),
        ({"redirect_to": "http://127.0.0.1/"}, WrongAnswer),
    ],
    ids=str,
)
def test_faults(
    faulty_swift: swift_module.Reader, faulty: FaultyServer, base: str, faults: dict[str, Any], kind: type[SourceError]
) -> None:
    """Faults of the storage are the same errors as with any web server, within the same limits."""
    faulty.put("/v1/AUTH_test/c/o", DATA, **faults)
    with pytest.raises(SourceError) as caught, faulty_swift.open(f"{base}o") as body:
        b"".join(body)
    assert type(caught.value) is kind
    assert "testing" not in str(caught.value)


def test_not_swift(faulty_swift: swift_module.Reader, faulty: FaultyServer, base: str) -> None:
    """A 404 of something that is not Swift is never "missing", even if it answers for the container."""
    with pytest.raises(Unreachable):
        faulty_swift.open(f"{base}o")
    faulty.put("/v1/AUTH_test/c", b"")
    with pytest.raises(Unreachable, match="not Swift"):
        faulty_swift.open(f"{base}o")
