"""The web reader against a server that goes wrong: which fault is which error, and how soon."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from services import free_port
from services.web.faulty import FaultyServer

from glance_replicas.errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported, WrongAnswer
from glance_replicas.model import Location
from glance_replicas.stores.body import Limits
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.http.pace import Pace

LIMITS = Limits(connect=0.5, stall=0.5)
DATA = random.Random(8).randbytes(300_000)
SIZE, HALF = len(DATA), len(DATA) // 2


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    """One server for all tests of the module; every test has a path of its own."""
    with FaultyServer() as made:
        yield made


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A path that no other test uses."""
    return f"/{abs(hash(request.node.nodeid))}"


def read(url: str, offset: int = 0, reader: http_reader.Reader | None = None) -> bytes:
    with (reader or http_reader.Reader(LIMITS)).open(url, offset) as body:
        return b"".join(body)


AT_OPEN = [
    ({"status": 404}, Absent),
    ({"status": 410}, Absent),
    ({"status": 401}, Denied),
    ({"status": 403}, Denied),
    ({"status": 400}, Unreachable),
    ({"status": 408}, Unreachable),
    ({"status": 429, "retry_after": 7}, Unreachable),
    ({"status": 500}, Unreachable),
    ({"status": 503}, Unreachable),
    ({"status": 202}, WrongAnswer),
    ({"status": 301, "redirect_to": "http://127.0.0.1/"}, WrongAnswer),
    ({"redirect_to": "http://127.0.0.1/"}, WrongAnswer),
    ({"gzip": True}, WrongAnswer),
    ({"stall_before_headers": True}, Stalled),
]


@pytest.mark.parametrize(("faults", "error"), AT_OPEN, ids=str)
@pytest.mark.parametrize("offset", [0, HALF])
def test_fault_at_open(
    server: FaultyServer, path: str, faults: dict[str, Any], error: type[SourceError], offset: int
) -> None:
    """An answer that is no copy is refused before a byte is taken for one, and by HEAD as well."""
    url = server.put(path, DATA, **faults)
    with pytest.raises(SourceError) as caught:
        http_reader.Reader(LIMITS).open(url, offset)
    assert type(caught.value) is error
    assert str(caught.value).startswith(url)
    with pytest.raises(SourceError) as caught:
        http_reader.Reader(LIMITS).size(url)
    assert type(caught.value) is error


