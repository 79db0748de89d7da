"""The cache filter in a real Glance: two hosts, two processes each, downloads over HTTP."""

import contextlib
import hashlib
import http.client
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from services import absent, eventually
from services.databases.servers import Postgres
from services.glance.client import GlanceClient
from services.glance.site import GlanceHost, GlanceSite
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from support.worlds.cached import rot
from support.worlds.scenes import new_bytes, new_image, settle

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import default_ledger

PROXY_SECONDS = 5.0  # how long the most impatient proxy waits for a byte
MIB = 1 << 20
SIZE = 5 * MIB + 77
MEMBER = ("member", "reader")
BROKEN = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[GlanceSite]:
    """Two hosts of ours, the second with `sendfile = uwsgi`, and one without cache, on one catalogue."""
    url = postgres.create_glance("test_cache_filter")
    with GlanceSite(
        tmp_path_factory.mktemp("site"), url, options={"DEFAULT": {"show_multiple_locations": "true"}}
    ) as made:
        Ledger(default_ledger(made.database_url)).upgrade()
        quick = {"stall_timeout_seconds": "3", "janitor": "true", "janitor_interval_seconds": "1"}
        ours = [{"replicas": quick | {"sendfile": "off"}}, {"replicas": quick | {"sendfile": "uwsgi"}}]
        for number, options in enumerate([*ours, {}], 2):
            made.add_host(
                f"127.0.0.{number}",
                threads=24,
                pipeline="replicas" if options else "stock",
                options=options,
                start=False,
            ).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        settle(lambda: len(Ledger(default_ledger(made.database_url)).hosts()) == 2)
        yield made


@pytest.fixture
def one(site: GlanceSite) -> GlanceHost:
    return site.hosts[0]


@pytest.fixture
def other(site: GlanceSite) -> GlanceHost:
    return site.hosts[1]


@pytest.fixture(params=["one", "other"])
def either(request: pytest.FixtureRequest) -> GlanceHost:
    """Each of ours in turn: bodies through Python, and past it."""
    host: GlanceHost = request.getfixturevalue(request.param)
    return host


@pytest.fixture
def stock(site: GlanceSite) -> GlanceHost:
    return site.hosts[2]


def make(host: GlanceHost, **properties: Any) -> tuple[str, bytes]:
    """A new image with bytes of its own."""
    return new_image(host, SIZE, **properties)


def slow(site: GlanceSite, faulty: FaultyServer, **faults: Any) -> tuple[str, bytes]:
    """A new image whose only durable location is a web server that counts, with these faults."""
    image_id, data = make(site.hosts[0])
    site.move_to(faulty, image_id, **faults)
    return image_id, data


def hosts_of(site: GlanceSite, image_id: str) -> list[str]:
    """The hosts registered for an image, in the order of their rows."""
    rows = [row["metadata"].get("replica_host") for row in site.locations(image_id)]
    return [name for name in rows if name]


def is_cached(host: GlanceHost, image_id: str) -> bool:
    return (host.cache_dir / image_id).exists()


def is_registered(site: GlanceSite, host: GlanceHost, image_id: str) -> bool:
    return host.name in hosts_of(site, image_id)


def test_miss_fills_and_registers_then_hits(site: GlanceSite, one: GlanceHost) -> None:
    """The first download leaves a verified file and one row; the second one comes from disk."""
    image_id, data = make(one)
    first = one.client().download(image_id)
    assert (first.status_code, first.content) == (200, data)
    status = r'"api1"; fwd=uri-miss; stored; detail="reader 1, \d{1,3} percent"'
    assert re.fullmatch(status, first.headers["Cache-Status"])
    settle(lambda: is_registered(site, one, image_id))
    row = site.locations(image_id)[-1]
    assert row["url"] == f"{one.url}/replicas/{image_id}"
    assert row["metadata"] == {"replica_host": "api1", "replica_zone": "zone-a", "store": "web"}
    second = one.client().download(image_id)
    assert second.content == data
    assert second.headers["Cache-Status"] == '"api1"; hit'
    assert hashlib.sha512((one.cache_dir / image_id).read_bytes()).hexdigest() in first.headers["ETag"]
    settle(lambda: Ledger(default_ledger(site.database_url)).states([image_id]))
    (state,) = Ledger(default_ledger(site.database_url)).states([image_id]).values()
    assert (state.verdict, state.evidence) == ("intact", "full"), "a fill has read every byte"


