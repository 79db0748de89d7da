"""No cache is never faster: one first download, back end at 100 MiB/s, ours and plain Glance in turns."""

from clients import Got, fetch
from report import Row, at_most, main
from stage import MIB, GlanceHost, Origin, Stage, download, forget, note, p50

RATE, ROUNDS, TTFB_ROUNDS = 100 * MIB, 7, 40
BENCH = "one first download"
NAMES = {"stock": "Glance", "replicas": "Glance, replicas"}


def run(scale: float = 1.0) -> list[Row]:
    """Medians; whole downloads of 256 MiB, first bytes of an image of 4 MiB."""
    with Stage() as stage:
        hosts = stage.hosts(*NAMES)
        with note("single: whole"):
            walls = _rounds(stage, hosts, int(256 * scale) * MIB, ROUNDS)
        with note("single: first bytes"):
            firsts = _rounds(stage, hosts, 4 * MIB, TTFB_ROUNDS)
    rows = []
    for name, shown in NAMES.items():
        values = {
            "wall s": p50([got.last for got in walls[name]]),
            "min": min(got.last for got in walls[name]),
            "max": max(got.last for got in walls[name]),
            "first byte ms": 1000 * p50([got.first for got in firsts[name]]),
            "rounds": ROUNDS,
        }
        rows.append(Row(BENCH, shown, values))
    pairs = list(zip(walls["replicas"], walls["stock"], strict=True))
    more = p50([1000 * (a.first - b.first) for a, b in zip(firsts["replicas"], firsts["stock"], strict=True)])
    rows[-1].goals = [
        at_most("one first download: ours / plain Glance", p50([a.last / b.last for a, b in pairs]), 1.02),
        at_most("one first download: first byte later by, ms", more, 5),
    ]
    return rows


def _rounds(stage: Stage, hosts: list[GlanceHost], size: int, rounds: int) -> dict[str, list[Got]]:
    origin: Origin = stage.origin(size, RATE)
    found: dict[str, list[Got]] = {name: [] for name in NAMES}
    for _ in range(rounds + 1):
        for host in hosts:
            image_id = stage.image(host, size, origin)
            found[host.pipeline] += fetch([download(host, image_id)])
            forget(host, image_id)
    return {name: got[1:] for name, got in found.items()}


if __name__ == "__main__":
    main(__doc__, run)
