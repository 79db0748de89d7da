"""The per-host URL in a real Glance: who is let in, and exactly which bytes come out, under uWSGI and gunicorn."""

import http.client
import os
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services import eventually
from services.configuration import SIGNING_KEYS
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from services.process import members
from services.web.faulty import FaultyServer
from support.worlds.cached import picture
from support.worlds.scenes import settle

from glance_replicas.cache import Cache
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import default_ledger
from glance_replicas.signing import parse_keys, sign

MIB = 1 << 20
DATA = random.Random(3).randbytes(3 * MIB + 5)
SIZE = len(DATA)
KEYS = parse_keys(SIGNING_KEYS)
OTHER = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[GlanceSite]:
    with GlanceSite(tmp_path_factory.mktemp("site"), postgres.create_glance("test_server")) as made:
        Ledger(default_ledger(made.database_url)).upgrade()
        yield made


@pytest.fixture(scope="module", params=["uwsgi", "gunicorn", "uwsgi, sendfile"])
def host(site: GlanceSite, request: pytest.FixtureRequest) -> Iterator[GlanceHost]:
    """One host under each WSGI server in turn; 127.0.0.1, where the tests call from, is not trusted."""
    server, _, direct = request.param.partition(", ")
    address = {"uwsgi": "127.0.0.2", "gunicorn": "127.0.0.3", "uwsgi, sendfile": "127.0.0.4"}[request.param]
    options = {"replicas": {"sendfile": "uwsgi" if direct else "off"}}
    with site.add_host(address, server=server, threads=16, options=options) as made:
        yield made


@pytest.fixture(scope="module")
def image(host: GlanceHost) -> str:
    """An image this host has cached."""
    image_id = str(host.client().create(data=DATA)["id"])
    assert host.client().download(image_id).content == DATA
    end = time.monotonic() + 10
    while not (host.cache_dir / image_id).exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return image_id


def signed(host: GlanceHost, image_id: str, **changes: int) -> str:
    return sign(f"{host.url}/replicas/{image_id}", KEYS, changes.get("lifetime", 600))


def get(url: str, method: str = "GET", **headers: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return session.request(method, url, headers=names, timeout=30, allow_redirects=False)


def raw(host: GlanceHost, request: bytes) -> bytes:
    """What the server sends until it closes, byte for byte."""
    with socket.create_connection((host.address, host.port), 10) as connection:
        connection.sendall(request)
        got = bytearray()
        while chunk := connection.recv(1 << 16):
            got += chunk
    return bytes(got)


def test_signed_get_and_head(host: GlanceHost, image: str) -> None:
    """A signature for GET opens GET and HEAD, with digest headers (RFC 9530) and the whole length."""
    whole = get(signed(host, image))
    assert (whole.status_code, whole.content) == (200, DATA)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Repr-Digest"].startswith("sha-512=:")
    assert whole.headers["Cache-Status"] == f'"{host.name}"; hit'
    head = get(signed(host, image), "HEAD")
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(SIZE), b"")


def test_signatures_that_do_not_open(host: GlanceHost, image: str) -> None:
    """Missing, cut, changed, expired, too far off, for another image or method, doubled: 403 for all of them."""
    good = signed(host, image)
    base, _, query = good.partition("?")
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    bad = [
        base,
        f"{base}?",
        good[:-1],
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.replace("kid=new", "kid=none"),
        good.replace(fields["expires"], str(int(fields["expires"]) + 1)),
        good.replace(f"expires={fields['expires']}", "expires=9" + "9" * 400),
        good.replace(f"expires={fields['expires']}", "expires=-1"),
        f"{good}&sig={fields['sig']}",
        f"{base}?sig={fields['sig']}&kid=new",
        signed(host, image, lifetime=-5),
        signed(host, image, lifetime=365 * 86400),
        signed(host, OTHER).replace(OTHER, image),
        sign(base, KEYS, 600, method="DELETE"),
        good.replace("sig=", "sig=%C3%BF"),
    ]
    for url in bad:
        assert get(url).status_code == 403, url
    for method in ("PUT", "POST", "DELETE", "OPTIONS"):
        assert get(good, method).status_code in (405, 200 if method == "OPTIONS" else 405)