def test_a_row_appears_only_after_the_file(site: GlanceSite, one: GlanceHost, faulty: FaultyServer) -> None:
    """While a fill runs there is no row; when there is a row the file is whole (promise 1)."""
    image_id, data = slow(site, faulty, rate=2 * MIB)
    seen_early = []
    with ThreadPoolExecutor(1) as pool:
        body = pool.submit(lambda: one.client().download(image_id).content)
        while not body.done():
            seen_early.append(is_registered(site, one, image_id) and not is_cached(one, image_id))
            time.sleep(0.05)
        assert body.result() == data
    settle(lambda: is_registered(site, one, image_id))
    assert not any(seen_early)
    assert len(seen_early) > 10
    assert (one.cache_dir / image_id).read_bytes() == data


@pytest.mark.parametrize("clients", [2, 16])
def test_herd_makes_one_backend_read(site: GlanceSite, either: GlanceHost, faulty: FaultyServer, clients: int) -> None:
    """Concurrent first downloads over both processes: one read of the back end, every byte right (promise 4)."""
    image_id, data = slow(site, faulty, rate=8 * MIB)
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda _: either.client().download(image_id), range(clients)))
    assert all(answer.content == data for answer in answers)
    assert site.backend_reads(image_id) == 1


def test_other_host_reads_from_the_first(
    site: GlanceSite, one: GlanceHost, other: GlanceHost, faulty: FaultyServer
) -> None:
    """Once a host has the image no other host reads the back end (promise 4)."""
    image_id, data = slow(site, faulty)
    assert one.client().download(image_id).content == data
    settle(lambda: is_registered(site, one, image_id))
    assert other.client().download(image_id).content == data
    assert site.backend_reads(image_id) == 1
    settle(lambda: hosts_of(site, image_id) == ["api1", "api2"])


def test_other_host_follows_a_fill_in_progress(
    site: GlanceSite, one: GlanceHost, other: GlanceHost, faulty: FaultyServer
) -> None:
    """While a host fills the image another one follows it instead of the back end (promise 4)."""
    image_id, data = slow(site, faulty, rate=2 * MIB)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: one.client().download(image_id).content)
        time.sleep(1.0)
        second = pool.submit(lambda: other.client().download(image_id).content)
        assert first.result() == data
        assert second.result() == data
    assert site.backend_reads(image_id) == 1


def test_first_client_leaves_midway(site: GlanceSite, either: GlanceHost, faulty: FaultyServer) -> None:
    """Only the client that leaves fails: the others finish and the image is cached (upstream duplicate-downloads)."""
    image_id, data = slow(site, faulty, rate=3 * MIB)
    leaver = either.client().download(image_id, stream=True)
    next(leaver.iter_content(65536))
    with ThreadPoolExecutor(1) as pool:
        stayer = pool.submit(lambda: either.client().download(image_id).content)
        time.sleep(0.3)
        leaver.close()
        assert stayer.result() == data
    settle(lambda: is_registered(site, either, image_id))
    assert site.backend_reads(image_id) == 1


def test_the_only_client_leaves(site: GlanceSite, either: GlanceHost, faulty: FaultyServer) -> None:
    """A client that leaves alone still leaves a cached image behind."""
    image_id, data = slow(site, faulty, rate=4 * MIB)
    leaver = either.client().download(image_id, stream=True)
    next(leaver.iter_content(65536))
    leaver.close()
    settle(lambda: is_registered(site, either, image_id))
    assert (either.cache_dir / image_id).read_bytes() == data


