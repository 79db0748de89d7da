"""What a worker's memory grows by: for each fill, for each follower, for each reader that does not read.

One process of 64 threads, each of which has served before (its stack and its database connection are there). Anonymous
pages of the worker, the peak against what was there before; a new worker for every number.
"""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from clients import Ask, fetch
from report import Row, at_most, main
from stage import MIB, GlanceHost, Origin, Stage, download, forget, note

BENCH = "memory"
FILLS, FOLLOWERS = 8, 48
NAMES = {"stock": "Glance", "replicas": "Glance, replicas"}


def run(scale: float = 1.0) -> list[Row]:
    """MiB each."""
    size = int(256 * scale) * MIB
    rows = []
    with Stage() as stage:
        fast, slow = stage.origin(size), stage.origin(size, 128 * MIB)
        for number, (name, shown) in enumerate(NAMES.items(), 2):
            (host,) = stage.hosts(name, processes=1, threads=64, number=number)
            values = {}
            for what, measure in MEASURES.items():
                with note(f"memory: {name}: {what}"):
                    values[what] = measure(stage, _fresh(stage, host), fast, slow, size)
            host.stop()
            rows.append(Row(BENCH, shown, dict(values)))
    rows[-1].goals = [at_most(f"memory: {what}", values[what], 32 if "fill" in what else 1) for what in MEASURES]
    return rows


def _fresh(stage: Stage, host: GlanceHost) -> GlanceHost:
    host.restart()
    for _ in range(3):
        image_id = stage.image(host, 64 * 1024)
        fetch([download(host, image_id)] * host.threads)
        forget(host, image_id)
    return host


def _one_fill(stage: Stage, host: GlanceHost, fast: Origin, slow: Origin, size: int) -> float:
    return _growth(host, lambda: _read(stage, host, fast, size, 1))


def _fills(stage: Stage, host: GlanceHost, fast: Origin, slow: Origin, size: int) -> float:
    def many() -> None:
        ids = [stage.image(host, size, fast) for _ in range(FILLS)]
        fetch([download(host, image_id) for image_id in ids])
        for image_id in ids:
            forget(host, image_id)

    return _growth(host, many) / FILLS


def _followers(stage: Stage, host: GlanceHost, fast: Origin, slow: Origin, size: int) -> float:
    """What a fill with many readers takes beyond what one with a single reader left."""
    _growth(host, lambda: _read(stage, host, slow, size, 1))
    return (_growth(host, lambda: _read(stage, host, slow, size, FOLLOWERS + 1))) / FOLLOWERS


def _idle(stage: Stage, host: GlanceHost, fast: Origin, slow: Origin, size: int) -> float:
    """Clients of a complete image that take its first bytes and then nothing."""
    image_id = stage.image(host, size)
    fetch([download(host, image_id)])
    held: list[socket.socket] = []

    def hold() -> None:
        held.extend(_begun(download(host, image_id)) for _ in range(FOLLOWERS))
        threading.Event().wait(1)

    grown = _growth(host, hold) / FOLLOWERS
    for one in held:
        one.close()
    forget(host, image_id)
    return grown


def _begun(ask: Ask) -> socket.socket:
    parts = urlsplit(ask.url)
    made = socket.create_connection((parts.hostname or "", parts.port or 80))
    lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{k}: {v}" for k, v in ask.headers.items())]
    made.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    made.recv(4096)
    return made


def _read(stage: Stage, host: GlanceHost, origin: Origin, size: int, clients: int) -> None:
    image_id = stage.image(host, size, origin)
    fetch([download(host, image_id)] * clients)
    forget(host, image_id)


def _growth(host: GlanceHost, action: Callable[[], object]) -> float:
    (pid,) = host.pids()
    with _Peak(pid) as peak:
        action()
    return (peak.most - peak.before) / MIB


class _Peak:
    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.before = self.most = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _now(self) -> int:
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.most = max(self.most, self._now())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()


MEASURES = {
    "a fill, MiB": _one_fill,
    "each of 8 fills, MiB": _fills,
    "each follower, MiB": _followers,
    "each idle reader, MiB": _idle,
}

if __name__ == "__main__":
    main(__doc__, run)
