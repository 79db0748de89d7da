"""Glance's own cache API on a host of ours: every way by which Glance itself would touch our files goes through us."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.scenes import fails, new_bytes, new_image, settle

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Location, Result
from glance_replicas.verdict import Evidence, Verdict

pytest_plugins = ["support.desk"]

MIB = 1 << 20
FRONT = "cors replica-server http_proxy_to_wsgi versionnegotiation context replica-api replica-cache"
STOCK = "cors http_proxy_to_wsgi versionnegotiation context cache cachemanage rootapp"
TARGET = "x-image-cache-clear-target"
ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """A host of ours; one with Glance's cache filters behind ours, few bytes and no janitor; one of Glance alone."""
    quick = {"janitor_interval_seconds": "1", "stall_timeout_seconds": "3", "max_bytes": str(1 << 30)}
    tiny = {"image_cache_max_size": "1000"}  # Glance's own limit, with its own driver, centralized_db
    small = {"janitor": "false", "max_bytes": str(10 * MIB), "high_watermark_percent": "50"}
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        for number, (options, pipeline) in enumerate(
            (
                ({"replicas": quick, "DEFAULT": tiny}, "replicas"),
                (
                    {
                        "replicas": small | {"low_watermark_percent": "30"},
                        "DEFAULT": {"image_cache_max_size": str(MIB), "image_cache_driver": "xattr"},
                    },
                    f"{FRONT} cache cachemanage rootapp",
                ),
                ({}, STOCK),
            ),
            2,
        ):
            made.add_host(
                f"127.0.0.{number}", options=options, pipeline=pipeline, processes=1 + (number == 2), start=False
            ).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


@pytest.fixture
def ours(site: GlanceSite) -> Iterator[GlanceHost]:
    """The first host, with an empty cache."""
    yield site.hosts[0]
    assert site.hosts[0].client().request("DELETE", "/v2/cache").status_code == 204


@pytest.fixture
def small(site: GlanceSite) -> GlanceHost:
    """The second."""
    return site.hosts[1]


def state(host: GlanceHost) -> tuple[list[str], list[str]]:
    """Image ids that `GET /v2/cache` calls cached, and queued."""
    found = host.client().request("GET", "/v2/cache", ok=True).json()
    return [one["image_id"] for one in found["cached_images"]], found["queued_images"]


def rows(host: GlanceHost, image: str) -> list[dict[str, Any]]:
    """Registrations of this host."""
    return [one for one in host.site.locations(image) if one["metadata"].get("replica_host") == host.name]


def call(host: GlanceHost, method: str, path: str, **headers: str) -> int:
    """The status."""
    return host.client().request(method, f"/v2/cache{path}", headers=headers).status_code


def cached(host: GlanceHost, size: int = 2000) -> str:
    """A new image with a registered copy on this host."""
    image, data = new_image(host, size)
    assert host.client().download(image).content == data
    settle(lambda: rows(host, image))
    return image


def test_queue_is_a_request_that_the_host_fetches(ours: GlanceHost) -> None:
    """`PUT` answers 202; the image is fetched, verified and registered, and listed in Glance's own shape."""
    image, data = new_image(ours, 5000)
    assert call(ours, "PUT", f"/{image}") == 202
    settle(lambda: image in state(ours)[0])
    settle(lambda: rows(ours, image))
    request = "SELECT who, state FROM replica_copies WHERE image_id = :image"
    done = [{"who": "user u1 of project p1", "state": "done"}]
    settle(lambda: ours.site.ledger_rows(request, image=image) == done)
    found = ours.client().request("GET", "/v2/cache").json()["cached_images"]
    (one,) = [one for one in found if one["image_id"] == image]
    assert one.keys() == {"image_id", "hits", "last_accessed", "last_modified", "size"}
    assert one["size"] == len(data)
    assert abs(one["last_modified"] - time.time()) < 600
    answer = ours.client().download(image)
    assert (answer.content == data, "hit" in answer.headers["Cache-Status"]) == (True, True)


