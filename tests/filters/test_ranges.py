"""Ranges and conditions on a host that has not got the image: answered at once, begun nothing, holding nobody."""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from services import eventually
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.cloud import DATA as CLOUD_DATA
from support.worlds.cloud import MIB, Cloud, fill
from support.worlds.cloud import SIZE as CLOUD_SIZE
from support.worlds.scenes import new_image

from glance_replicas.errors import Unreachable
from glance_replicas.middleware.sending.connection import Connection
from glance_replicas.middleware.sending.parking import Parking, Spot
from glance_replicas.model import Image
from glance_replicas.transfer import byte_range

pytest_plugins = ["support.worlds.cloud"]

SIZE = 6 * MIB + 77
THREADS = 4
SLOW = MIB // 2  # bytes per second: the whole takes 12 seconds
SOON = 5.0  # seconds; well below what the whole takes, and above what this machine needs when others use it


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """One process with a few threads, no janitor beside it."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        options = {"replicas": {"janitor": "false"}, "oslo_messaging_notifications": {"driver": "log"}}
        yield made.add_host("127.0.0.2", processes=1, threads=THREADS, options=options)


def test_a_body_broken_off_names_its_image(caplog: pytest.LogCaptureFixture) -> None:
    """The log line of a thread of ours whose client has left says whose bytes it sent."""
    parking, ended = Parking(1, 1), threading.Event()
    _of_the_server, place = parking.place(), parking.place()
    assert isinstance(place, Spot)
    ours, client = socket.socketpair()

    def work() -> Iterator[None]:
        connection.send(b"x")
        yield

    with ours, caplog.at_level("INFO"):
        connection = Connection(ours.fileno())
        client.close()
        place.send(connection, work(), ended.set, "image i-1")
        assert ended.wait(10)
    assert "image i-1: a body was broken off: " in caplog.text


def test_a_client_that_resets_its_connection_ends_its_body() -> None:
    """What follows a body follows one that a client has torn down, too: its use is counted, its end told."""
    parking, ended = Parking(1, 1), threading.Event()
    _of_the_server, place = parking.place(), parking.place()
    assert isinstance(place, Spot)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()

    def work() -> Iterator[None]:
        while True:
            connection.send(bytes(1000))
            yield

    with ours:
        connection = Connection(ours.fileno())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        client.close()
        place.send(connection, work(), ended.set, "image i-1")
        assert ended.wait(10)
    parking.drain()


def cold(host: GlanceHost, faulty: FaultyServer, **faults: object) -> tuple[str, bytes]:
    """An image that only a slow server has."""
    image_id, data = new_image(host, SIZE)
    host.site.move_to(faulty, image_id, **({"rate": SLOW} | faults))
    return image_id, data


def is_begun(host: GlanceHost, image_id: str) -> bool:
    """Whether anything of the image is in the directory."""
    return any(image_id in path.name for path in host.cache_dir.rglob("*"))


def test_a_range_on_a_miss(host: GlanceHost, faulty: FaultyServer) -> None:
    """The end of a cold image comes at once, by one request for these bytes alone; nothing is begun or kept."""
    image_id, data = cold(host, faulty)
    began = time.monotonic()
    answer = host.client().download(image_id, headers={"Range": f"bytes={SIZE - 1000}-"})
    assert time.monotonic() - began < SOON
    assert (answer.status_code, answer.content) == (206, data[-1000:])
    assert answer.headers["Content-Range"] == f"bytes {SIZE - 1000}-{SIZE - 1}/{SIZE}"
    first = host.client().download(image_id, headers={"Range": "bytes=0-0"})
    assert (first.status_code, first.content) == (206, data[:1])
    time.sleep(0.3)
    assert not is_begun(host, image_id)
    asked = [one.range for one in faulty.requests(f"/{image_id}") if one.method == "GET"]
    assert asked == [f"bytes={SIZE - 1000}-", "bytes=0-0"]


def test_ranges_while_it_is_filled(host: GlanceHost, faulty: FaultyServer) -> None:
    """What a fill has written is sent from there, the rest is asked of the source; neither waits for the fill."""
    image_id, data = cold(host, faulty)
    whole = host.client().download(image_id, stream=True)
    body = whole.iter_content(MIB)
    got = next(body)
    reads = host.site.backend_reads(image_id)
    began = time.monotonic()
    behind = host.client().download(image_id, headers={"Range": "bytes=5-9"})
    assert (behind.content, host.site.backend_reads(image_id)) == (data[5:10], reads)
    ahead = host.client().download(image_id, headers={"Range": f"bytes={SIZE - 9}-"})
    assert (ahead.content, host.site.backend_reads(image_id)) == (data[-9:], reads + 1)
    assert time.monotonic() - began < SOON
    assert got + b"".join(body) == data


def test_many_ranges_leave_the_api_free(host: GlanceHost, faulty: FaultyServer) -> None:
    """Twice as many one-byte ranges as there are threads, at the end of a slow image: all are answered, and the API."""
    image_id, data = cold(host, faulty)
    began = time.monotonic()
    with ThreadPoolExecutor(2 * THREADS) as pool:
        ranges = [f"bytes={SIZE - number}-{SIZE - number}" for number in range(1, 2 * THREADS + 1)]
        answers = list(pool.map(lambda one: host.client().download(image_id, headers={"Range": one}).content, ranges))
    assert answers == [data[-number : len(data) - number + 1] for number in range(1, 2 * THREADS + 1)]
    assert host.client().request("GET", "/v2/images").status_code == 200
    assert time.monotonic() - began < 2 * SOON
    assert not is_begun(host, image_id)


def test_conditions_begin_nothing(host: GlanceHost, faulty: FaultyServer) -> None:
    """304, 416 and a range that starts beyond the end are answered without a byte read; If-Range decides as ever."""
    image_id, data = cold(host, faulty, rate=None)
    etag = f'"sha512-{host.client().request("GET", f"/v2/images/{image_id}").json()["os_hash_value"]}"'
    cases: list[tuple[dict[str, str], int]] = [({"If-None-Match": etag}, 304), ({"If-None-Match": "*"}, 304)]
    cases += [({"Range": f"bytes={SIZE}-"}, 416), ({"Range": "bytes=0-5", "If-None-Match": etag}, 304)]
    for headers, status in cases:
        assert host.client().download(image_id, headers=headers).status_code == status, headers
    assert (host.site.backend_reads(image_id), is_begun(host, image_id)) == (0, False)
    part = host.client().download(image_id, headers={"Range": "bytes=0-5", "If-Range": etag})
    assert (part.status_code, part.content, is_begun(host, image_id)) == (206, data[:6], False)
    whole = host.client().download(image_id, headers={"Range": "bytes=0-5", "If-Range": '"of another image"'})
    assert (whole.status_code, whole.content) == (200, data)
    assert eventually((host.cache_dir / image_id).exists), "a whole download is kept as ever"


def test_a_range_of_all_is_kept(host: GlanceHost, faulty: FaultyServer) -> None:
    """`Range: bytes=0-` asks for the whole image: it is filled like any other download."""
    image_id, data = cold(host, faulty, rate=None)
    answer = host.client().download(image_id, headers={"Range": "bytes=0-"})
    assert (answer.status_code, answer.content) == (206, data)
    assert eventually((host.cache_dir / image_id).exists)


def asked(host: GlanceHost, image_id: str) -> socket.socket:
    """The connection of a client that has asked for an image."""
    place = urlsplit(host.url)
    request = (
        f"GET /v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Identity-Status: Confirmed\r\nX-Roles: admin\r\n"
        "X-Project-Id: p1\r\nX-User-Id: u1\r\n\r\n"
    )
    made = socket.create_connection((str(place.hostname), place.port or 0), timeout=30)
    made.sendall(request.encode())
    return made


def test_clients_that_send_nothing_more_get_all(host: GlanceHost, faulty: FaultyServer) -> None:
    """Half-closed connections (`nc -N`, some proxies), before the first byte and behind some."""
    images = [cold(host, faulty, rate=None, stall_at=stall_at) for stall_at in (0, 2 * MIB)]
    with ExitStack() as clients:
        waiting = [clients.enter_context(asked(host, image_id)) for image_id, _ in images for _ in range(2)]
        for one in waiting:
            one.shutdown(socket.SHUT_WR)
        time.sleep(1.5)
        for image_id, _ in images:
            faulty.change(f"/{image_id}", stall_at=None)
        bodies = [one.makefile("rb").read().partition(b"\r\n\r\n")[2] for one in waiting]
    assert bodies == [data for _, data in images for _ in range(2)]


def drained(client: socket.socket) -> int:
    """How much has come for a client; it has read all of that, so that a close sends no reset."""
    client.settimeout(0.3)
    length = 0
    with suppress(TimeoutError):
        while got := client.recv(MIB):
            length += len(got)
    return length


@pytest.mark.parametrize("sent", [0, 2 * MIB])
def test_clients_that_leave_are_not_waited_for(host: GlanceHost, faulty: FaultyServer, sent: int) -> None:
    """As many clients as there are threads wait for a silent source and leave: the API goes on, whatever they have."""
    image_id, data = cold(host, faulty, stall_at=sent, rate=None)
    waiting = [asked(host, image_id) for _ in range(THREADS)]
    assert eventually(lambda: is_begun(host, image_id))
    time.sleep(1.0)
    assert all(drained(one) > sent // 2 for one in waiting if sent)
    began = time.monotonic()
    for one in waiting:
        one.close()
    for _ in range(THREADS):
        assert host.client().request("GET", "/v2/images").status_code == 200
    assert time.monotonic() - began < SOON, "stall_timeout_seconds is 30"
    faulty.change(f"/{image_id}", stall_at=None)
    assert host.client().download(image_id).content == data


@pytest.mark.parametrize(("start", "status"), [(None, 200), (5, 206)], ids=["whole", "range"])
def test_clients_that_stay_leave_the_api_free(
    host: GlanceHost, faulty: FaultyServer, start: int | None, status: int
) -> None:
    """Clients that wait for a silent source, three for each thread: the API answers; they get all once it speaks."""
    image_id, data = cold(host, faulty, stall_at=0)
    headers = {} if start is None else {"Range": f"bytes={start}-"}
    with ThreadPoolExecutor(3 * THREADS) as pool:
        waiting = [pool.submit(host.client().download, image_id, headers=headers) for _ in range(3 * THREADS)]
        time.sleep(1.0)
        for _ in range(3):
            began = time.monotonic()
            assert host.client().request("GET", "/v2/images").status_code == 200
            assert time.monotonic() - began < SOON, "stall_timeout_seconds is 30"
        faulty.change(f"/{image_id}", stall_at=None, rate=None)
        answers = [one.result() for one in waiting]
    assert {one.status_code for one in answers} == {status}
    assert all(one.content == data[start or 0 :] for one in answers)


@pytest.mark.parametrize(("start", "length"), [(None, SIZE), (5, SIZE - 5)], ids=["whole", "range"])
def test_silent_sources_that_fail_are_seen(
    host: GlanceHost, faulty: FaultyServer, start: int | None, length: int
) -> None:
    """A source that fails after the headers went out: what it gives is whole, or ends before its stated length."""
    image_id, data = cold(host, faulty, stall_at=0)
    headers = {} if start is None else {"Range": f"bytes={start}-"}

    def size(_: int) -> int | None:
        try:
            answer = host.client().download(image_id, headers=headers)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
            return None  # fewer bytes than Content-Length says, or none
        assert not answer.ok or answer.content == data[start or 0 :]
        return len(answer.content) if answer.ok else None

    with ThreadPoolExecutor(3 * THREADS) as pool:
        waiting = [pool.submit(size, number) for number in range(3 * THREADS)]
        time.sleep(3.0)
        faulty.change(f"/{image_id}", stall_at=None, reset_at=0)
        sizes = {one.result() for one in waiting}
    assert sizes <= {None, length}
    assert None in sizes, "nothing failed"


def test_slow_readers_leave_the_api_free(host: GlanceHost) -> None:
    """Four times as many clients as threads take one piece and wait: the API answers, and all bodies are right."""
    image_id, data = new_image(host, 4 * SIZE)
    assert host.client().download(image_id).content == data
    assert eventually((host.cache_dir / image_id).exists)
    cases = [{}, {"Range": f"bytes=77-{3 * SIZE}"}] * (2 * THREADS)
    slow = [host.client().download(image_id, headers=headers, stream=True) for headers in cases]
    assert [one.status_code for one in slow] == [200, 206] * (2 * THREADS)
    bodies = [one.iter_content(1000) for one in slow]
    heads = [next(body) for body in bodies]
    for _ in range(3):
        began = time.monotonic()
        assert host.client().request("GET", "/v2/images").status_code == 200
        assert time.monotonic() - began < SOON
    for number, (head, body) in enumerate(zip(heads, bodies, strict=True)):
        assert head + b"".join(body) == (data[77 : 3 * SIZE + 1] if number % 2 else data), number
    assert eventually(lambda: told(host, image_id) == 1 + len(cases)), "whoever sent it, Glance's users are told"


def told(host: GlanceHost, image_id: str) -> int:
    """How many notifications say that the image was sent to whom."""
    lines = [line for line in host.log().splitlines() if '"image.send"' in line and image_id in line]
    return sum('"receiver_tenant_id": "p1"' in line and '"destination_ip": "127.' in line for line in lines)


def generated(host: GlanceHost, image_id: str) -> list[int]:
    """Bytes that uWSGI itself wrote of each download of an image, by its log."""
    return [int(one) for one in re.findall(rf"GET /v2/images/{image_id}/file => generated (\d+) bytes", host.log())]


def test_by_itself_the_kernel_sends(host: GlanceHost, faulty: FaultyServer) -> None:
    """`sendfile = auto` on http-socket, the default: of fill, hit and range uWSGI writes the first piece only."""
    image_id, data = cold(host, faulty, rate=None)
    assert host.client().download(image_id).content == data
    assert eventually((host.cache_dir / image_id).exists)
    assert host.client().download(image_id).content == data
    part = host.client().download(image_id, headers={"Range": f"bytes=77-{5 * MIB}"}).content
    assert part == data[77 : 5 * MIB + 1]
    assert eventually(lambda: len(generated(host, image_id)) == 3)
    assert max(generated(host, image_id)) <= MIB


def test_a_worker_that_retires_sends_what_it_has_begun(
    host: GlanceHost, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that a thread of ours sends when uWSGI retires its worker (max-requests) comes to its end."""
    options = {"replicas": {"janitor": "false", "max_streams": "1"}}
    other = host.site.add_host("127.0.0.4", processes=1, threads=4, options=options, start=False)
    words = [*other.command(), "--max-requests", "12", "--min-worker-lifetime", "1"]
    monkeypatch.setattr(other, "command", lambda: words)
    with other.start():
        image_id, data = new_image(other, 4 * SIZE)
        assert other.client().download(image_id).content == data
        assert eventually((other.cache_dir / image_id).exists)
        by_the_server, by_us = (other.client().download(image_id, stream=True) for _ in range(2))
        while not eventually(lambda: "The work of process" in other.log(), 0.5):
            assert other.client().request("GET", "/v2/images").status_code == 200
        assert by_the_server.content == data
        time.sleep(1.0)  # the server's threads have ended
        assert by_us.content == data
        assert other.client().request("GET", "/v2/images").status_code == 200


