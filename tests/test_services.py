"""The harness itself: each service is real, does what a test asks of it, and leaves nothing behind."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa
from services import eventually, free_port, need
from services.databases.schema import has_schema
from services.databases.servers import DatabaseServer
from services.glance.site import GlanceHost, GlanceSite
from services.process import Process, members
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from services.web.nginx import Nginx

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """One host with stock Glance."""
    with GlanceSite(tmp_path_factory.mktemp("stock"), ledger=False) as site:
        yield site.add_host(pipeline="stock")


def test_upload_and_download(stock: GlanceHost) -> None:
    """What is stored comes back, and its one location is the file the site names."""
    image = stock.client().create("a", DATA, colour="red")
    assert (image["status"], image["colour"], image["size"]) == ("active", "red", len(DATA))
    assert stock.client().download(image["id"]).content == DATA
    assert stock.site.store_file(image["id"]).read_bytes() == DATA
    assert [at["metadata"] for at in stock.client().locations(image["id"])] == [{"store": "fast"}]


def test_hosts_are_forked_or_started(stock: GlanceHost, tmp_path: Path) -> None:
    """Hosts are forks of a warm uWSGI; one that starts from nothing is the same uWSGI and answers as they do."""
    image = stock.client().create("a", DATA)
    assert "Python VM already initialized" in stock.log()
    with GlanceSite(tmp_path / "site", stock.site.database_url, ledger=False, quick=False) as site:
        other = site.add_host("127.0.0.3", processes=1, pipeline="stock", options={"fast": store_of(stock)})
        assert "Python VM already initialized" not in other.log()
        assert other.client().download(image["id"]).content == DATA
        versions = [one.log().partition("Starting uWSGI ")[2].split()[0] for one in (stock, other)]
        assert versions[0] == versions[1]


def store_of(host: GlanceHost) -> dict[str, str]:
    return {"filesystem_store_datadir": str(host.site.store_dir)}


def test_another_project_sees_nothing(stock: GlanceHost) -> None:
    """The identity in the headers is the one that Glance checks."""
    image = stock.client().create("a", DATA)
    stranger = stock.client(project="p2", roles=["member"], user="u2")
    assert stranger.download(image["id"]).status_code == 404


def test_reads_of_a_moved_image_are_counted(stock: GlanceHost, faulty: FaultyServer) -> None:
    """After `move_to` Glance reads the bytes from the faulty server, and each read counts."""
    client = stock.client()
    image = client.create("a", DATA)
    stock.site.move_to(faulty, image["id"])
    assert [client.download(image["id"]).content == DATA for _ in range(2)] == [True, True]
    assert stock.site.backend_reads(image["id"]) == 2


def test_kill_and_start_again(tmp_path: Path) -> None:
    """A killed host leaves no process, and answers at the same address after a start."""
    with GlanceSite(tmp_path) as site, site.add_host(pipeline="stock", processes=1) as host:
        assert len(host.pids()) == 1
        group = host.process.pid
        host.kill()
        assert not members(group)
        with pytest.raises(requests.ConnectionError):
            host.client().request("GET", "/")
        host.start()
        assert host.client().create("a", b"x")["size"] == 1


def test_gunicorn_single_store_with_the_stock_cache(tmp_path: Path) -> None:
    """The other server, the old way to configure a store, and Glance's own cache filter work together."""
    with GlanceSite(tmp_path, multi_store=False) as site:
        client = site.add_host(server="gunicorn", processes=1, pipeline="stock-cache").client()
        image = client.create("a", DATA)
        assert client.download(image["id"]).content == DATA
        assert eventually((site.hosts[0].cache_dir / image["id"]).exists)
        assert site.locations(image["id"])[0]["metadata"] == {}


def test_glance_on_every_database(glance_database_url: str, tmp_path: Path) -> None:
    """Glance works on the database that the fixture gives."""
    with GlanceSite(tmp_path / "site", glance_database_url) as site:
        client = site.add_host(pipeline="stock", processes=1).client()
        image = client.create("a", b"abc")
        site.add_location(image["id"], "http://127.0.0.1:9/x", {"store": "web"})
        assert [at["url"] for at in site.locations(image["id"])][1:] == ["http://127.0.0.1:9/x"]
        assert client.download(image["id"]).content == b"abc"


def test_empty_databases(database_url: str) -> None:
    """The database is there and has no table."""
    assert not has_schema(database_url)


def test_database_server_stops_and_starts(database_server: DatabaseServer | None) -> None:
    """A stopped server refuses, a started one has its data."""
    if database_server is None:
        return
    url = database_server.create("kept")
    database_server.stop()
    with pytest.raises(sa.exc.OperationalError):
        has_schema(url)
    database_server.start()
    assert not has_schema(url)