def test_queue_in_the_middle_of_a_fill_harms_nobody(ours: GlanceHost, faulty: FaultyServer) -> None:
    """The partial file stays whole: every body is right, the back end is read once, the copy has no hole."""
    data = new_bytes(6 * MIB)
    image = str(ours.client().create(data=data)["id"])
    ours.site.move_to(faulty, image, rate=3 * MIB)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ours.client().download, image)
        settle(lambda: faulty.reads(f"/{image}"))
        time.sleep(0.7)
        assert call(ours, "PUT", f"/{image}") == 202
        others = [pool.submit(ours.client().download, image) for _ in range(2)]
        assert [one.result().content == data for one in (first, *others)] == [True] * 3
    settle(lambda: state(ours)[0] == [image])
    assert ours.client().download(image).content == data
    facts = (ours.cache_dir / image).stat()
    assert (facts.st_size, facts.st_blocks * 512 >= len(data)) == (len(data), True)
    assert hashlib.sha256((ours.cache_dir / image).read_bytes()).digest() == hashlib.sha256(data).digest()
    time.sleep(1.5)  # Glance's own worker would read the back end by now
    assert ours.site.backend_reads(image) == 1


def test_killed_after_it_was_queued(ours: GlanceHost, faulty: FaultyServer, programs: Programs) -> None:
    """kill -9 of the host in the middle of a fill that `PUT` had queued as well, and of one that only `PUT` began: the
    next start goes on where each file ends; every byte is right, no file has a hole, the requests are done."""
    images = {}
    for _ in range(2):
        data = new_bytes(4 * MIB)
        image = str(ours.client().create(data=data)["id"])
        ours.site.move_to(faulty, image, rate=2 * MIB)
        images[image] = data
    asked, queued = images
    with ThreadPoolExecutor(1) as pool:
        body = pool.submit(fails, ours, asked)
        settle(lambda: faulty.reads(f"/{asked}"))
        assert [call(ours, "PUT", f"/{one}") for one in images] == [202, 202]
        settle(lambda: faulty.reads(f"/{queued}"))
        time.sleep(0.7)
        ours.kill()
        assert body.result(), "a body that breaks off is no whole one"
    assert not any((ours.cache_dir / one).exists() for one in images)
    ours.start()
    assert ours.client().download(asked).content == images[asked]
    for image, data in images.items():
        settle(lambda image=image: rows(ours, image), 30)
        facts = (ours.cache_dir / image).stat()
        assert (facts.st_size, facts.st_blocks * 512 >= len(data)) == (len(data), True)
        assert (ours.cache_dir / image).read_bytes() == data
        sent = [one.range for one in faulty.requests(f"/{image}") if one.method == "GET"]
        assert sent[0] in (None, "bytes=0-")
        assert len(sent) == 2, sent
        assert sent[1] not in (None, "bytes=0-"), "what is on disk is not asked for again"
    settle(lambda: state(ours) == (sorted(images), []), 30)
    done = programs.run("--config-file", ours.config_file, "verify", *images, "--host", ours.name, "-f", "json")
    assert [row["Verdict"] for row in json.loads(done.out)] == ["intact"] * 2


@pytest.mark.parametrize("spelling", ["DELETE {}", "GET {}?_method=DELETE", "POST {}?_method=DELETE"])
def test_delete_takes_the_row_with_the_file(ours: GlanceHost, spelling: str) -> None:
    """When Glance has answered 204 there is neither; however Glance's router is told."""
    image = cached(ours)
    method, path = spelling.format(f"/{image}").split()
    assert call(ours, method, path) == 204
    assert (rows(ours, image), (ours.cache_dir / image).exists(), state(ours)) == ([], False, ([], []))
    time.sleep(1.5)
    assert rows(ours, image) == []