def test_query_order_does_not_matter_and_old_key_opens(host: GlanceHost, image: str) -> None:
    """During a rotation URLs signed with either key open, in any order of parameters."""
    base, _, query = sign(f"{host.url}/replicas/{image}", KEYS[1:], 600).partition("?")
    assert get(f"{base}?{'&'.join(reversed(query.split('&')))}").status_code == 200


def test_refusal_tells_nothing(host: GlanceHost, image: str) -> None:
    """Without a signature a cached, an uncached and a missing image look the same."""
    answers = [get(f"{host.url}/replicas/{one}") for one in (image, OTHER)]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/replicas",
        "/replicas/",
        "/replicas/../v2/images",
        "/replicas/..%2f..%2fetc%2fpasswd",
        "/replicas/%2e%2e/%2e%2e/etc/passwd",
        "/replicas//{image}",
        "/replicas/{image}/",
        "/replicas/{image}%00",
        "/replicas/{upper}",
        "/replicas/incomplete/{image}",
        "/replicas/" + "a" * 5000,
        "/replicas/\xff\xfe",
    ],
)
def test_odd_paths(host: GlanceHost, image: str, path: str) -> None:
    """No spelling of a path reaches another file, and none is an error of the server."""
    path = path.format(image=image, upper=image.upper())
    query = signed(host, image).partition("?")[2]
    answer = raw(host, f"GET {path}?{query} HTTP/1.0\r\nHost: x\r\n\r\n".encode("latin-1"))
    status = int(answer.split(b" ", 2)[1]) if answer else 400
    # Paste's urlmap makes one slash of two; uWSGI resolves "..", and then it is Glance that wants to know who asks.
    if status == 200 and "//" in path:
        assert answer.endswith(DATA)
    else:
        assert status in (400, 401, 403, 404, 414), answer[:200]


RANGES = {
    "bytes=0-0": DATA[:1],
    f"bytes={SIZE - 1}-": DATA[-1:],
    "bytes=-1": DATA[-1:],
    f"bytes=-{SIZE * 2}": DATA,
    f"bytes=100-{SIZE * 9}": DATA[100:],
    f"bytes=0-{SIZE - 1}": DATA,
}
IGNORED = [
    "bytes=-0",
    "bytes=0-1,5-6",
    "items=0-1",
    "bytes=x-y",
    "bytes=-",
    "bytes=5-1",
    "bytes=--5",
    f"bytes={10**30}-",
]


def test_ranges(host: GlanceHost, image: str) -> None:
    """Good ranges give exactly those bytes; those that cannot be met 416; the rest are ignored (RFC 9110 14.2)."""
    url = signed(host, image)
    for header, expected in RANGES.items():
        answer = get(url, Range=header)
        assert (answer.status_code, answer.content == expected) == (206, True), header
        assert int(answer.headers["Content-Length"]) == len(expected)
        start = (
            DATA.index(expected)
            if len(expected) > 100
            else int(answer.headers["Content-Range"].split()[1].split("-")[0])
        )
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{SIZE}"
    for header in (f"bytes={SIZE}-", f"bytes={10**17}-"):
        answer = get(url, Range=header)
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}"), header
    for header in [*IGNORED, "bytes=" + ",".join(f"{n}-{n}" for n in range(1000))]:
        answer = get(url, Range=header)
        assert (answer.status_code, answer.content == DATA) in ((200, True), (416, False)), header
    head = get(url, "HEAD", Range="bytes=0-9")
    assert head.content == b""


