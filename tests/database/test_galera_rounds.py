"""Random rounds on a Galera cluster, a few of what `make galera-rounds` plays, and what the written rows are for."""

from contextlib import closing
from pathlib import Path

import pytest
from galera_rounds import RIVALS, STRATEGIES, Rounds
from services.databases.galera import Galera
from support.worlds.galera import World

MOST = 300  # rounds; without the rows the first that is wrong comes within about thirty


def test_rounds(galera: Galera, tmp_path: Path) -> None:
    """A node is killed, one is cut off: no last copy is lost, no claim held twice, nothing wrongly reported."""
    with closing(World(tmp_path, galera, RIVALS)) as world:
        rounds = Rounds(world, seed=12, disasters_percent=0)
        rounds.run(25, ["", "kill", "cut"])
    assert rounds.violations == []
    assert {name for name in rounds.counts if name.endswith(" done")} >= {"prune done", "evict done", "claim done"}


@pytest.mark.parametrize(
    ("without", "loss"),
    [
        ("guard", "each found themselves the first to fetch the image"),
        ("kept", "no intact durable copy is left"),
        ("both", "no intact durable copy is left"),
    ],
)
def test_without_the_written_rows_they_fail(galera: Galera, tmp_path: Path, without: str, loss: str) -> None:
    """The same rounds, by hosts whose decisions do not write the row of an image, or those that they count on."""
    with closing(World(tmp_path, galera, STRATEGIES[without])) as world:
        rounds = Rounds(world, seed=12, disasters_percent=0)
        played = 0
        while not any(loss in one for one in rounds.violations) and played < MOST:
            rounds.run(5)
            played += 5
    assert any(loss in one for one in rounds.violations)