def test_calls_one_after_another_on_a_complete_copy(ours: GlanceHost, programs: Programs) -> None:
    """Queued once more, deleted, cleared: at once afterwards `replica list`, the signed URL of before, the document and
    a download agree on whether there is a copy, and every body is the image's."""
    image, data = new_image(ours, 70_000)
    assert ours.client().download(image).content == data
    settle(lambda: rows(ours, image))

    def urls() -> list[str]:
        return [one["url"] for one in ours.client().replicas(image)["replicas"] if one["host"] == ours.name]

    for method, path, is_there in (("PUT", f"/{image}", True), ("DELETE", f"/{image}", False), ("DELETE", "", False)):
        settle(urls)
        (signed,) = urls()
        assert requests.get(signed, timeout=30).content == data
        assert call(ours, method, path) in (202, 204)
        listed = json.loads(programs.run("--config-file", ours.config_file, "list", image, "-f", "json").out)
        assert [one["Host"] for one in listed if one["Host"]] == [ours.name] * is_there
        answer = requests.get(signed, timeout=30)
        assert (answer.status_code, answer.content == data) == ((200, True) if is_there else (404, False))
        assert len(urls()) == is_there
        answer = ours.client().download(image)
        assert (answer.content == data, "; hit" in answer.headers["Cache-Status"]) == (True, is_there)


def test_delete_ends_a_request(ours: GlanceHost, faulty: FaultyServer) -> None:
    """What was queued and is being fetched is queued no more, and does not come."""
    image, _ = new_image(ours, 4 * MIB)
    ours.site.move_to(faulty, image, rate=MIB)
    assert call(ours, "PUT", f"/{image}") == 202
    settle(lambda: faulty.reads(f"/{image}"))
    assert state(ours) == ([], [image])
    assert call(ours, "DELETE", f"/{image}") == 204
    assert state(ours) == ([], [])
    time.sleep(3)
    assert ((ours.cache_dir / image).exists(), rows(ours, image)) == (False, [])


@pytest.mark.parametrize(("target", "left"), [("cache", "queue"), ("queue", "cache"), ("", ""), (None, "")])
def test_clear_takes_what_its_header_says(
    ours: GlanceHost, faulty: FaultyServer, target: str | None, left: str
) -> None:
    """`cache`, `queue` or both; no row stays behind a file."""
    here = cached(ours)
    asked, _ = new_image(ours, 4 * MIB)
    ours.site.move_to(faulty, asked, rate=MIB // 2)
    assert call(ours, "PUT", f"/{asked}") == 202
    headers = {} if target is None else {TARGET: target}
    assert call(ours, "DELETE", "", **headers) == 204
    assert state(ours) == ([here] if left == "cache" else [], [asked] if left == "queue" else [])
    assert bool(rows(ours, here)) == (left == "cache")


@pytest.mark.parametrize("path", ["", "/{}"])
def test_what_is_fetched_meanwhile_is_cleared_too(ours: GlanceHost, path: str) -> None:
    """However far the fetch of a queued image has come: neither listed as cached nor as queued, then or later."""
    image, _ = new_image(ours, 9)
    for step in range(60):
        assert call(ours, "PUT", f"/{image}") == 202
        time.sleep(step % 30 / 500)
        assert call(ours, "DELETE", path.format(image)) == 204
        assert state(ours) == ([], []), step
    time.sleep(1.5)
    assert (state(ours), rows(ours, image)) == (([], []), [])
    open_ones = "SELECT state FROM replica_copies WHERE image_id = :image AND state IN ('waiting', 'running')"
    assert ours.site.ledger_rows(open_ones, image=image) == []  # nothing that brings it later


def test_clear_leaves_what_the_directory_needs(ours: GlanceHost) -> None:
    """The janitor's lock and the mark of the directory stay, and the host goes on."""
    cached(ours)  # after a pass of the janitor
    own = ours.cache_dir / ".glance-replicas"
    before = {path.name: path.stat().st_ino for path in own.iterdir()}
    assert {"janitor", "since", "space"} <= before.keys()
    assert call(ours, "DELETE", "") == 204
    assert before.items() <= {path.name: path.stat().st_ino for path in own.iterdir()}.items()
    cached(ours)


def test_the_last_intact_copy_stays(ours: GlanceHost) -> None:
    """409, with file and row as they were, for it alone and in a clear of all, which takes what may go."""
    image, other = cached(ours), cached(ours)
    (durable,) = [one for one in ours.site.locations(image) if one["metadata"].get("store") == "fast"]
    place = Location(image, durable["url"], durable["metadata"])

    def say(verdict: Verdict) -> None:
        ledger = Ledger(ours.site.ledger_url)
        ledger.record([Result(place, verdict, Evidence.FULL, "", datetime.now(UTC), size=2000)])
        ledger.close()

    say(Verdict.CORRUPT)
    answer = ours.client().request("DELETE", f"/v2/cache/{image}")
    assert (answer.status_code, "last known intact" in answer.text) == (409, True)
    assert call(ours, "DELETE", "") == 409
    assert (state(ours), bool(rows(ours, image)), rows(ours, other)) == (([image], []), True, [])
    say(Verdict.INTACT)
    assert call(ours, "DELETE", f"/{image}") == 204
    assert (state(ours), rows(ours, image)) == (([], []), [])


def test_prune_returns_and_follows_our_limits(small: GlanceHost) -> None:
    """Rows go before files, down to the low watermark; Glance's own, smaller limit is not the one that counts."""
    images = [cached(small, 2 * MIB) for _ in range(3)]
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: small.client().request("POST", "/v2/cache/prune"), range(8)))
    assert time.monotonic() - start < 20
    assert [one.status_code for one in answers] == [200] * 8
    assert [one.json() for one in answers if one.json()["total_files_pruned"]] == [
        {"total_files_pruned": 2, "total_bytes_pruned": 4 * MIB}
    ]
    assert [bool(rows(small, one)) for one in images] == [(small.cache_dir / one).exists() for one in images]
    assert [(small.cache_dir / one).exists() for one in images] == [False, False, True]
    assert not _is_busy(small)