def test_slow_readers_of_a_fill(host: GlanceHost, faulty: FaultyServer) -> None:
    """The same while the image is filled: bodies that threads of ours send follow the fill to its end."""
    image_id, data = cold(host, faulty, rate=2 * MIB)
    with ThreadPoolExecutor(3 * THREADS) as pool:
        bodies = [pool.submit(lambda: host.client().download(image_id).content) for _ in range(3 * THREADS)]
        time.sleep(1.0)
        began = time.monotonic()
        assert host.client().request("GET", "/v2/images").status_code == 200
        assert time.monotonic() - began < 2.0
        assert all(body.result() == data for body in bodies)
    assert host.site.backend_reads(image_id) == 1


def test_fill_on_range(host: GlanceHost, faulty: FaultyServer) -> None:
    """With the option a range is a request to fetch the image in the background as well."""
    other = host.site.add_host(
        "127.0.0.3", processes=1, options={"replicas": {"fill_on_range": "true", "janitor_interval_seconds": "1"}}
    )
    image_id, data = cold(host, faulty, rate=None)
    assert other.client().download(image_id, headers={"Range": "bytes=7-9"}).content == data[7:10]
    assert eventually((other.cache_dir / image_id).exists, 20)
    other.stop()


def test_any_range_of_the_sources(cloud: Cloud) -> None:
    """Any range from the sources is exactly these bytes, whether the place knows ranges or not, and over a break."""
    local = cloud.host("here")
    names = [cloud.image(), cloud.image(ignore_range=True), cloud.image(reset_at=CLOUD_SIZE // 2, fail_times=1)]
    plans = [local.fill_setup.plan(image) for name in names if (image := local.catalogue.active(name))]

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, CLOUD_SIZE - 1), st.integers(1, CLOUD_SIZE))
    def hold(start: int, length: int) -> None:
        stop = min(start + length, CLOUD_SIZE)
        for plan in plans:
            assert b"".join(byte_range.from_sources(plan, start, stop)) == CLOUD_DATA[start:stop]

    hold()