def test_conditions(host: GlanceHost, image: str) -> None:
    """If-None-Match and If-Range work with the one strong ETag, which is the same on all hosts: the digest."""
    url = signed(host, image)
    etag = get(url, "HEAD").headers["ETag"]
    assert get(url, If_None_Match=etag).status_code == 304
    assert get(url, If_None_Match="*").status_code == 304
    assert get(url, If_None_Match='"other"').content == DATA
    assert get(url, Range="bytes=1-2", If_Range=etag).content == DATA[1:3]
    assert get(url, Range="bytes=1-2", If_Range='"other"').content == DATA
    assert get(url, Range="bytes=1-2", If_Range="Wed, 21 Oct 2015 07:28:00 GMT").status_code == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, SIZE - 1), length=st.integers(1, SIZE), through_api=st.booleans())
def test_random_ranges(host: GlanceHost, image: str, start: int, length: int, through_api: bool) -> None:
    """Any range, on the image's own URL and on the per-host one: the right bytes, as many as Content-Length says."""
    stop = min(SIZE, start + length)
    target = f"/v2/images/{image}/file" if through_api else signed(host, image).removeprefix(host.url)
    connection = http.client.HTTPConnection(host.address, host.port, timeout=30)
    try:
        headers = {**host.client().identity, "Range": f"bytes={start}-{stop - 1}", "Connection": "close"}
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        declared = int(answer.headers["Content-Length"])
        body = answer.fp.read() if answer.fp else b""  # past the declared length too, should there be more
    finally:
        connection.close()
    assert (answer.status, declared, len(body)) == (206, stop - start, stop - start)
    assert body == DATA[start:stop]


def a_range(host: GlanceHost, image_id: str, number: int, start: int, length: int) -> requests.Response:
    """A range of an image, from its own URL and from the per-host one in turn, which may want to be asked again."""
    header = f"bytes={start}-{min(SIZE, start + length) - 1}"
    if number % 2:
        answer = get(signed(host, image_id), Range=header)
        while answer.status_code == 503:
            time.sleep(int(answer.headers["Retry-After"]) / 10)
            answer = get(signed(host, image_id), Range=header)
        return answer
    return host.client().download(image_id, headers={"Range": header})


