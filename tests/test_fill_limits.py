"""Fills begun by clients are bounded, in a process and for a project; what comes beyond that passes through."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from cloud import DATA, MIB, Cloud
from scenes import new_image
from services import eventually
from services.faulty import FaultyServer
from services.glance import GlanceHost, GlanceSite

from glance_replicas.fill_limits import FillLimits, TooManyFills
from glance_replicas.follow import start_or_join

pytest_plugins = ["cloud"]


def test_a_project_at_its_bound(cloud: Cloud) -> None:
    """One fill more than a project, or all, may have is refused, and nothing is left of it; ended ones do not count."""
    keeper, limits = cloud.host("here"), FillLimits(3, 2)
    images = [keeper.active(cloud.image(rate=MIB)) for _ in range(4)]
    plans = [keeper.plan(image) for image in images if image]
    with ExitStack() as open_ones:
        for plan in plans[:2]:
            open_ones.enter_context(closing(start_or_join(keeper.cache, limits.limited(plan, "one"))))
        with pytest.raises(TooManyFills, match="max_client_fills_per_project"):
            start_or_join(keeper.cache, limits.limited(plans[2], "one"))
        assert not [name for name, _ in keeper.cache.listed("partial") if name == plans[2].image.id]
        follower = start_or_join(keeper.cache, limits.limited(plans[0], "one"))
        assert b"".join(follower.read(0, plans[0].size)) == DATA, "who follows begins nothing"
        follower.close()
        open_ones.enter_context(closing(start_or_join(keeper.cache, limits.limited(plans[2], "two"))))
        assert eventually(lambda: not limits._running["one"])
        with closing(start_or_join(keeper.cache, limits.limited(plans[3], "one"))) as last:
            assert b"".join(last.read(0, plans[3].size)) == DATA
    assert eventually(lambda: not limits._running)


def test_beyond_the_bound_downloads_pass_through(site: GlanceSite, faulty: FaultyServer) -> None:
    """Three images at once where one may be filled: all bodies are right, and one of them is kept."""
    options = {"replicas": {"max_client_fills": "1"}}
    host = site.add_host("127.0.0.2", processes=1, threads=8, options=options)
    images = [new_image(host, 2 * MIB) for _ in range(3)]
    for image_id, _ in images:
        site.move_to(faulty, image_id, rate=MIB)
    with ThreadPoolExecutor(3) as pool:
        bodies = list(pool.map(lambda one: host.client().download(one[0]).content, images))
    assert bodies == [data for _, data in images]
    assert eventually(lambda: sum((host.cache_dir / image_id).exists() for image_id, _ in images) == 1)


def test_a_client_that_leaves_gives_its_place_back(site: GlanceSite, faulty: FaultyServer) -> None:
    """What it had begun goes on in the background, at its rate, from that byte, until the next client is served."""
    rate = MIB // 4
    bound = {"max_client_fills": "1", "copy_bytes_per_second": str(rate), "janitor_interval_seconds": "1"}
    host = site.add_host("127.0.0.2", processes=1, threads=8, options={"replicas": bound})
    (left, data), (other, _) = new_image(host, 24 * MIB), new_image(host, MIB)
    site.move_to(faulty, left, rate=2 * MIB)
    with closing(host.client().download(left, stream=True)) as answer:
        next(answer.iter_content(1000))
    assert eventually(lambda: len(faulty.requests(f"/{left}")) == 2, 15), "it ran on as before"
    assert faulty.requests(f"/{left}")[1].range is not None, "not from the start"
    assert host.client().download(other).ok
    assert eventually((host.cache_dir / other).exists), "the place is free for another client"
    began, have = time.monotonic(), growing(host, left)
    time.sleep(2.0)
    assert growing(host, left) - have < 2 * rate * (time.monotonic() - began)
    began = time.monotonic()
    assert host.client().download(left).content == data
    assert time.monotonic() - began < (len(data) - have) / rate / 2, "a client lifts the rate"
    assert eventually((host.cache_dir / left).exists)
    assert faulty.sent(f"/{left}") < 1.2 * len(data)


def growing(host: GlanceHost, image_id: str) -> int:
    """Bytes of its growing file."""
    return (host.partial_dir / image_id).stat().st_size