def test_prune_with_glances_own_driver(ours: GlanceHost) -> None:
    """The directory holds more than Glance's limit and Glance's tables know nothing of it: prune returns, again and
    again, takes nothing that our limits allow, and leaves no thread at work."""
    images = [cached(ours, 5000) for _ in range(2)]
    began = time.monotonic()
    answers = [ours.client().request("POST", "/v2/cache/prune") for _ in range(3)]
    assert [(one.status_code, one.json()["total_files_pruned"]) for one in answers] == [(200, 0)] * 3
    assert time.monotonic() - began < 20
    assert [(bool(rows(ours, one)), (ours.cache_dir / one).exists()) for one in images] == [(True, True)] * 2
    assert not _is_busy(ours)


def _is_busy(host: GlanceHost) -> bool:
    """Whether its processes use the processor while nobody asks anything."""

    def used() -> int:
        return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in host.pids())

    before = used()
    time.sleep(2)
    return used() - before > os.sysconf("SC_CLK_TCK")


def test_clean_takes_what_nobody_goes_on_with(ours: GlanceHost, faulty: FaultyServer) -> None:
    """What is in `invalid/` and what was left in `incomplete/` long ago goes; a fill goes on."""
    image, data = new_image(ours, 3 * MIB)
    ours.site.move_to(faulty, image, rate=MIB)
    wrong, old, new = (ours.cache_dir / name for name in ("invalid/odd", "incomplete/odd", "incomplete/new"))
    for path in (wrong, old, new):
        path.write_bytes(b"left by somebody")
    os.utime(old, (0, time.time() - 2 * 86400))
    with ThreadPoolExecutor(1) as pool:
        body = pool.submit(ours.client().download, image)
        settle(lambda: faulty.reads(f"/{image}"))
        assert call(ours, "POST", "/clean") == 200
        assert [path.exists() for path in (wrong, old, new)] == [False, False, True]
        assert body.result().content == data
    new.unlink()
    assert ours.site.backend_reads(image) == 1


def test_nodes_are_the_hosts_that_have_it(ours: GlanceHost, small: GlanceHost) -> None:
    """`GET /v2/cache/nodes/ID` knows every host of the site."""
    image = cached(ours)
    answer = ours.client().request("GET", f"/v2/cache/nodes/{image}")
    assert (answer.status_code, answer.json()) == (200, [ours.url])
    small.client().download(image)
    settle(lambda: rows(small, image))
    assert sorted(ours.client().request("GET", f"/v2/cache/nodes/{image}").json()) == sorted([ours.url, small.url])


