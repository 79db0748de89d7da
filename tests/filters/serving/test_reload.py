"""uWSGI is reloaded (touch-reload) behind HAProxy while clients download: no body is wrong, or short and well."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests
from services import eventually
from services.glance.site import GlanceSite
from services.glance.two_uwsgi import PROCESSES, TwoUwsgi
from services.web.faulty import FaultyServer
from support.worlds.scenes import new_image

MIB = 1 << 20
SIZE = 16 * MIB + 77
RATE = 2 * MIB  # bytes per second, of the store and of those who read a hit
MERCY = 3  # seconds that a worker may take to end


@dataclass
class Client:
    """What one client saw."""

    cut: int = 0
    refused: int = 0
    whole: bool = False


def downloads(host: TwoUwsgi, image: str, data: bytes, tick: Callable[[], None]) -> Client:
    """Until it has the image: what breaks off is begun again; nothing ends well that is not the image."""
    seen, end = Client(), time.monotonic() + 60
    while not seen.whole and time.monotonic() < end:
        got = bytearray()
        try:
            with host.client().download(image, stream=True) as answer:
                if answer.status_code != 200:
                    assert answer.status_code in (502, 503, 504), answer.status_code
                    seen.refused += 1
                    time.sleep(0.2)
                    continue
                for chunk in answer.iter_content(MIB // 2):
                    got += chunk
                    tick()
        except requests.RequestException:
            seen.cut += 1
            assert data.startswith(got)
        else:
            assert got == data
            seen.whole = True
    return seen


def test_a_reload_while_clients_download(faulty: FaultyServer, tmp_path: Path) -> None:
    """Each who reads a hit, follows or began a fill gets the whole image in the end, at most by asking again."""
    touched = tmp_path / "touched"
    touched.touch()
    more = ["--touch-reload", str(touched), "--worker-reload-mercy", str(MERCY)]
    with (
        GlanceSite(tmp_path / "site", quick=False) as site,  # a fork of a warm process does not inherit its socket
        TwoUwsgi(site, bodies=more) as host,
        ThreadPoolExecutor(8) as pool,
    ):
        hit, hit_data = new_image(host, SIZE)
        assert host.client().download(hit).content == hit_data
        assert eventually((host.host.cache_dir / hit).exists)
        cold, cold_data = new_image(host, SIZE)
        site.move_to(faulty, cold, rate=RATE)
        read = [pool.submit(downloads, host, hit, hit_data, lambda: time.sleep(0.25)) for _ in range(3)]
        read += [pool.submit(downloads, host, cold, cold_data, lambda: None) for _ in range(4)]
        assert eventually(lambda: faulty.reads(f"/{cold}") == 1)
        time.sleep(1)
        before = host.log("bodies").count("WSGI app 0 (mountpoint='') ready")
        touched.write_text("now")
        assert eventually(lambda: host.log("bodies").count("ready in") >= before + PROCESSES, 60)
        ended = [one.result() for one in read]
        assert all(one.whole for one in ended), ended
        assert eventually((host.host.cache_dir / cold).exists)
        assert host.client().download(cold).content == cold_data
