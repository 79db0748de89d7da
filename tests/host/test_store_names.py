"""Two running hosts that name their http store differently: every GET rewrites the rows, and we do not join in."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from support.programs import Programs
from support.worlds.scenes import new_image, settle

from glance_replicas.catalogue.images import Catalogue

pytest_plugins = ["support.desk"]

OPTIONS = {"replicas": {"janitor_interval_seconds": "1"}}
IDS = {"web", "cache"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[tuple[GlanceHost, GlanceHost]]:
    """The http store is `web` on the first, `cache` on the second."""
    folder = tmp_path_factory.mktemp("site")
    with GlanceSite(folder, postgres.create_glance("store_names"), options=OPTIONS) as site:
        here = site.add_host("127.0.0.2", processes=1)
        other = {"DEFAULT": {"enabled_backends": "fast:file, cache:http"}}
        there = site.add_host("127.0.0.3", processes=1, options=other)
        site.wait_known()
        yield here, there


def ours(site: GlanceSite, image_id: str) -> list[tuple[int, str, str]]:
    """Number, host and store of the image's registrations."""
    found = [(row["id"], row["metadata"]) for row in site.locations(image_id)]
    return [(number, each["replica_host"], each["store"]) for number, each in found if "replica_host" in each]


def in_turn(pair: tuple[GlanceHost, GlanceHost], image_id: str, times: int) -> set[str]:
    """So many times the owner looks at the image on both hosts; the store ids that the rows had in between."""
    seen = set()
    for _ in range(times):
        for host in pair:
            host.client().get(image_id)
            seen |= {store for _, _, store in ours(host.site, image_id)}
    return seen


def test_nothing_of_ours_joins_in(pair: tuple[GlanceHost, GlanceHost], programs: Programs) -> None:
    """GETs on both hosts in turn flip the store id of both rows; over several passes of both janitors the rows stay the
    same ones, no pass registers anything, and check on both names both ids. While somebody adds and withdraws rows
    meanwhile, in the end every copy is registered once and right."""
    site, (image_id, data) = pair[0].site, new_image(pair[0], 100_000)
    for host in pair:
        assert host.client().download(image_id).content == data
    settle(lambda: len(ours(site, image_id)) == 2)
    time.sleep(1.2)
    rows, told = [row[:2] for row in ours(site, image_id)], [len(host.log()) for host in pair]
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert in_turn(pair, image_id, 5) == IDS
    assert [row[:2] for row in ours(site, image_id)] == rows
    for host, start in zip(pair, told, strict=True):
        assert not re.search(r"registered=[1-9]", host.log()[start:])
        said = programs.run("--config-file", host.config_file, "check").out
        assert re.search(r"error: .*(web.*called cache here|cache.*called web here)", said), said
    ended = threading.Event()

    def add_and_withdraw() -> None:
        with closing(Catalogue(site.database_url)) as catalogue:
            while not ended.is_set():
                url = f"http://127.0.0.9:1/{time.monotonic_ns()}"
                catalogue.add(image_id, url, {"store": "web"})
                catalogue.withdraw_url(image_id, url)

    changing = threading.Thread(target=add_and_withdraw)
    changing.start()
    try:
        in_turn(pair, image_id, 15)
    finally:
        ended.set()
        changing.join()
    settle(lambda: sorted(host for _, host, _ in ours(site, image_id)) == ["api1", "api2"])
    assert sum("127.0.0.9" not in row["url"] for row in site.locations(image_id)) == 3
    for host in pair:
        assert host.client().download(image_id).content == data
