"""A herd on four hosts: 8 first downloads of 256 MiB on each at once, one process each, a back end of 64 MiB/s in all.

Hosts read from each other at 64 MiB/s a connection (nginx in between). Four Varnish know nothing of each other.
"""

import time

from clients import Got, fetch
from report import Row, at_most, main
from stage import MIB, Stage, download, forget, note, p50, varnish

HOSTS, CLIENTS, RATE, ROUNDS = 4, 8, 64 * MIB, 5
BENCH = "herd, four hosts"


def run(scale: float = 1.0) -> list[Row]:
    """Ours, and independent caches."""
    size = int(256 * scale) * MIB
    with Stage() as stage:
        origin = stage.origin(size, RATE)
        hosts = stage.hosts(*["replicas"] * HOSTS, processes=1, link_rate=RATE)
        stage.site.wait_known()
        time.sleep(6)  # a host reads the list of hosts every five seconds
        single = p50([fetch([origin.ask("alone")])[0].last for _ in range(3)])
        rows = [Row(BENCH, "one client, no cache", {"wall s": single, "ratio": 1.0})]
        peers = [peer for peer in (varnish(stage, origin) for _ in range(HOSTS)) if peer]
        if peers:
            with note("cluster: Varnish"):
                all_ = [fetch([peer.ask("v") for peer in peers] * CLIENTS)]
                rows.append(_row("four Varnish", all_, [origin.counts("v")], size, single))
        all_, counts = [], []
        with note("cluster: replicas"):
            for _ in range(ROUNDS):
                image_id = stage.image(hosts[0], size, origin)
                all_.append(fetch([download(host, image_id) for host in hosts] * CLIENTS))
                counts.append(origin.counts(image_id))
                for host in hosts:
                    forget(host, image_id)
        ours = _row("Glance, replicas", all_, counts, size, single)
        ours.goals = [
            at_most("herd, four hosts: back-end bytes, ratio", _number(ours, "bytes x"), 1.0),
            at_most("herd, four hosts: last client / single fetch", _number(ours, "ratio"), 1.3),
        ]
        return [*rows, ours]


def _row(name: str, all_: list[list[Got]], counts: list[tuple[int, int]], size: int, single: float) -> Row:
    wall = p50([max(got.last for got in one) for one in all_])
    values = {
        "reads": max(reads for reads, _ in counts),
        "bytes x": round(max(sent for _, sent in counts) / size, 3),
        "first byte p50 ms": 1000 * p50([p50([got.first for got in one]) for one in all_]),
        "max ms": 1000 * max(got.first for one in all_ for got in one),
        "wall s": wall,
        "ratio": round(wall / single, 3),
        "rounds": len(all_),
    }
    return Row(BENCH, name, values)


def _number(row: Row, name: str) -> float:
    return float(row.values[name] or 0)


if __name__ == "__main__":
    main(__doc__, run)
