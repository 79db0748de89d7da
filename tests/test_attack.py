"""While a host is attacked (attack.py) it answers the image list about as fast as before."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scenes import new_image
from services import environment, eventually
from services.faulty import FaultyServer
from services.glance import GlanceHost, GlanceSite

MIB = 1 << 20
SIZE = 24 * MIB  # more than the kernel takes of a body that nobody reads
ROUNDS = 4
SECONDS = 4  # of one attack
ATTACK = Path(__file__).with_name("attack.py")


def listed(host: GlanceHost, goes_on: Callable[[], bool]) -> list[float]:
    """Seconds of image lists, one after the other, as long as it goes on."""
    taken = []
    while goes_on():
        began = time.monotonic()
        assert host.client().request("GET", "/v2/images?limit=5").status_code == 200
        taken.append(time.monotonic() - began)
        time.sleep(0.05)
    return taken


def test_the_image_list_under_attack(site: GlanceSite, faulty: FaultyServer) -> None:
    """Slow readers, ranges, bad signatures, ids, clients that leave: the median list takes less than twice as long."""
    host = site.add_host("127.0.0.2", processes=2, threads=8)
    hit, data = new_image(host, SIZE)
    assert host.client().download(hit).content == data
    assert eventually((host.cache_dir / hit).exists)
    cold, _ = new_image(host, SIZE)
    site.move_to(faulty, cold, rate=MIB // 4)
    idle, attacked = [], []
    for _ in range(ROUNDS):  # in turns, so that what else this machine does is in both
        end = time.monotonic() + SECONDS / 2
        idle += listed(host, lambda: time.monotonic() < end)  # noqa: B023
        words = [sys.executable, ATTACK, host.url.removeprefix("http://"), str(SECONDS), hit, cold]
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment()) as attack:
            assert attack.stdout is not None
            assert attack.stdout.readline() == b"attacking\n"
            time.sleep(0.5)
            attacked += listed(host, lambda: attack.poll() is None)
            assert attack.wait(SECONDS + 30) == 0
    assert statistics.median(attacked) < 2 * statistics.median(idle), (sorted(idle), sorted(attacked))
    assert host.client().download(hit).content == data
