"""Downloads of a cached image of 256 MiB: one stream and sixteen, ranges, time to first byte, processor time.

nginx (two workers, sendfile) serves the same bytes without any Glance: it is what the machine can do. Ours is measured
as it comes and with `sendfile = uwsgi`, to which the goals belong.
"""

import random
from collections.abc import Callable, Sequence

from clients import Ask, fetch
from report import Row, at_least, at_most, main
from stage import MIB, Process, Stage, cpu_seconds, download, nginx_files, note, p50

ROUNDS, MANY, TTFB_ROUNDS = 7, 31, 40  # one stream takes a blink, and is at the mercy of where the kernel puts it
STREAMS, SPAN = 16, 16 * MIB
BENCH = "hit"
NAMES = {
    "stock-cache-2": "Glance, its cache",
    "replicas-3": "Glance, replicas",
    "replicas-4": "Glance, replicas, sendfile",
    "nginx": "nginx, sendfile",
}
STOCK, OURS = "stock-cache-2", "replicas-4"
Asker = Callable[[str, str], Ask]


def run(scale: float = 1.0) -> list[Row]:
    """The systems take turns in every round; medians, the first round dropped."""
    size, small = int(256 * scale) * MIB, 4 * MIB
    with Stage() as stage:
        systems: dict[str, tuple[Process, Asker]] = {}
        hosts = [*stage.hosts("stock-cache", "replicas"), *stage.hosts("replicas", number=4, sendfile="uwsgi")]
        for host in hosts:
            ids = {name: stage.image(host, length) for name, length in (("large", size), ("small", small))}
            for image_id in ids.values():
                fetch([download(host, image_id)])
            systems[host.name] = (
                host.process,
                lambda name, span, host=host, ids=ids: download(host, ids[name], **_range(span)),
            )
        server = nginx_files(stage, stage.folder)
        files = {"large": stage.data(size).name, "small": stage.data(small).name}
        systems["nginx"] = (server.process, lambda name, span: Ask(f"{server.url}/{files[name]}", _range(span)))
        return _measured(systems, size)


def _range(span: str) -> dict[str, str]:
    return {"Range": span} if span else {}


def _measured(systems: dict[str, tuple[Process, Asker]], size: int) -> list[Row]:
    spans = [f"bytes={at}-{at + min(SPAN, size // 2) - 1}" for at in _offsets(size)]
    plans: list[tuple[str, int, Callable[[Asker], Sequence[Ask]]]] = [
        ("1 stream", MANY, lambda ask: [ask("large", "")]),
        (f"{STREAMS} streams", ROUNDS, lambda ask: [ask("large", "")] * STREAMS),
        (f"{STREAMS} ranges", MANY, lambda ask: [ask("large", span) for span in spans]),
    ]
    values: dict[str, dict[str, float]] = {name: {} for name in systems}
    ratios: dict[str, float] = {}
    for what, rounds, plan in plans:
        with note(f"hit: {what}"):
            rates: dict[str, list[float]] = {name: [] for name in systems}
            cpu: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(rounds + 1):
                for name, (process, ask) in systems.items():
                    before = cpu_seconds(process)
                    got = fetch(plan(ask))
                    total = sum(one.size for one in got)
                    rates[name].append(total / MIB / max(one.last for one in got))
                    cpu[name].append((cpu_seconds(process) - before) / (total / (1 << 30)))
            for name in systems:
                values[name][f"{what} MiB/s"] = p50(rates[name][1:])
                values[name][f"CPU s/GiB, {what}"] = sum(cpu[name][1:]) / rounds
            pairs = zip(rates[OURS][1:], rates["nginx"][1:], strict=True)
            ratios[what] = p50([ours / theirs for ours, theirs in pairs])
    with note("hit: first bytes"):
        firsts: dict[str, list[float]] = {name: [] for name in systems}
        for _ in range(TTFB_ROUNDS):
            for name, (_process, ask) in systems.items():
                firsts[name].append(fetch([ask("small", "")])[0].first)
    for name in systems:
        values[name]["first byte ms"] = 1000 * p50(firsts[name][5:])
    rows = [Row(BENCH, NAMES[name], dict(values[name])) for name in systems]
    ours, stock = values[OURS], values[STOCK]
    rows[list(systems).index(OURS)].goals = [
        *(at_least(f"hit, {what}: part of nginx", ratio, 0.9) for what, ratio in ratios.items()),
        *(
            at_most(f"hit, {what}: CPU per GiB / stock cache's", ours[key] / stock[key], 1.0)
            for what, key in ((what, f"CPU s/GiB, {what}") for what, *_ in plans[:2])
        ),
        at_most("hit: first byte - stock cache's, ms", ours["first byte ms"] - stock["first byte ms"], 0),
    ]
    return rows


def _offsets(size: int) -> list[int]:
    source = random.Random(1)
    return [source.randrange(size // 2) for _ in range(STREAMS)]


if __name__ == "__main__":
    main(__doc__, run)