@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1])
def test_corrupt_backend_never_ends_well(site: GlanceSite, either: GlanceHost, faulty: FaultyServer, at: int) -> None:
    """One flipped byte: no client gets a whole body, no file, no row, on the first try and on the next (promise 2)."""
    image_id, data = slow(site, faulty, flip_at=at)
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            for got in pool.map(lambda _: received(either.client(), image_id), range(3)):
                assert len(got) < len(data)
    assert not is_cached(either, image_id)
    assert hosts_of(site, image_id) == []


def test_corrupt_backend_uncached_never_ends_well(site: GlanceSite, stock: GlanceHost, faulty: FaultyServer) -> None:
    """The same when nothing can be cached: what passes through is held against the digest too (promise 2)."""
    host = site.add_host("127.0.0.5", name="small", options={"replicas": {"max_bytes": "1000"}})
    try:
        image_id, data = slow(site, faulty)
        whole = host.client().download(image_id)
        assert whole.content == data
        assert "fwd=bypass" in whole.headers["Cache-Status"]
        assert whole.headers["Content-Length"] == str(len(data))
        faulty.change(f"/{image_id}", flip_at=SIZE // 2)
        assert len(received(host.client(), image_id)) < len(data)
        assert len(received(stock.client(), image_id)) == len(data), "plain Glance does not notice"
    finally:
        host.close()
        site.hosts.remove(host)


@pytest.mark.parametrize("query", ["%70refer=nowhere", "a;prefer=nowhere", "prefer=nowhere&%66ile"])
def test_a_store_is_asked_for_in_any_spelling(one: GlanceHost, query: str) -> None:
    """`prefer` is what Glance decodes: a store that there is not is refused, though the image is here."""
    image_id, data = make(one)
    assert one.client().download(image_id).content == data
    place = urlsplit(one.url)
    headers = {"X-Identity-Status": "Confirmed", "X-Roles": "admin", "X-Project-Id": "p1", "X-User-Id": "u1"}
    with contextlib.closing(http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)) as connection:
        connection.request("GET", f"/v2/images/{image_id}/file?{query}", headers=headers)
        assert connection.getresponse().status == 400


@pytest.mark.parametrize("method", ["PUT", "HEAD", "DELETE", "%50ut"])
def test_another_method_in_the_query_is_glances(one: GlanceHost, method: str) -> None:
    """What Routes takes for another method has Glance's status, whether the image is here or not."""
    image_id, data = make(one)
    assert one.client().download(image_id).content == data
    asked = [one.client().request(way, f"/v2/images/{image_id}/file?_method={method}") for way in ("GET", "POST")]
    assert asked[0].status_code == asked[1].status_code >= 400


OTHERWISE = {
    "store": ("GET", "/file?prefer=fast", {}),
    "method": ("POST", "/file?_method=GET", {}),
    "newline": ("GET", "/file%0A", {}),
    "content range": ("GET", "/file", {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}),
}