ASKED = [
    *(("GET", ""), ("GET", "/"), ("DELETE", ""), ("HEAD", ""), ("POST", ""), ("PUT", "/{0}"), ("PUT", "/{1}")),
    *(("PUT", f"/{ABSENT}"), ("PUT", "/no-id"), ("DELETE", "/{0}"), ("DELETE", f"/{ABSENT}"), ("DELETE", "/no-id")),
    *(("GET", "/{0}"), ("POST", "/clean"), ("POST", "/prune"), ("GET", "/clean"), ("PUT", "/prune")),
    *(("GET", "/nodes/{0}"), ("GET", f"/nodes/{ABSENT}"), ("GET", "/nodes/no-id"), ("PUT", "/nodes/{0}")),
]


@pytest.mark.parametrize("roles", ["admin,member", "member", "reader"])
def test_statuses_are_glances(site: GlanceSite, roles: str) -> None:
    """Each call of each role gets from us the status, and the kind of body, that it gets from Glance alone."""
    client = site.hosts[0].client()
    ids = client.create(data=b"some bytes")["id"], client.create()["id"]
    found = []
    for host in (site.hosts[0], site.hosts[2]):
        caller = host.client(roles=roles.split(","))
        answers = [caller.request(method, f"/v2/cache{path.format(*ids)}") for method, path in ASKED]
        answers.append(caller.request("DELETE", "/v2/cache", headers={TARGET: "both"}))
        found.append([(one.status_code, one.headers.get("Content-Type", "").split(";")[0]) for one in answers])
    asked = [*ASKED, ("DELETE", "with a wrong target")]
    assert list(zip(asked, found[0], strict=True)) == list(zip(asked, found[1], strict=True))
    assert {403 if roles != "admin,member" else 202} <= {status for status, _ in found[0]}


def test_the_older_calls_go_the_same_way(small: GlanceHost) -> None:
    """Glance's filter `cachemanage` behind ours lists and deletes what we keep, the row first."""
    images = [cached(small), cached(small)]
    listed = small.client().request("GET", "/v2/cached_images").json()["cached_images"]
    assert set(images) <= {one["image_id"] for one in listed}
    assert small.client().request("DELETE", f"/v2/cached_images/{images[0]}").status_code == 200
    assert ((small.cache_dir / images[0]).exists(), rows(small, images[0])) == (False, [])
    asked, _ = new_image(small, 1000)
    assert small.client().request("PUT", f"/v2/queued_images/{asked}").status_code == 200
    assert small.client().request("GET", "/v2/queued_images").json() == {"queued_images": [asked]}
    assert small.client().request("DELETE", "/v2/queued_images").json() == {"num_deleted": 1}
    assert small.client().request("DELETE", "/v2/cached_images").json()["num_deleted"] == len(listed) - 1
    assert (rows(small, images[1]), state(small)) == ([], ([], []))


def test_the_stock_filter_behind_ours_neither_writes_nor_reads(small: GlanceHost) -> None:
    """What we pass on to Glance (here: a store was asked for) is not cached by the filter between."""
    image, data = new_image(small, 5000)
    answer = small.client().request("GET", f"/v2/images/{image}/file?prefer=fast")
    assert answer.content == data
    assert not (small.cache_dir / image).exists()
    assert [path.name for path in (small.cache_dir / "incomplete").iterdir() if path.name[0] != "."] == []
    copy = cached(small)
    (small.cache_dir / copy).chmod(0o640)
    (small.cache_dir / copy).write_bytes(b"x" * 2000)  # the filter behind ours must not send what it finds here
    assert small.client().request("GET", f"/v2/images/{copy}/file?prefer=fast").content != b"x" * 2000
    call(small, "DELETE", "")


def test_threads_of_glance_stay_few(ours: GlanceHost) -> None:
    """Forty cache calls of each kind leave as many threads in the processes as there were."""

    def threads() -> int:
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in ours.pids())

    image = cached(ours)
    before = threads()
    with ThreadPoolExecutor(8) as pool:
        for method, path in (("POST", "/prune"), ("POST", "/clean"), ("PUT", f"/{image}"), ("GET", "")):
            assert set(pool.map(lambda _, what=(method, path): call(ours, *what), range(40))) <= {200, 202}
    settle(lambda: threads() <= before + 2)
