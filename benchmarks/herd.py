"""A herd on one host: 16 first downloads of 256 MiB at once, two processes, a back end that gives 64 MiB/s in all.

All at once, and then (`joining later`) one after the other while the first is still being served: with all at once
Glance's own work for a request, times sixteen, is in every first byte.
nginx and Varnish stand directly before the back end: no Glance behind them, nobody is authorised, nothing verified.
"""

from collections.abc import Callable
from dataclasses import replace

from clients import Ask, Got, digest, fetch
from report import Row, Value, at_most, main
from stage import MIB, GlanceHost, Origin, Stage, download, forget, nginx_cache, note, p50, varnish

CLIENTS, RATE, ROUNDS = 16, 64 * MIB, 5
FIRST, JOINED = "first byte p50 ms", "joining later ms"


def run(scale: float = 1.0) -> list[Row]:
    """One row for each system."""
    size = int(256 * scale) * MIB
    with Stage() as stage:
        origin = stage.origin(size, RATE)
        names = ("replicas", "stock", "stock-cache")
        hosts = dict(zip(names, stage.hosts(*names), strict=True))
        single = p50([fetch([origin.ask("alone")])[0].last for _ in range(3)])
        rows = [Row("herd, one host", "one client, no cache", {"wall s": single, "ratio": 1.0})]
        for name in ("stock", "stock-cache"):  # sixteen times the bytes: one round is long enough
            host = hosts[name]
            with note(f"herd: {name}"):
                rows.append(_row(_NAMES[name], _glance(stage, host, origin, size), 1, origin, size, single))
        rows += _caches(stage, hosts["replicas"], origin, size, single)
    return rows


_NAMES = {"stock": "Glance", "stock-cache": "Glance, its cache", "replicas": "Glance, replicas"}


def _caches(stage: Stage, host: GlanceHost, origin: Origin, size: int, single: float) -> list[Row]:
    rows = []
    for name, peer in (("nginx, cache lock", nginx_cache(stage, origin)), ("Varnish", varnish(stage, origin))):
        if peer is not None:
            fetch([peer.ask("warm")])
            with note(f"herd: {name}"):
                numbers = iter(range(1000))
                ask = lambda peer=peer, name=name, numbers=numbers: _named(f"{name[0]}{next(numbers)}", peer.ask)  # noqa: E731
                rows.append(_row(name, ask, ROUNDS, origin, size, single))
    with note("herd: replicas"):
        ours = _row(_NAMES["replicas"], _glance(stage, host, origin, size), ROUNDS, origin, size, single)
    values = {name: float(value or 0) for name, value in ours.values.items() if not isinstance(value, str)}
    ours.goals = [
        at_most("herd, one host: back-end reads", values["reads"], 1),
        at_most("herd, one host: back-end bytes, ratio", values["bytes x"], 1.0),
        at_most("herd, one host: first byte p50, ms", values[FIRST], 25),
        at_most("herd, one host: first byte p50 of those who join later, ms", values[JOINED], 25),
        at_most("herd, one host: last client / single fetch", values["ratio"], 1.05),
    ]
    return [*rows, ours]


def _named(name: str, ask: Callable[[str], Ask]) -> tuple[str, Ask, Callable[[], None]]:
    return name, ask(name), lambda: None


def _glance(
    stage: Stage, host: GlanceHost, origin: Origin, size: int
) -> Callable[[], tuple[str, Ask, Callable[[], None]]]:
    def new() -> tuple[str, Ask, Callable[[], None]]:
        image_id = stage.image(host, size, origin)
        return image_id, download(host, image_id), lambda: forget(host, image_id)

    return new


def _row(  # noqa: PLR0917
    name: str,
    new: Callable[[], tuple[str, Ask, Callable[[], None]]],
    rounds: int,
    origin: Origin,
    size: int,
    single: float,
) -> Row:
    """Medians over the rounds; the worst of all rounds for `max`, reads and bytes."""
    all_: list[list[Got]] = []
    counts = []
    for _ in range(rounds):
        target, ask, forgotten = new()
        all_.append(fetch([ask] * CLIENTS))
        if any(got.size != size for got in all_[-1]):
            raise RuntimeError(f"{name}: {[got.size for got in all_[-1]]}")
        counts.append(origin.counts(target))
        if rounds > 1 and len(all_) == 1 and digest(ask) != digest(origin.ask(target)):
            raise RuntimeError(f"{name}: wrong bytes")
        forgotten()
    joined: list[float] = []
    for _ in range(rounds if rounds > 1 else 0):
        _, ask, forgotten = new()
        spread = 0.8 * single / CLIENTS
        joined += [got.first for got in fetch([replace(ask, after=spread * i) for i in range(CLIENTS)])[1:]]
        forgotten()
    wall = p50([max(got.last for got in one) for one in all_])
    values: dict[str, Value] = {
        "reads": max(reads for reads, _ in counts),
        "bytes x": round(max(sent for _, sent in counts) / size, 3),
        FIRST: 1000 * p50([p50([got.first for got in one]) for one in all_]),
        "max ms": 1000 * max(got.first for one in all_ for got in one),
        JOINED: 1000 * p50(joined) if joined else None,
        "wall s": wall,
        "ratio": round(wall / single, 3),
        "rounds": rounds,
    }
    return Row("herd, one host", name, values)


if __name__ == "__main__":
    main(__doc__, run)