def test_swift_store_makes_large_objects(tmp_path: Path, swift: Swift) -> None:
    """A large image becomes segments and a manifest, and its reads are counted."""
    options = {"fast": swift.store_options(large_object_mb=1, chunk_mb=1)}
    with GlanceSite(tmp_path, store="swift", swift=swift, options=options) as site:
        client = site.add_host(pipeline="stock", processes=1).client()
        image = client.create("a", iter([DATA, DATA, b"end"]))
        assert client.download(image["id"]).content == DATA * 2 + b"end"
        assert eventually(lambda: site.backend_reads(image["id"])) == 1
    connection = swift.connection()
    try:
        headers = connection.head_object(swift.container, image["id"])
        assert headers["x-object-manifest"] == f"{swift.container}/{image['id']}-"
    finally:
        connection.close()


def test_nginx_serves_and_counts(nginx: Nginx) -> None:
    """Files, ranges and the count of reads."""
    (nginx.root / "blob").write_bytes(DATA)
    url = nginx.url_of("blob")
    assert requests.get(url, timeout=5).content == DATA
    assert requests.get(url, headers={"Range": "bytes=5-9"}, timeout=5).content == DATA[5:10]
    assert eventually(lambda: nginx.count("blob") == 2)


def test_two_hosts_have_our_pipeline(two_hosts: tuple[GlanceHost, GlanceHost]) -> None:
    """Each host keeps and registers a copy of its own."""
    site, (first, second) = two_hosts[0].site, two_hosts
    image = first.client().create("a", DATA)
    assert [host.client().download(image["id"]).content == DATA for host in two_hosts] == [True, True]
    assert eventually(lambda: len(site.locations(image["id"])) == 3)
    assert [at["metadata"].get("replica_host") for at in site.locations(image["id"])] == [None, "api1", "api2"]
    assert (second.cache_dir / image["id"]).read_bytes() == DATA


# The faulty server: each fault as a client sees it.


def fetch(url: str, **headers: str) -> requests.Response:
    """GET without following redirects."""
    return requests.get(url, headers=headers, timeout=5, allow_redirects=False)


@pytest.mark.parametrize(
    ("text", "status", "body"),
    [
        ("bytes=0-0", 206, b"\0"),
        ("bytes=10-19", 206, DATA[10:20]),
        ("bytes=-7", 206, DATA[-7:]),
        ("bytes=1048570-9999999", 206, DATA[1048570:]),
        ("bytes=1048576-", 416, b""),
        ("bytes=-0", 416, b""),
        ("bytes=9-3", 200, DATA),
    ],
)
def test_faulty_honours_ranges(faulty: FaultyServer, text: str, status: int, body: bytes) -> None:
    """Without faults a range is answered as RFC 9110 has it."""
    answer = fetch(faulty.put("/a", DATA), Range=text)
    assert (answer.status_code, answer.content) == (status, body)


def test_faulty_statuses(faulty: FaultyServer) -> None:
    """A status, a redirect, a login page, no blob at all."""
    url = faulty.put("/a", DATA, status=503, retry_after=7)
    assert (fetch(url).status_code, fetch(url).headers["Retry-After"]) == (503, "7")
    faulty.change("/a", redirect_to="http://127.0.0.1:9/b")
    assert (fetch(url).status_code, fetch(url).headers["Location"]) == (302, "http://127.0.0.1:9/b")
    faulty.change("/a", html=True)
    assert fetch(url).headers["Content-Type"] == "text/html"
    faulty.remove("/a")
    assert fetch(url).status_code == 404


def test_faulty_first_requests(faulty: FaultyServer) -> None:
    """The first requests fail, then all is well; each is on record."""
    url = faulty.put("/a", DATA, fail_times=2)
    assert [fetch(url).status_code for _ in range(3)] == [500, 500, 200]
    assert [request.status for request in faulty.requests("/a")] == [500, 500, 200]
    assert (faulty.reads("/a"), faulty.requests("/a")[2].sent) == (3, len(DATA))


def test_faulty_heads(faulty: FaultyServer) -> None:
    """HEAD may say something else than GET."""
    url = faulty.put("/a", DATA, head_length=5)
    assert requests.head(url, timeout=5).headers["Content-Length"] == "5"
    assert fetch(url).content == DATA
    faulty.change("/a", head_status=403)
    assert (requests.head(url, timeout=5).status_code, fetch(url).status_code) == (403, 200)