@pytest.mark.parametrize("spelling", OTHERWISE)
def test_what_glance_sends_by_itself_never_ends_well(site: GlanceSite, one: GlanceHost, spelling: str) -> None:
    """A whole image that is asked for in a way that the filter passes on is held against the digest too (promise 2)."""
    image_id, data = make(one)
    method, path, headers = OTHERWISE[spelling]

    def got() -> bytes:
        found = bytearray()
        with contextlib.suppress(*BROKEN):
            answer = one.client().request(method, f"/v2/images/{image_id}{path}", headers=headers, stream=True)
            for chunk in answer.iter_content(65536) if answer.ok else ():
                found += chunk
        return bytes(found)

    assert got() == data
    rot(site.store_file(image_id), SIZE // 2, b"rot")
    assert len(got()) < len(data)


def received(client: GlanceClient, image_id: str, pauses: list[float] | None = None) -> bytes:
    """What arrived before the end or the break; the seconds between any two pieces are added to `pauses`."""
    got = bytearray()
    try:
        answer = client.download(image_id, stream=True)
        last = time.monotonic()
        for chunk in answer.iter_content(65536):
            got += chunk
            if pauses is not None:
                pauses.append(time.monotonic() - last)
            last = time.monotonic()
    except BROKEN:
        pass
    return bytes(got)


@pytest.mark.parametrize(
    "faults",
    [
        {"truncate_at": 2 * MIB, "fail_times": 1},
        {"reset_at": 3 * MIB, "fail_times": 1},
        {"stall_at": MIB, "fail_times": 1},
    ],
    ids=["truncated", "reset", "stalled"],
)
def test_broken_backend_read_goes_on(
    site: GlanceSite, either: GlanceHost, faulty: FaultyServer, faults: dict[str, int]
) -> None:
    """A back-end read that breaks or stalls once goes on at the same offset; plain Glance fails it."""
    image_id, data = slow(site, faulty, **faults)
    assert either.client().download(image_id).content == data
    ranges = [request.range for request in faulty.requests(f"/{image_id}") if request.method == "GET"]
    assert ranges[0] is None
    assert ranges[1] is not None


def test_bad_peer_does_not_spread(site: GlanceSite, one: GlanceHost, other: GlanceHost) -> None:
    """A peer whose file rotted gives wrong bytes: refused, not cached, and the copy is recorded as corrupt."""
    image_id, data = make(one)
    assert one.client().download(image_id).content == data
    settle(lambda: is_registered(site, one, image_id))
    rot(one.cache_dir / image_id, MIB, b"rotten")
    assert len(received(other.client(), image_id)) < len(data)
    assert not is_cached(other, image_id)
    states = Ledger(default_ledger(site.database_url)).states([image_id])
    assert [str(result.verdict) for result in states.values()] == ["corrupt"], "the last word on it"
    assert other.client().download(image_id).content == data, "the next one asks the store"


def test_dead_peer_does_not_hurt(site: GlanceSite, one: GlanceHost, faulty: FaultyServer) -> None:
    """A row of a host that is down costs nothing but a log line (promise 3)."""
    image_id, data = slow(site, faulty)
    site.add_location(image_id, f"http://127.0.0.9:1/replicas/{image_id}", {"replica_host": "gone", "store": "web"})
    assert one.client().download(image_id).content == data


@pytest.mark.parametrize("server", ["uwsgi", "gunicorn"])
def test_faults_of_our_side_never_fail_a_download(site: GlanceSite, faulty: FaultyServer, server: str) -> None:
    """No ledger, a directory that is a file, a directory wiped under us: downloads go on (promise 3)."""
    lost = {"replicas": {"connection": "postgresql+psycopg2://nobody:x@127.0.0.9:1/none", "janitor": "true"}}
    host = site.add_host("127.0.0.6", name=f"lost-{server}", server=server, options=lost)
    try:
        image_id, data = slow(site, faulty)
        assert host.client().download(image_id).content == data, "without a ledger"
        for case in ("partial is a file", "all is a file"):
            image_id, data = slow(site, faulty)
            victim = host.partial_dir if case.startswith("partial") else host.cache_dir
            os.rename(victim, f"{victim}.away")
            victim.write_text("in the way")
            assert host.client().download(image_id).content == data, case
            victim.unlink()
            os.rename(f"{victim}.away", victim)
        image_id, data = slow(site, faulty)
        assert host.client().download(image_id).content == data
        settle(lambda: is_registered(site, host, image_id))
    finally:
        host.close()
        site.hosts.remove(host)


def test_database_stops_during_a_download(postgres: Postgres, tmp_path: Path, faulty: FaultyServer) -> None:
    """The database goes away in the middle: the download ends well, the file stays, and is registered later.

    (promises 3 and 8)
    """
    url = postgres.create_glance("stopped_during_a_download")
    with GlanceSite(tmp_path / "on-postgres", database_url=url) as made:
        options = {"replicas": {"janitor_interval_seconds": "1"}}
        with made.add_host("127.0.0.7", options=options) as host:
            image_id, data = slow(made, faulty, rate=2 * MIB)
            with ThreadPoolExecutor(1) as pool:
                body = pool.submit(lambda: host.client().download(image_id).content)
                time.sleep(1.0)
                postgres.stop()
                try:
                    assert body.result() == data
                    settle(lambda: is_cached(host, image_id))
                finally:
                    postgres.start()
            settle(lambda: is_registered(made, host, image_id), 30)


def test_full_file_system(site: GlanceSite, faulty: FaultyServer, tmp_path: Path) -> None:
    """A file system without room: downloads go on uncached, and are cached again once there is room (promise 3)."""
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", disk], check=False).returncode:
        absent("mounting a small tmpfs is not permitted here")
    host = site.add_host("127.0.0.8", name="full", options={"DEFAULT": {"image_cache_dir": str(disk)}})
    try:
        (disk / "others").write_bytes(bytes(9 * MIB))
        image_id, data = slow(site, faulty)
        answer = host.client().download(image_id)
        assert (answer.content, "fwd=bypass" in answer.headers["Cache-Status"]) == (data, True)
        assert not list((disk / ".glance-replicas" / "partial").glob("????????-*"))
        (disk / "others").unlink()
        assert host.client().download(image_id).content == data
        settle(lambda: is_registered(site, host, image_id))
    finally:
        host.close()
        site.hosts.remove(host)
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_damaged_cached_file_of_wrong_size_is_refilled(site: GlanceSite, one: GlanceHost) -> None:
    """A cached file that lost its tail is noticed at once and fetched again."""
    image_id, data = make(one)
    one.client().download(image_id)
    settle(lambda: is_registered(site, one, image_id))
    os.truncate(one.cache_dir / image_id, 1000)
    assert one.client().download(image_id).content == data


def test_stock_cache_file_is_verified_before_it_is_believed(site: GlanceSite, one: GlanceHost) -> None:
    """Files of the stock cache are adopted when right, and never served whole when wrong."""
    image_id, data = make(one)
    (one.cache_dir / image_id).write_bytes(data)
    assert one.client().download(image_id).content == data
    settle(lambda: is_registered(site, one, image_id))
    image_id, data = make(one)
    (one.cache_dir / image_id).write_bytes(b"\0" + data[1:])
    got = received(one.client(), image_id)
    assert got == data or len(got) < len(data)
    assert one.client().download(image_id).content == data


def test_stock_cache_file_that_cannot_be_read_to_its_end(one: GlanceHost, tmp_path: Path) -> None:
    """While a file is adopted its tail is lost: the client gets the rest from the store, and the file goes."""
    for _ in range(5):
        data = new_bytes(32 * MIB)  # far more than sockets hold
        image_id = one.client().create(data=data)["id"]
        path, beside = one.cache_dir / image_id, tmp_path / image_id
        beside.write_bytes(data)
        beside.rename(path)  # as the stock cache does: the janitor may look at any time
        with requests.get(
            f"{one.url}/v2/images/{image_id}/file", headers=one.client().identity, stream=True, timeout=30
        ) as answer:
            if answer.headers["Cache-Status"] == f'"{one.name}"; hit':
                continue  # the janitor was first
            body = answer.iter_content(MIB)
            got = next(body)
            os.truncate(path, 28 * MIB)
            assert got + b"".join(body) == data
            assert answer.headers["Cache-Status"] == f'"{one.name}"; hit; detail=adopted'
        settle(lambda path=path: not path.exists())
        return
    pytest.fail("five times the janitor was faster than the client")


CASES: dict[str, Callable[[GlanceClient, str], requests.Response]] = {
    "owner": lambda client, image: client.download(image),
    "prefer": lambda client, image: client.download(image, params={"prefer": "fast"}),
    "prefer unknown": lambda client, image: client.download(image, params={"prefer": "nowhere"}),
    "content-range": lambda client, image: client.download(image, headers={"Content-Range": "bytes 1-4/*"}),
    "multi-range": lambda client, image: client.download(image, headers={"Range": "bytes=0-1,4-5"}),
    "bad range": lambda client, image: client.download(image, headers={"Range": "bytes=x"}),
    "range beyond": lambda client, image: client.download(image, headers={"Range": f"bytes={SIZE}-"}),
    "range": lambda client, image: client.download(image, headers={"Range": "bytes=5-9"}),
    "suffix": lambda client, image: client.download(image, headers={"Range": "bytes=-7"}),
    "head": lambda client, image: client.request("HEAD", f"/v2/images/{image}/file"),
}


@pytest.mark.parametrize("cached", [False, True], ids=["miss", "hit"])
@pytest.mark.parametrize("case", CASES)
def test_answers_are_glances(site: GlanceSite, one: GlanceHost, stock: GlanceHost, case: str, cached: bool) -> None:
    """Status, body and length of every kind of request equal those of a Glance without us, on a miss and on a hit."""
    image_id, _ = make(one)
    if cached:
        one.client().download(image_id)
        settle(lambda: is_registered(site, one, image_id))
    expected, got = CASES[case](stock.client(), image_id), CASES[case](one.client(), image_id)
    assert got.status_code == expected.status_code
    if expected.ok:
        assert got.content == expected.content
        for name in ("Content-Length", "Content-Type", "Content-Range", "Content-MD5"):
            assert got.headers.get(name) == expected.headers.get(name), name


@pytest.mark.parametrize("cached", [False, True], ids=["miss", "hit"])
def test_nobody_gets_what_glance_refuses(site: GlanceSite, one: GlanceHost, stock: GlanceHost, cached: bool) -> None:
    """Strangers, revoked members, deactivated images, missing ones: the same status as without us (promise 6)."""
    owner = one.client(project="owner", roles=MEMBER)
    data = new_bytes(SIZE)
    image_id = owner.create(data=data, visibility="shared")["id"]
    if cached:
        assert owner.download(image_id).content == data
        settle(lambda: is_registered(site, one, image_id))

    def both(**who: Any) -> int:
        here, there = (host.client(**who).download(image_id) for host in (one, stock))
        assert here.status_code == there.status_code, who
        return here.status_code

    friend = {"project": "friend", "roles": MEMBER}
    assert both(**friend) == 404
    owner.request("POST", f"/v2/images/{image_id}/members", json={"member": "friend"}, ok=True)
    assert both(**friend) == 200
    owner.request("DELETE", f"/v2/images/{image_id}/members/friend", ok=True)
    assert both(**friend) == 404
    assert both(project="owner", roles=MEMBER) == 200
    assert both(project="owner", roles=("reader",)) == 403
    one.client().deactivate(image_id)
    assert both(project="owner", roles=MEMBER) == 403
    assert both(project="p1", roles=("admin",)) == 200
    one.client().reactivate(image_id)
    assert both(project="owner", roles=MEMBER) == 200
    owner.delete(image_id)
    assert both(project="owner", roles=MEMBER) == 404


def test_image_without_digest_is_passed_through(site: GlanceSite, one: GlanceHost) -> None:
    """An image with nothing to hold it against is served and not kept."""
    image_id, data = make(one)
    site.rows("UPDATE images SET checksum=NULL, os_hash_algo=NULL, os_hash_value=NULL WHERE id=:id", id=image_id)
    assert one.client().download(image_id).content == data
    time.sleep(0.3)
    assert not is_cached(one, image_id)
    assert hosts_of(site, image_id) == []


def test_legacy_image_with_md5_only(site: GlanceSite, one: GlanceHost) -> None:
    """md5 is enough to cache an image of old."""
    image_id, data = make(one)
    site.rows("UPDATE images SET os_hash_algo=NULL, os_hash_value=NULL WHERE id=:id", id=image_id)
    assert one.client().download(image_id).content == data
    settle(lambda: is_registered(site, one, image_id))


def test_empty_and_queued_images_are_glances(one: GlanceHost, stock: GlanceHost) -> None:
    """No bytes, nothing of ours: the answers are Glance's."""
    empty = one.client().create(data=b"")["id"]
    queued = one.client().create()["id"]
    for image_id in (empty, queued, "no-uuid", "11111111-1111-4111-8111-111111111111"):
        here, there = one.client().download(image_id), stock.client().download(image_id)
        assert (here.status_code, here.content == there.content or here.status_code >= 400) == (
            there.status_code,
            True,
        ), image_id


def test_delete_takes_rows_and_files(site: GlanceSite, one: GlanceHost, other: GlanceHost) -> None:
    """Deleting an image leaves no row, and no file on any host."""
    image_id, _ = make(one)
    for host in (one, other):
        host.client().download(image_id)
        settle(lambda host=host: is_registered(site, host, image_id))
    assert one.client().delete(image_id).status_code == 204
    assert site.locations(image_id) == []
    settle(lambda: not is_cached(one, image_id) and not is_cached(other, image_id))


def test_refused_delete_changes_nothing(site: GlanceSite, one: GlanceHost) -> None:
    """A delete that Glance refuses leaves the replicas registered."""
    image_id, _ = make(one, protected=True)
    one.client().download(image_id)
    settle(lambda: is_registered(site, one, image_id))
    before = site.locations(image_id)
    assert one.client().request("DELETE", f"/v2/images/{image_id}").status_code == 403
    stranger = one.client(project="stranger", roles=MEMBER)
    assert stranger.request("DELETE", f"/v2/images/{image_id}").status_code == 404
    assert site.locations(image_id) == before


def test_last_durable_copy_stays(site: GlanceSite, one: GlanceHost) -> None:
    """A request that would leave cached replicas only is refused with 409 and the reason (promise 5)."""
    image_id, data = make(one)
    one.client().download(image_id)
    settle(lambda: is_registered(site, one, image_id))
    refused = one.client().request("DELETE", f"/v2/stores/fast/{image_id}")
    assert refused.status_code == 409
    assert "last durable copy" in refused.text
    shown = [row["url"].split(":")[0] for row in one.client().get(image_id)["locations"]]
    by_position = one.client().patch(image_id, [{"op": "remove", "path": f"/locations/{shown.index('file')}"}])
    assert by_position.status_code == 409
    replica = site.locations(image_id)[-1]
    keep_only = [{"url": replica["url"], "metadata": replica["metadata"]}]
    replaced = one.client().patch(image_id, [{"op": "replace", "path": "/locations", "value": keep_only}])
    assert replaced.status_code == 400, "Glance replaces metadata only"
    assert site.store_file(image_id).read_bytes() == data
    assert len(site.locations(image_id)) == 2


def test_killed_process_is_taken_over(site: GlanceSite, other: GlanceHost, faulty: FaultyServer) -> None:
    """kill -9 of the worker that fills: clients of the other one get every byte without a long pause, the rest is read
    from the store once, from where the file ends, and the file is right (promises 4 and 7)."""
    herd = other.threads + 6  # more than one worker holds
    for attempt in range(6):
        image_id, data = slow(site, faulty, rate=2 * MIB)
        digest = {"value": hashlib.sha3_512(data).hexdigest(), "id": image_id}  # of which a prefix takes longest
        site.rows("UPDATE images SET os_hash_algo = 'sha3_512', os_hash_value = :value WHERE id = :id", **digest)
        pauses: list[float] = []
        victims = other.pids()
        with ThreadPoolExecutor(herd) as pool:
            clients = [pool.submit(received, other.client(), image_id, pauses) for _ in range(herd)]
            time.sleep(1.2)
            with contextlib.suppress(ProcessLookupError):  # a worker uWSGI was just replacing
                os.kill(victims[attempt % len(victims)], signal.SIGKILL)
            whole = [one.result() == data for one in clients]
        if any(whole):
            settle(lambda image_id=image_id: is_cached(other, image_id), 20)
        if is_cached(other, image_id):
            assert (other.cache_dir / image_id).read_bytes() == data
        if any(whole) and not all(whole):
            ranges = [one.range or "bytes=0-" for one in faulty.requests(f"/{image_id}") if one.method == "GET"]
            assert len(ranges) <= 2, ranges
            assert ranges[0] == "bytes=0-" not in ranges[1:]
            assert max(pauses) < PROXY_SECONDS
            return
    pytest.fail("in six attempts no kill hit one client and spared another")


def test_encrypted_catalogue(tmp_path: Path) -> None:
    """With metadata_encryption_key our rows are encrypted as Glance's are; Glance and the tools read them."""
    options = {"DEFAULT": {"metadata_encryption_key": "0123456789abcdef0123456789abcdef"}}
    with GlanceSite(tmp_path / "encrypted", options=options) as made, made.add_host("127.0.0.9", processes=1) as host:
        image_id, data = make(host)
        assert host.client().download(image_id).content == data
        settle(lambda: len(host.client().locations(image_id)) == 2)
        urls = [row["url"] for row in host.client().locations(image_id)]
        assert f"{host.url}/replicas/{image_id}" in [url.partition("?")[0] for url in urls]
        assert not any("://" in row["url"] for row in made.locations(image_id)), "nothing readable in the table"
        assert host.client().download(image_id).headers["Cache-Status"].endswith("hit")
        assert host.client().delete(image_id).status_code == 204
        assert made.locations(image_id) == []


def test_single_store(tmp_path: Path) -> None:
    """A cloud configured the old way: the row names no store, Glance lives with it, and deleting works."""
    with GlanceSite(tmp_path / "single", multi_store=False) as made, made.add_host("127.0.0.9", processes=1) as host:
        image_id, data = make(host)
        assert host.client().download(image_id).content == data
        settle(lambda: is_registered(made, host, image_id))
        assert made.locations(image_id)[-1]["metadata"] == {"replica_host": "api1", "replica_zone": "zone-a"}
        assert host.client().patch(image_id, [{"op": "replace", "path": "/name", "value": "new"}]).status_code == 200
        assert is_registered(made, host, image_id)
        assert host.client().delete(image_id).status_code == 204
        assert not made.store_file(image_id).exists()


def test_no_http_store_no_row(tmp_path: Path) -> None:
    """Without an enabled http store nothing is registered (docs/glance.md: 500s); caching works, the log says why."""
    options = {"DEFAULT": {"enabled_backends": "fast:file"}}
    with GlanceSite(tmp_path / "bare", options=options) as made, made.add_host("127.0.0.9", processes=1) as host:
        image_id, data = make(host)
        assert host.client().download(image_id).content == data
        settle(lambda: is_cached(host, image_id))
        assert host.client().download(image_id).headers["Cache-Status"].endswith("hit")
        assert hosts_of(made, image_id) == []
        assert "no http store is enabled" in host.log()


def test_swift_backend(tmp_path: Path, swift: Swift) -> None:
    """A real Swift behind it: a herd makes one GET of each segment, and a range works where Glance answers 400."""
    site = GlanceSite(tmp_path / "swift", store="swift", swift=swift)
    with site as made, made.add_host("127.0.0.9", threads=16) as host:
        image_id, data = make(host)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: host.client().download(image_id), range(8)))
        assert all(answer.content == data for answer in answers)
        assert eventually(lambda: made.backend_reads(image_id) == 1)
        settle(lambda: is_registered(made, host, image_id))
        part = host.client().download(image_id, headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, data[1000:2000])
        assert made.backend_reads(image_id) == 1


def test_downloads_while_threads_come_and_go(one: GlanceHost) -> None:
    """Hits under concurrency are whole and right, each with the length it states."""
    image_id, data = make(one)
    one.client().download(image_id)
    errors: list[str] = []

    def reader() -> None:
        for _ in range(5):
            answer = one.client().download(image_id)
            if answer.content != data or int(answer.headers["Content-Length"]) != len(data):
                errors.append("wrong body")

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