@pytest.mark.parametrize("first", [0, CLOUD_SIZE - 5])
def test_a_range_as_the_fill_ends(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """A fill ends after no complete file was seen, and before a growing one is looked for: no source is read again."""
    local = cloud.host("here")
    name, follow = cloud.image(), local.cache.partials.follow
    image = local.catalogue.active(name)
    assert image is not None

    def late(one: Image) -> int | None:
        if not local.cache.complete.exists(name):
            fill(local, name)
        return follow(one)

    monkeypatch.setattr(local.cache.partials, "follow", late)
    follower = byte_range.follow(local.cache, local.fill_setup.plan(image), first)
    assert follower is not None
    with closing(follower):
        assert b"".join(follower.read(first, first + 5)) == CLOUD_DATA[first : first + 5]
    assert cloud.reads(name) == 1


def test_a_place_that_cannot_begin_there(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that would have to be read for long before the range is passed over; a little is read and dropped."""
    monkeypatch.setattr(byte_range, "MOST_SKIPPED", MIB)
    local = cloud.host("here")
    image = local.catalogue.active(cloud.image(ignore_range=True))
    assert image is not None
    plan = local.fill_setup.plan(image)
    assert b"".join(byte_range.from_sources(plan, MIB, MIB + 9)) == CLOUD_DATA[MIB : MIB + 9]
    with pytest.raises(Unreachable, match="cannot begin at byte"):
        list(byte_range.from_sources(plan, 2 * MIB, 2 * MIB + 9))