def test_ranges_while_filling(host: GlanceHost, faulty: FaultyServer) -> None:
    """Ranges asked of both URLs during a fill are exactly right, also ahead of what is there."""
    image_id = host.client().create(data=DATA)["id"]
    host.site.move_to(faulty, image_id, rate=2 * MIB)
    with ThreadPoolExecutor(8) as pool:
        whole = pool.submit(lambda: host.client().download(image_id).content)
        assert eventually(lambda: begun(host, image_id) > SIZE // 3)
        chosen = [(random.Random(n).randrange(SIZE), 1 + random.Random(-n).randrange(MIB)) for n in range(1, 8)]
        answers = [pool.submit(a_range, host, image_id, number, *one) for number, one in enumerate(chosen)]
        for (start, length), answer in zip(chosen, answers, strict=True):
            expected = DATA[start : min(SIZE, start + length)]
            assert (answer.result().status_code, answer.result().content == expected) == (206, True)
            assert int(answer.result().headers["Content-Length"]) == len(expected)
        assert whole.result() == DATA
    ahead = sum(start + length > SIZE // 3 for start, length in chosen)
    assert host.site.backend_reads(image_id) <= 1 + ahead < 1 + len(chosen), "the fill, and ranges ahead of it"


def begun(host: GlanceHost, image_id: str) -> int:
    """Bytes of its partial file."""
    path = host.partial_dir / image_id
    return path.stat().st_size if path.exists() else 0


def test_head_of_a_growing_file(host: GlanceHost) -> None:
    """HEAD tells the whole length at once, also while no byte has come, and hurries nobody (B 25)."""
    image_id = host.client().create(data=DATA)["id"]
    partial_file = Cache(host.cache_dir).partials.begin(picture(image_id, SIZE, DATA))
    assert partial_file is not None
    for length in (0, MIB):
        partial_file.append(DATA[:length], 0)
        began = time.monotonic()
        answer = get(signed(host, image_id), "HEAD")
        assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, str(SIZE), b"")
        assert answer.headers["Cache-Status"].endswith("hit; detail=filling")
        assert time.monotonic() - began < 5
        assert not partial_file.is_wanted
    partial_file.discard()
    assert get(signed(host, image_id), "HEAD").status_code == 404


@pytest.fixture(scope="module")
def busy(site: GlanceSite) -> Iterator[GlanceHost]:
    """A host of one process that sends two bodies at a time."""
    options = {"replicas": {"max_peer_streams": "2"}}
    with site.add_host("127.0.0.4", processes=1, threads=16, options=options) as made:
        yield made


def cached(host: GlanceHost, data: bytes) -> str:
    """An image of these bytes that the host has."""
    image_id = str(host.client().create(data=data)["id"])
    assert host.client().download(image_id).content == data
    assert eventually((host.cache_dir / image_id).exists)
    return image_id


def test_a_busy_host_refuses(busy: GlanceHost) -> None:
    """Two bodies are sent at a time: a third gets 503 and when to come again, HEAD is answered (F 63)."""
    data = random.Random(4).randbytes(24 * MIB)
    image_id = cached(busy, data)
    slow = [requests.get(signed(busy, image_id), stream=True, timeout=30) for _ in range(2)]
    assert [one.status_code for one in slow] == [200, 200]
    third = get(signed(busy, image_id))
    assert (third.status_code, int(third.headers["Retry-After"]) > 0) == (503, True)
    assert get(signed(busy, image_id), "HEAD").status_code == 200
    assert busy.client().download(image_id).content == data, "Glance's own URL is not limited"
    assert slow[0].content == data
    assert eventually(lambda: get(signed(busy, image_id)).status_code == 200)
    slow[1].close()


def test_hosts_pass_a_busy_one_by(busy: GlanceHost, faulty: FaultyServer) -> None:
    """The one host that has an image sends enough already: another one asks the store, and its client is served."""
    data = random.Random(6).randbytes(24 * MIB)
    image_id = str(busy.client().create(data=data)["id"])
    busy.site.move_to(faulty, image_id)
    assert busy.client().download(image_id).content == data
    assert eventually(lambda: len(busy.site.locations(image_id)) == 2), "not registered"
    slow = [requests.get(signed(busy, image_id), stream=True, timeout=30) for _ in range(2)]
    assert [one.status_code for one in slow] == [200, 200]
    with busy.site.add_host("127.0.0.5", processes=1) as other:
        busy.site.wait_known()
        assert other.client().download(image_id).content == data
        assert f"image {image_id}: answered 503: max_peer_streams reads are running" in busy.log()
        assert eventually((other.cache_dir / image_id).exists)
    assert busy.site.backend_reads(image_id) == 2
    for one in slow:
        one.close()


def test_places_are_given_back(busy: GlanceHost) -> None:
    """Whole bodies, ranges, 304, 416, clients that leave: no place is lost (F 63)."""
    url = signed(busy, cached(busy, DATA))
    etag = get(url).headers["ETag"]
    cases: list[tuple[dict[str, str], int]] = [({}, 200), ({"Range": "bytes=5-9"}, 206)]
    cases += [({"If_None_Match": etag}, 304), ({"Range": "bytes=99999999-"}, 416)]
    for _ in range(3):
        for headers, status in cases:
            assert eventually(lambda headers=headers, status=status: get(url, **headers).status_code == status)
        requests.get(url, stream=True, timeout=30).close()
    assert eventually(lambda: get(url).content == DATA)


def test_deactivated_and_deleted_are_refused(host: GlanceHost) -> None:
    """A signature does not outlive the image, nor its activation (promise 6)."""
    image_id = host.client().create(data=DATA)["id"]
    host.client().download(image_id)
    url = signed(host, image_id)
    assert get(url).content == DATA
    host.client().deactivate(image_id)
    assert get(url).status_code == 403
    host.client().reactivate(image_id)
    assert get(url).status_code == 200
    host.client().delete(image_id)
    assert get(url).status_code == 404


def test_not_cached_here(host: GlanceHost) -> None:
    """An image this host does not hold is 404 at once, so that the client goes elsewhere."""
    image_id = host.client().create(data=DATA)["id"]
    assert get(signed(host, image_id)).status_code == 404


def test_unverified_file_is_not_given_away(host: GlanceHost) -> None:
    """What the stock cache left is verified on its way: wrong bytes do not end well, and a part of it is not given."""
    image_id = host.client().create(data=DATA)["id"]
    path = host.cache_dir / image_id
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    assert get(signed(host, image_id), Range="bytes=0-9").status_code == 503
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        get(signed(host, image_id))
    assert not path.exists()
    path.write_bytes(DATA)
    assert get(signed(host, image_id)).content == DATA


def test_who_waits_for_a_fill(host: GlanceHost) -> None:
    """A host that reads a fill in progress only for its own sake leaves it in the background (RFC 9218)."""
    image_id = host.client().create(data=DATA)["id"]
    partial_file = Cache(host.cache_dir).partials.begin(picture(image_id, SIZE, DATA))
    assert partial_file is not None
    partial_file.append(DATA[:MIB], 0)
    for headers, wanted in (({"Priority": "u=7"}, False), ({}, True)):
        with requests.get(signed(host, image_id), headers=headers, stream=True, timeout=30) as answer:
            assert next(answer.iter_content(1000)) == DATA[:1000]
            assert partial_file.is_wanted == wanted
    partial_file.discard()


def test_file_cut_short_while_it_is_sent(host: GlanceHost) -> None:
    """A complete file that loses its tail under a reader: the rest comes from the store, whoever sends the file."""
    data = random.Random(4).randbytes(32 * MIB)  # far more than sockets hold
    image_id = host.client().create(data=data)["id"]
    assert host.client().download(image_id).content == data
    settle((host.cache_dir / image_id).exists)
    url = f"{host.url}/v2/images/{image_id}/file"
    with requests.get(url, headers=host.client().identity, stream=True, timeout=30) as answer:
        body = answer.iter_content(MIB)
        got = next(body)
        os.truncate(host.cache_dir / image_id, 28 * MIB)
        assert got + b"".join(body) == data
        assert answer.headers["Cache-Status"] == f'"{host.name}"; hit'


def test_client_that_leaves_a_hit(host: GlanceHost, image: str) -> None:
    """Clients that go in the middle of a complete file leave nothing open, and the host serves on."""
    for _ in range(20):
        with socket.create_connection((host.address, host.port), 10) as connection:
            path = signed(host, image).removeprefix(host.url)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert get(signed(host, image)).content == DATA
    name = str(host.cache_dir / image)
    settle(lambda: not any(name in opened(pid) for pid in members(host.process.pid)))


@pytest.mark.parametrize("stall_at", [0, MIB])
def test_a_client_that_sends_nothing_more(host: GlanceHost, faulty: FaultyServer, stall_at: int) -> None:
    """A reader of a fill half-closes before its first byte, or behind some: it gets all (RFC 9112 section 9.6)."""
    image_id = host.client().create(data=DATA)["id"]
    host.site.move_to(faulty, image_id, stall_at=stall_at)
    with ThreadPoolExecutor(1) as pool, socket.create_connection((host.address, host.port), 30) as connection:
        whole = pool.submit(lambda: host.client().download(image_id).content)
        settle(lambda: faulty.reads(f"/{image_id}") > 0)
        path = signed(host, image_id).removeprefix(host.url)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)
        time.sleep(1.0)
        faulty.change(f"/{image_id}", stall_at=None)
        body = connection.makefile("rb").read().partition(b"\r\n\r\n")[2]
        assert (len(body), body == DATA, whole.result() == DATA) == (SIZE, True, True)


def opened(pid: int) -> list[str]:
    """What a process has open."""
    return [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()]


def test_sendfile_where_it_cannot_be(site: GlanceSite) -> None:
    """`sendfile = uwsgi` under another server stops the start, and the log says why."""
    made = site.add_host("127.0.0.5", server="gunicorn", options={"replicas": {"sendfile": "uwsgi"}}, start=False)
    with pytest.raises(RuntimeError, match="this process is not run by uWSGI"):
        made.start()
    site.hosts.remove(made)
