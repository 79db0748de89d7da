"""While a host is attacked (attack.py) it answers the image list about as fast as before.

A thousand requests at once have to be accepted before whoever comes behind them, here as with plain Glance: the list
may wait for that, no longer than at a plain host. From then on it is as fast as ever. Where bodies have a uWSGI of
their own (etc/haproxy.cfg) it is so from the first moment.
"""

import http.client
import json
import random
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import requests
from services import environment, eventually
from services.glance.site import GlanceHost, GlanceSite
from services.glance.two_uwsgi import TwoUwsgi
from services.web.faulty import FaultyServer
from support.worlds.crowd import DATA, add_images
from support.worlds.scenes import new_image

MIB = 1 << 20
SIZE = 24 * MIB  # more than the kernel takes of a body that nobody reads
SILENT, HEALTHY, UNKNOWN = 100, 200, 700  # of the thousand: where their only source says nothing, gives all, is none
BEHIND = 6  # lists right behind the thousand
PATIENCE = {"replicas": 40.0, "stock": 8.0}  # seconds for one of those: a plain host was not seen to answer one in 20
SECONDS = 6.0  # of lists afterwards
FLOOR = 0.005  # seconds that two medians differ by on a machine that does other things
ATTACK = Path(__file__).with_name("attack.py")


def listed(host: GlanceHost | TwoUwsgi, patience: float = 40.0) -> float:
    """Seconds of one image list; infinite when it takes longer than anybody waits."""
    client, began = host.client(), time.monotonic()
    client.timeout = patience
    try:
        assert client.request("GET", "/v2/images?limit=5").status_code == 200
    except requests.Timeout:
        return float("inf")
    return time.monotonic() - began


def answered(host: TwoUwsgi, path: str) -> int:
    """The status of a path as it is written."""
    connection = http.client.HTTPConnection(host.listen, timeout=30)
    with closing(connection):
        connection.request("GET", path, headers=host.client().identity)
        return connection.getresponse().status


def lists(host: GlanceHost | TwoUwsgi, seconds: float) -> list[float]:
    """One after the other."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        taken.append(listed(host))
        time.sleep(0.05)
    return taken


@dataclass(frozen=True)
class Attacked:
    """Seconds of lists, and what the thousand were answered."""

    behind: list[float]
    later: list[float]
    answers: dict[str, int]


def attacked(host: GlanceHost, *words: str | Path) -> Attacked:
    """Lists right behind the thousand, and, where those are answered, others after them."""
    patience = PATIENCE[host.pipeline]
    with attacking(host.url.removeprefix("http://"), *words) as attack, ThreadPoolExecutor(BEHIND) as pool:
        behind = list(pool.map(listed, [host] * BEHIND, [patience] * BEHIND))
        later = lists(host, SECONDS) if max(behind) < patience else []
        told, _ = attack.communicate(timeout=30)
    return Attacked(behind, later, json.loads(told))


@contextmanager
def attacking(address: str, *words: str | Path) -> "Iterator[subprocess.Popen[bytes]]":
    """attack.py, begun; it ends with its input, and then says what came of it."""
    command = [sys.executable, ATTACK, address, "90", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), **pipes) as attack:
        assert attack.stdout is not None
        assert attack.stdout.readline() == b"attacking\n"
        yield attack


@contextmanager
def thousand(site: GlanceSite, faulty: FaultyServer) -> Iterator[list[str]]:
    """Ids in a random order; a source that is silent takes connections and says nothing, not even headers."""
    known, unknown = ([str(uuid.uuid4()) for _ in range(number)] for number in (SILENT + HEALTHY, UNKNOWN))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as silent:
        urls: dict[str, Sequence[str]] = {
            one: [f"http://127.0.0.1:{silent.getsockname()[1]}/{one}"] for one in known[:SILENT]
        }
        urls |= {one: [faulty.put(f"/{one}", DATA)] for one in known[SILENT:]}
        add_images(site, urls)
        yield random.Random(1).sample(known + unknown, len(known + unknown))


def test_the_image_list_under_attack(site: GlanceSite, faulty: FaultyServer, tmp_path: Path) -> None:
    """A thousand ids at once, slow readers, ranges, bad signatures, leavers: no list takes twice as long afterwards."""
    host = site.add_host("127.0.0.2", processes=2, threads=16)  # as in etc/uwsgi.ini
    plain = site.add_host("127.0.0.3", processes=2, threads=16, pipeline="stock")
    hit, data = new_image(host, SIZE)
    assert host.client().download(hit).content == data
    assert eventually((host.cache_dir / hit).exists)
    cold, _ = new_image(host, SIZE)
    site.move_to(faulty, cold, rate=MIB // 4)
    with thousand(site, faulty) as ids:
        (tmp_path / "ids").write_text("\n".join(ids))
        idle = lists(host, 3.0)
        ours = attacked(host, tmp_path / "ids", hit, cold)
        idle += lists(host, 2.0)
        theirs = attacked(plain, tmp_path / "ids", hit, cold)
    assert ours.answers["most"] == theirs.answers["most"] == len(ids)
    assert median(ours.behind) <= median(theirs.behind), (sorted(ours.behind), sorted(theirs.behind))
    assert ours.later, "the lists behind the thousand were not answered"
    assert median(ours.later) < 2 * median(idle) + FLOOR, (sorted(idle), sorted(ours.later))
    assert host.client().download(hit).content == data


def test_the_image_list_where_bodies_have_a_uwsgi_of_their_own(
    site: GlanceSite, faulty: FaultyServer, tmp_path: Path
) -> None:
    """The same attack through the samples: no list takes twice as long at any time, and downloads go on beside it."""
    with TwoUwsgi(site) as host, thousand(site, faulty) as ids:
        hit, data = new_image(host, SIZE)
        assert host.client().download(hit).content == data
        assert eventually((host.host.cache_dir / hit).exists)
        cold, _ = new_image(host, SIZE)
        site.move_to(faulty, cold, rate=MIB // 4)
        (tmp_path / "ids").write_text("\n".join(ids))
        for path in (f"/v2/images/{hit}/%66ile", f"/v2.3/images/{hit}/file"):
            assert answered(host, path) == 200
        idle = lists(host, 4.0)
        with attacking(host.listen, tmp_path / "ids", hit, cold) as attack:
            meanwhile = lists(host, 8.0)
            assert host.client().download(hit).content == data  # slow readers and silent stores leave places
            meanwhile += lists(host, 2.0)
            told, _ = attack.communicate(timeout=30)
        idle += lists(host, 4.0)
    answers = json.loads(told)
    assert answers["most"] == len(ids)
    assert answers["404"] >= UNKNOWN / 2, answers
    assert median(meanwhile) < 2 * median(idle), (sorted(idle), sorted(meanwhile))
    assert " /v2" in host.log("api")
    assert not re.search(r" /.*/file ", host.log("api")), "a body went through the uWSGI of the API"