IN_BODY = [
    ({"truncate_at": HALF}, Unreachable),
    ({"truncate_at": SIZE - 1}, Unreachable),
    ({"reset_at": HALF}, Unreachable),
    ({"stall_at": 0}, Stalled),
    ({"stall_at": HALF}, Stalled),
    ({"drip": 0.05}, Stalled),
    ({"rate": LIMITS.slowest // 4}, Stalled),
    ({"chunked": True, "truncate_at": HALF}, Unreachable),
    ({"chunked": True, "reset_at": HALF}, Unreachable),
    ({"chunked": True, "stall_at": HALF}, Stalled),
    ({"wrong_length": SIZE + 1}, Unreachable),
]


@pytest.mark.parametrize(("faults", "error"), IN_BODY, ids=str)
def test_fault_in_body(server: FaultyServer, path: str, faults: dict[str, Any], error: type[SourceError]) -> None:
    """A body that breaks, stalls or drips raises while it is iterated and never ends as if it were whole."""
    url, got, began = server.put(path, DATA, **faults), b"", time.monotonic()
    with http_reader.Reader(LIMITS).open(url) as body, pytest.raises(SourceError) as caught:
        for chunk in body:
            got += chunk
    assert type(caught.value) is error
    assert DATA.startswith(got)
    assert time.monotonic() - began < 4 * LIMITS.stall


DELIVERED = [
    ({"rate": 2_000_000}, DATA, SIZE),
    ({"no_length": True}, DATA, None),
    ({"chunked": True}, DATA, None),
    ({"wrong_length": HALF}, DATA[:HALF], HALF),
    ({"longer": 9}, DATA + bytes(9), SIZE + 9),
    ({"zeros": True}, bytes(SIZE), SIZE),
    ({"no_length": True, "truncate_at": HALF}, DATA[:HALF], None),
    ({"etag": ""}, DATA, SIZE),
]


@pytest.mark.parametrize(("faults", "data", "size"), DELIVERED, ids=lambda value: str(value)[:40])
def test_delivered(server: FaultyServer, path: str, faults: dict[str, Any], data: bytes, size: int | None) -> None:
    """What a reader cannot tell from a good answer comes as it is sent, with the size that was stated."""
    with http_reader.Reader(LIMITS).open(server.put(path, DATA, **faults)) as body:
        assert body.size == size
        assert b"".join(body) == data


def test_login_page(server: FaultyServer, path: str) -> None:
    """A page instead of the blob has the page's size: the one who knows the image's size can tell."""
    assert http_reader.Reader(LIMITS).size(server.put(path, DATA, html=True)) != SIZE


@pytest.mark.parametrize("faults", [{}, {"ignore_range": True}, {"chunked": True}, {"no_length": True}], ids=str)
def test_range(server: FaultyServer, path: str, faults: dict[str, Any]) -> None:
    """The bytes from an offset on are exact, whether the server honours Range or sends everything."""
    url = server.put(path, DATA, **faults)
    assert read(url, HALF) == DATA[HALF:]
    assert server.requests(path)[-1].range == f"bytes={HALF}-"


@pytest.mark.parametrize(
    "faults",
    [
        {"wrong_content_range": True},
        {"wrong_content_range": ""},
        {"wrong_content_range": f"bytes 0-{SIZE - 1}/{SIZE}"},
        {"wrong_content_range": f"bytes {HALF}-{SIZE - 1}/*"},
        {"wrong_content_range": f"bytes {HALF}-{SIZE - 2}/{SIZE - 1}"},
        {"wrong_content_range": f"bytes {HALF}-{SIZE}/{SIZE + 1}"},
        {"wrong_content_range": "bytes " + "9" * 5000},
        {"short_range": 1000},
        {"short_range": 1000, "chunked": True},
        {"status": 416},
    ],
    ids=lambda faults: str(faults)[:50],
)
def test_wrong_range(server: FaultyServer, path: str, faults: dict[str, Any]) -> None:
    """A 206 that is not exactly what was asked for is a wrong answer: its bytes belong somewhere else."""
    with pytest.raises(WrongAnswer):
        http_reader.Reader(LIMITS).open(server.put(path, DATA, **faults), HALF)


def test_range_ignored_and_broken(server: FaultyServer, path: str) -> None:
    """A server that ignores Range and breaks off before the offset raises, it does not deliver nothing."""
    with pytest.raises(Unreachable):
        read(server.put(path, DATA, ignore_range=True, truncate_at=HALF - 1), HALF)
    with pytest.raises(WrongAnswer):
        read(server.put(path, DATA, ignore_range=True, no_length=True, truncate_at=HALF - 1), HALF)


@pytest.mark.parametrize("status", [405, 501])
def test_size_without_head(server: FaultyServer, path: str, status: int) -> None:
    """Where HEAD is not allowed the size comes from a GET of one byte, with or without Range, of an empty blob too."""
    reader = http_reader.Reader(LIMITS)
    assert reader.size(server.put(path, DATA, head_status=status)) == SIZE
    assert server.requests(path)[-1].range == "bytes=0-0"
    assert reader.size(server.put(path, DATA, head_status=status, ignore_range=True)) == SIZE
    assert reader.size(server.put(path, b"", head_status=status)) == 0
    with pytest.raises(WrongAnswer):
        reader.size(server.put(path, DATA, head_status=status, wrong_content_range=True))


def test_size_of_head(server: FaultyServer, path: str) -> None:
    """HEAD is believed, refused or without an answer, as it comes."""
    reader = http_reader.Reader(LIMITS)
    assert reader.size(server.put(path, DATA, head_length=7)) == 7
    assert reader.size(server.put(path, DATA, no_length=True)) is None
    assert reader.size(server.put(path, DATA, chunked=True)) is None
    with pytest.raises(Unreachable):
        reader.size(server.put(path, DATA, head_status=500))


def test_recovers(server: FaultyServer, path: str) -> None:
    """A fault that has passed leaves nothing behind in the reader."""
    url, reader = server.put(path, DATA, fail_times=1), http_reader.Reader(LIMITS)
    with pytest.raises(Unreachable):
        read(url, reader=reader)
    assert read(url, reader=reader) == DATA


def test_slow_caller(server: FaultyServer, path: str) -> None:
    """A caller that takes its time between chunks is not mistaken for a slow source."""
    with http_reader.Reader(Limits(connect=0.5, stall=0.2)).open(server.put(path, DATA, rate=1_500_000)) as body:
        got = b""
        for number, chunk in enumerate(body):
            got += chunk
            if number < 3:
                time.sleep(0.3)
    assert got == DATA


def test_not_there() -> None:
    """Refused, unknown and silent addresses are Unreachable within the limit, and the text says which."""
    reader = http_reader.Reader(LIMITS)
    with pytest.raises(Unreachable, match="refused"):
        reader.open(f"http://127.0.0.1:{free_port()}/x")
    with pytest.raises(Unreachable, match="name"):
        reader.open("http://no-such-host.invalid/x")
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for client in (first, second):  # the queue of connections is full now
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        began = time.monotonic()
        with pytest.raises(Unreachable, match="no connection within"):
            reader.open(f"http://127.0.0.1:{listening.getsockname()[1]}/x")
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http:///x", "http://[::1/x", "http://127.0.0.1:port/x", "http"])
def test_no_url(url: str) -> None:
    """What is no http URL is Unsupported, never a foreign exception."""
    with pytest.raises(Unsupported):
        http_reader.Reader(LIMITS).open(url)


@pytest.mark.parametrize(
    "answer",
    [
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br, gzip\r\nContent-Length: 1\r\n\r\nx",
        b"",
    ],
    ids=lambda answer: str(answer[:60]),
)
def test_nonsense(answer: bytes) -> None:
    """An answer that is no HTTP, or contradicts itself, is an error of ours and not one of a library."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = threading.Thread(target=serve, args=(listening, [answer]), daemon=True)
        served.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        with pytest.raises((Unreachable, WrongAnswer)):
            read(url)
        if b"chunked" not in answer:  # then no length is stated, and nothing of the body is asked for
            with pytest.raises((Unreachable, WrongAnswer)):
                http_reader.Reader(LIMITS).size(url)
        listening.shutdown(socket.SHUT_RDWR)
        served.join(5)


@pytest.mark.parametrize(
    ("offset", "headers", "rest"),
    [
        (0, b"200 OK\r\nContent-Length: 5\r\n\r\nab", b"cde and more"),
        (1, b"206 Partial Content\r\nContent-Range: bytes 1-4/5\r\nContent-Length: 4\r\n\r\nb", b"cde and more"),
        (
            1,
            b"206 Partial Content\r\nContent-Range: bytes 1-4/5\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n",
            b"c\r\ncde and more\r\n0\r\n\r\n",
        ),
    ],
    ids=["length", "range", "chunked"],
)
def test_more_than_stated(offset: int, headers: bytes, rest: bytes) -> None:
    """Bytes after the stated end belong to nobody: the body ends where it was said to end."""
    pieces = [b"HTTP/1.1 " + headers, rest]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = threading.Thread(target=serve, args=(listening, pieces, 0.1), daemon=True)
        served.start()
        assert read(f"http://127.0.0.1:{listening.getsockname()[1]}/x", offset) == b"abcde"[offset:]
        listening.shutdown(socket.SHUT_RDWR)
        served.join(5)


@pytest.mark.parametrize("ask", [read, http_reader.Reader(LIMITS).size], ids=["GET", "HEAD"])
def test_dripping_headers(ask: Callable[[str], object]) -> None:
    """A server that sends its headers a byte at a time is cut off as well."""
    pieces = [b"HTTP/1.1 200 OK\r\nX: ", *[b"y"] * 200]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = threading.Thread(target=serve, args=(listening, pieces, 0.05), daemon=True)
        served.start()
        began = time.monotonic()
        with pytest.raises(Stalled):
            ask(f"http://127.0.0.1:{listening.getsockname()[1]}/x")
        assert time.monotonic() - began < 3
        listening.shutdown(socket.SHUT_RDWR)
        served.join(20)


def serve(listening: socket.socket, pieces: Sequence[bytes], pause: float = 0) -> None:
    """Send these bytes to everybody who asks, until the socket is shut down."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
            except OSError:
                continue


def test_basic_authorisation(server: FaultyServer, path: str) -> None:
    """User and password go to their own host in the header; not into an error, nor to where a redirect leads."""
    with FaultyServer() as other:
        elsewhere = other.put("/elsewhere", DATA)
        url = server.put(path, DATA).replace("//", "//us%40er:hu%3Ash@")
        assert read(url) == DATA
        assert server.requests(path)[-1].headers["Authorization"] == "Basic dXNAZXI6aHU6c2g="  # us@er:hu:sh
        server.change(path, redirect_to=elsewhere)
        with pytest.raises(WrongAnswer) as caught:
            read(url)
        assert other.requests("/elsewhere") == []
    assert "hu%3Ash" not in str(caught.value)
    assert "us%40er" not in str(caught.value)


def test_signer(server: FaultyServer, path: str) -> None:
    """The signed URL goes out, with HEAD too, and only the unsigned one is in errors and their causes."""
    peers = http_reader.Peers(LIMITS, lambda copy: f"{copy.url}?sig=hush")

    def body(copy: Location) -> bytes:
        with peers.open(copy) as opened:
            return b"".join(opened)

    copy = Location("", server.put(path, DATA))
    assert body(copy) == DATA
    assert peers.size(copy) == SIZE
    assert {request.target for request in server.requests(path)} == {f"{path}?sig=hush"}
    for faults in ({"status": 403}, {"stall_before_headers": True}, {"truncate_at": HALF}):
        server.change(path, **faults)
        with pytest.raises(SourceError) as caught:
            body(copy)
        assert str(caught.value).startswith(f"{copy.url}: ")
        assert "hush" not in str(caught.value)
    with pytest.raises(Unreachable) as caught:
        body(Location("", f"http://127.0.0.1:{free_port()}/x"))
    assert "hush" not in str(caught.value)


def test_identity_is_asked_for(server: FaultyServer, path: str) -> None:
    """The request asks for the bytes as they are."""
    assert read(server.put(path, DATA)) == DATA
    assert server.requests(path)[-1].headers["Accept-Encoding"] == "identity"


def test_connections(faulty: FaultyServer) -> None:
    """A body read to its end leaves its connection for the next; one closed early does not."""
    url, reader = faulty.put("/x", DATA), http_reader.Reader(LIMITS)
    for _ in range(5):
        assert read(url, reader=reader) == DATA
        assert reader.size(url) == SIZE
    assert faulty.connections() == 1
    with pytest.raises(Absent):
        reader.size(faulty.url + "/none")
    assert reader.size(url) == SIZE
    assert faulty.connections() == 1
    faulty.change("/x", rate=1_000_000)
    for _ in range(5):
        with reader.open(url) as body:
            next(iter(body))
    deadline = time.monotonic() + 5
    while faulty.connections() > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert faulty.connections() <= 1


def test_kept_connection_closed_by_the_server() -> None:
    """A kept connection that the server has dropped is replaced, not reported as a broken source."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"  # and then closes, without having said so
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = threading.Thread(target=serve, args=(listening, [answer]), daemon=True)
        served.start()
        reader, url = http_reader.Reader(LIMITS), f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        assert [(read(url, reader=reader), reader.size(url)) for _ in range(20)] == [(b"abcde", 5)] * 20
        listening.shutdown(socket.SHUT_RDWR)
        served.join(5)


@pytest.mark.parametrize(("length", "enough"), [(LIMITS.slowest - 1, False), (LIMITS.slowest, True)])
def test_pace(length: int, enough: bool) -> None:
    """The low-speed limit is what it says, to the byte: `slowest` a second over `stall` seconds of waiting."""
    now = [0.0]

    def one_second() -> bytes:
        now[0] += 1
        return bytes(length)

    pace = Pace(Limits(stall=3), "x", clock=lambda: now[0])
    assert len(pace.read(one_second)) == len(pace.read(one_second)) == length
    if enough:
        for _ in range(10):
            now[0] += 100  # the caller's own time
            pace.read(one_second)
    else:
        with pytest.raises(Stalled):
            pace.read(one_second)
