"""uWSGI that retires and kills its workers while they fill and send: options against which `replica check` warns."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from services import eventually
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.scenes import new_image

pytest_plugins = ["support.desk"]

MIB = 1 << 20
SIZE = 8 * MIB + 77
RATE = 2 * MIB  # bytes per second of the store, and of copies
SECONDS = 20.0  # of load: Glance needs some of them to load, each time a worker comes
IN_FLIGHT = 2 * MIB  # that a store sent and no reader took, for each end of a reader: buffers of the two sockets
SILENT_SECONDS = 3 * 6.0  # three intervals, each with the time in which a new worker loads Glance and the janitor
ENDINGS = {
    "max-requests": "40",
    "max-worker-lifetime": "15",
    "cheaper": "1",
    "harakiri": "4",
}
BESIDE = {"min-worker-lifetime": "1", "worker-reload-mercy": "1", "cheaper-initial": "2"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """Two processes that end every few seconds, of their own accord or by harakiri."""
    options = {"replicas": {"janitor_interval_seconds": "1", "copy_bytes_per_second": str(RATE)}}
    with GlanceSite(tmp_path_factory.mktemp("site")) as site, pytest.MonkeyPatch.context() as patch:
        made = site.add_host("127.0.0.2", processes=2, threads=8, options=options, start=False)
        words: list[str | Path] = [word for name, value in (ENDINGS | BESIDE).items() for word in (f"--{name}", value)]
        words = [*made.command(), *words]
        patch.setattr(made, "command", lambda: words)
        yield made.start()


def downloads(host: GlanceHost, image_id: str, data: bytes, until: float, pause: float) -> tuple[int, int]:
    """Whole bodies, and those that broke off, until then; none was wrong, nor short and well."""
    whole = cut = 0
    while time.monotonic() < until or not whole:
        assert time.monotonic() < until + 60, f"{cut} bodies were cut, none was whole"
        got = bytearray()
        try:
            answer = host.client().download(image_id, stream=True)
            assert answer.status_code == 200
            for chunk in answer.iter_content(MIB // 2):
                got += chunk
                time.sleep(pause)
        except requests.RequestException:
            cut += 1
            assert data.startswith(bytes(got))
        else:
            whole += 1
            assert got == data
    return whole, cut


def lists(host: GlanceHost, until: float) -> int:
    """How many requests were answered meanwhile."""
    answered = 0
    while time.monotonic() < until:
        try:
            answered += host.client().request("GET", "/v2/images").ok
        except requests.RequestException:
            pass
        time.sleep(0.05)
    return answered


def beats(host: GlanceHost, until: float) -> tuple[int, float]:
    """How many heartbeats came until then, and the longest time in seconds without one."""
    seen, last, longest = set(), time.monotonic(), 0.0
    while time.monotonic() < until:
        (row,) = host.site.ledger_rows("SELECT heartbeat FROM replica_hosts WHERE name = :name", name=host.name)
        if row["heartbeat"] not in seen:
            seen.add(row["heartbeat"])
            last = time.monotonic()
        longest = max(longest, time.monotonic() - last)
        time.sleep(0.1)
    return len(seen), longest


def test_workers_that_are_retired_lose_nothing(host: GlanceHost, faulty: FaultyServer) -> None:
    """A copy, fills that are followed and hits: whole and right, or visibly cut; the files come to their ends."""
    (here, hit), (followed, fill), (copied, copy) = (new_image(host, size) for size in (SIZE, SIZE, 2 * SIZE))
    host.client().download(here)
    assert eventually((host.cache_dir / here).exists, 20)
    host.site.move_to(faulty, followed, rate=RATE)
    host.site.move_to(faulty, copied, rate=RATE)
    (host.cache_dir / "queue" / copied).touch()
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(7) as pool:
        bodies = [pool.submit(downloads, host, here, hit, until, pause) for pause in (0.0, 0.1, 0.1)]
        bodies += [pool.submit(downloads, host, followed, fill, until, 0.0) for _ in range(2)]
        answered = pool.submit(lists, host, until)
        heard = pool.submit(beats, host, until)
        whole, cut = (sum(one.result()[which] for one in bodies) for which in (0, 1))
    assert answered.result()
    count, longest = heard.result()
    assert count > 3
    assert longest < SILENT_SECONDS, "others take it for dead"
    assert host.log().count("Respawned uWSGI worker") >= 3, f"{whole} whole, {cut} cut"
    for image_id, data in ((here, hit), (followed, fill), (copied, copy)):
        assert eventually((host.cache_dir / image_id).exists, 40), image_id
        assert (host.cache_dir / image_id).read_bytes() == data
    asked = [one.range or "bytes=0-" for one in faulty.requests(f"/{copied}") if one.method == "GET"]
    offsets = [int(one.removeprefix("bytes=").rstrip("-")) for one in asked]
    assert offsets == sorted(offsets), "what is on disk is never asked for again"
    assert len(offsets) > 1, "the copy met no end of a worker"
    sent = sum(one.sent for one in faulty.requests(f"/{copied}") if one.method == "GET")
    assert sent <= 1.2 * len(copy) + len(offsets) * IN_FLIGHT, "the store sent more than a fifth twice"
    assert eventually(lambda: not any(host.partial_dir.iterdir()))


def test_check_names_these_options(host: GlanceHost, programs: Programs) -> None:
    """`replica check` warns of each option that this host was started with; of none when it is started without."""
    out = programs.run("--config-file", host.config_file, "check").out
    for name, value in ENDINGS.items():
        assert f"warning: uWSGI runs this host with {name} = {value}\n" in out
    host.stop()
    usual = host.command()[: -2 * len(ENDINGS | BESIDE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "command", lambda: usual)
        host.start()
        assert "uWSGI runs this host" not in programs.run("--config-file", host.config_file, "check").out
