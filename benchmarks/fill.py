"""A first download of 1 GiB from a fast back end, verified on the way, against the rate of sha512 itself.

Back ends: a file store on the same disk, and an HTTP server without a limit. The hash, Glance, its cache and ours take
turns. Ours is measured as it comes and with `sendfile = uwsgi`, to which the goals belong.
"""

import hashlib
import time
from collections.abc import Mapping

from clients import fetch
from report import Row, at_least, main
from stage import MIB, GlanceHost, Origin, Stage, download, forget, note, p50, wait_for

ROUNDS = 6
BENCH = "verified fill"
SHA512 = "sha512 of this Python, one core"


def run(scale: float = 1.0) -> list[Row]:
    """MiB/s: medians over the rounds, the first round dropped."""
    size = int(1024 * scale) * MIB
    with Stage() as stage:
        made = [*stage.hosts("stock", "stock-cache", "replicas"), *stage.hosts("replicas", number=5, sendfile="uwsgi")]
        hosts = dict(zip(_NAMES, made, strict=True))
        rates: dict[tuple[str, str], list[float]] = {}
        for kind, origin in (("file", None), ("http", stage.origin(size))):
            with note(f"fill: {kind}"):
                for _ in range(ROUNDS + 1):
                    rates.setdefault((kind, SHA512), []).append(_hash_rate(size))
                    for name, host in hosts.items():
                        rates.setdefault((kind, name), []).append(_fill_rate(stage, host, origin, size))
        return [row for kind in ("file", "http") for row in _rows(kind, rates)]


_NAMES = {
    "stock": "Glance, no cache",
    "stock-cache": "Glance, its cache",
    "replicas": "Glance, replicas",
    "sendfile": "Glance, replicas, sendfile",
}


def _rows(kind: str, rates: Mapping[tuple[str, str], list[float]]) -> list[Row]:
    def of(name: str) -> list[float]:
        return rates[kind, name][1:]

    def ratio(name: str, other: str) -> float:
        return p50([mine / theirs for mine, theirs in zip(of(name), of(other), strict=True)])

    rows = []
    for name in (SHA512, *_NAMES):
        values = {
            "MiB/s": p50(of(name)),
            "min": min(of(name)),
            "max": max(of(name)),
            "of sha512": ratio(name, SHA512),
            "of the stock cache": ratio(name, "stock-cache"),
        }
        rows.append(Row(f"{BENCH}, {kind}", _NAMES.get(name, name), values))
    rows[-1].goals = [
        at_least(f"fill, {kind}: part of the sha512 rate", ratio("sendfile", SHA512), 0.75),
        at_least(f"fill, {kind}: times the stock cache", ratio("sendfile", "stock-cache"), 2),
    ]
    return rows


def _hash_rate(size: int) -> float:
    block, running = bytes(MIB), hashlib.sha512()
    began = time.perf_counter()
    for _ in range(size // MIB):
        running.update(block)
    return size / MIB / (time.perf_counter() - began)


def _fill_rate(stage: Stage, host: GlanceHost, origin: Origin | None, size: int) -> float:
    image_id = stage.image(host, size, origin)
    stage.warm_memory(size)
    (got,) = fetch([download(host, image_id)])
    if got.size != size:
        raise RuntimeError(f"{host.name}: {got}")
    if host.pipeline != "stock":  # ours ends with fsync, beside the client: that is not the next one's to bear
        wait_for((host.cache_dir / image_id).exists)
    forget(host, image_id)
    return size / MIB / got.last


if __name__ == "__main__":
    main(__doc__, run)