@pytest.mark.parametrize("faults", [{"truncate_at": 1000}, {"truncate_at": 1000, "chunked": True}, {"reset_at": 1000}])
def test_faulty_breaks_off(faulty: FaultyServer, faults: dict[str, int]) -> None:
    """A body that ends too early is an error of the transfer, and the record says how far it came."""
    url = faulty.put("/a", DATA, **faults)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        fetch(url)
    assert eventually(lambda: faulty.requests("/a")[0].sent) == 1000


def test_faulty_bodies(faulty: FaultyServer) -> None:
    """Bytes and lengths that are wrong arrive as they were asked for."""
    url = faulty.put("/a", DATA, flip_at=300_000)
    assert [i for i, byte in enumerate(fetch(url).content) if byte != DATA[i]] == [300_000]
    faulty.change("/a", zeros=(10, 20))
    assert fetch(url).content == DATA[:10] + bytes(10) + DATA[20:]
    faulty.change("/a", zeros=True)
    assert fetch(url).content == bytes(len(DATA))
    faulty.change("/a", longer=3)
    assert fetch(url).content == DATA + bytes(3)
    faulty.change("/a", wrong_length=100)
    assert fetch(url).content == DATA[:100]
    faulty.change("/a", gzip=True)
    assert fetch(url).headers["Content-Encoding"] == "gzip"
    for fault in ("no_length", "chunked"):
        faulty.change("/a", **{fault: True})
        answer = fetch(url)
        assert answer.content == DATA
        assert "Content-Length" not in answer.headers


def test_faulty_ranges(faulty: FaultyServer) -> None:
    """Answers to a range that a careful client must not take for what it asked."""
    url = faulty.put("/a", DATA, ignore_range=True)
    assert fetch(url, Range="bytes=5-9").status_code == 200
    faulty.change("/a", wrong_content_range=True)
    assert fetch(url, Range="bytes=5-9").headers["Content-Range"] == f"bytes 6-9/{len(DATA)}"
    faulty.change("/a", wrong_content_range="")
    assert "Content-Range" not in fetch(url, Range="bytes=5-9").headers
    faulty.change("/a", short_range=2)
    assert fetch(url, Range="bytes=5-9").content == DATA[5:7]
    faulty.change("/a", etag='"other"')
    assert fetch(url, **{"Range": "bytes=5-9", "If-Range": f'"{hashlib.md5(DATA).hexdigest()}"'}).status_code == 200


def test_faulty_stalls_until_told_otherwise(faulty: FaultyServer) -> None:
    """A stalled body goes on when the fault is taken back."""
    url = faulty.put("/a", DATA, stall_at=1000)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(fetch, url)
        assert eventually(lambda: faulty.sent("/a") == 1000)
        assert not answer.done()
        faulty.change("/a")
        assert answer.result(5).content == DATA


def test_faulty_says_nothing_until_the_client_leaves(faulty: FaultyServer) -> None:
    """A request without any answer ends with its connection."""
    faulty.put("/a", DATA, stall_before_headers=True)
    with socket.create_connection((faulty.address, faulty.port)) as silent:
        silent.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        silent.settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent.recv(1)
    assert eventually(lambda: faulty.connections() == 0)


def test_faulty_rates(faulty: FaultyServer) -> None:
    """A slow body takes its time: bytes per second, or seconds per byte."""
    url = faulty.put("/a", bytes(10_000), rate=50_000)
    for faults, seconds in (({"rate": 50_000}, 0.2), ({"drip": 0.0001}, 1.0)):
        faulty.change("/a", **faults)
        began = time.monotonic()
        fetch(url)
        assert 0.9 * seconds < time.monotonic() - began < seconds + 2


# Nothing is left behind.


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    """The reason is in the error."""
    process = Process(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*no such luck"):
        process.wait(lambda: False)


def test_servers_end_with_a_killed_run(tmp_path: Path) -> None:
    """SIGKILL to the process that started a server ends the server and its children."""
    program = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from services.process import Process\n"
        f"print(Process(['sh', '-c', 'sleep 99 & sleep 99'], Path({str(tmp_path / 'log')!r})).pid, flush=True)\n"
        "time.sleep(99)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        group = int(run.stdout.readline())
        assert eventually(lambda: len(members(group)) == 3)
        os.kill(run.pid, signal.SIGKILL)
    assert eventually(lambda: not members(group))


def test_a_missing_server_fails_in_ci_and_skips_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`need` ends the test one way or the other, with the reason."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-server is not installed"):
        need("no-such-server")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
        need("no-such-server")


def test_only_loopback() -> None:
    """A port of an outside address is refused."""
    with pytest.raises(ValueError, match="not a loopback"):
        free_port("0.0.0.0")
