"""An image is deactivated while it is read in every way, on two hosts: who asks afterwards gets none of its bytes."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import requests
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.scenes import new_image, settle

from glance_replicas import signing
from glance_replicas.location import replica_url
from glance_replicas.settings import load

MIB = 1 << 20
MEMBER = ("member", "reader")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[tuple[GlanceHost, GlanceHost]]:
    """Two hosts of one site; on SQLite Glance itself answers 500 where another host writes at that moment."""
    with GlanceSite(tmp_path_factory.mktemp("site"), postgres.create_glance("deactivated")) as site:
        hosts = (site.add_host("127.0.0.2"), site.add_host("127.0.0.3"))
        site.wait_known()
        yield hosts


def ways(host: GlanceHost, image_id: str) -> list[Callable[[], requests.Response]]:
    """How a member reads the image at this host: all of it, its end, and the per-host URL with a good signature."""
    member = host.client("p1", MEMBER, "u2")
    keys = load([str(host.config_file)]).signing_keys

    def signed() -> requests.Response:
        url = signing.sign(replica_url(host.url, image_id), keys, 60)
        return requests.get(url, timeout=30)

    return [
        lambda: member.download(image_id),
        lambda: member.download(image_id, headers={"Range": "bytes=-9"}),
        signed,
    ]


class Reads:
    """What readers got: whether they asked after the answer, the status, and whether these were bytes of the image."""

    def __init__(self, data: bytes) -> None:
        self.answered, self._data = threading.Event(), data
        self.found: list[tuple[bool, int, bool]] = []

    def again(self, way: Callable[[], requests.Response]) -> None:
        """Until one read that was asked for after the answer."""
        late = False
        while not late:
            late = self.answered.is_set()
            with suppress(requests.RequestException):
                answer = way()
                self.found.append((late, answer.status_code, answer.content in (self._data, self._data[-9:])))


@pytest.mark.parametrize("state", ["cached", "filling"])
def test_nobody_reads_after_the_answer(pair: tuple[GlanceHost, GlanceHost], faulty: FaultyServer, state: str) -> None:
    """Hits, followers of a fill, ranges and per-host URLs on both hosts: what is asked after the answer is 403."""
    here, there = pair
    image_id, data = new_image(here, 2 * MIB + 5)
    here.site.move_to(faulty, image_id, rate=None if state == "cached" else MIB)
    if state == "cached":
        for host in pair:
            assert host.client().download(image_id).content == data
            settle((host.cache_dir / image_id).exists)
    reads = Reads(data)
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(reads.again, way) for host in pair for way in ways(host, image_id)]
        try:
            settle(lambda: len(reads.found) > 6)
            there.client().deactivate(image_id)
        finally:
            reads.answered.set()
        for job in jobs:
            job.result()
    assert any(status in (200, 206) and has for late, status, has in reads.found if not late)
    assert [(status, has) for late, status, has in reads.found if late] == [(403, False)] * 6
