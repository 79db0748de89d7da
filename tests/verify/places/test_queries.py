"""Locations that differ in the query only, on a real nginx: two places, whichever was made first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from services.web.nginx import Nginx
from support.programs import Desk

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000
REWRITE = "location = /get { rewrite ^ /$arg_f? last; }"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Two files behind one path."""
    root = tmp_path_factory.mktemp("www")
    root.joinpath("good").write_bytes(DATA)
    root.joinpath("bad").write_bytes(DATA[:-1] + b"!")
    root.joinpath("same").write_bytes(DATA)
    with Nginx(Path(tmp_path_factory.mktemp("nginx")), root, more=REWRITE) as made:
        yield made


SIGNATURE = "&X-Amz-Date=1&X-Amz-Signature={}"


@pytest.mark.parametrize("signature", ["", SIGNATURE], ids=["plain", "presigned"])
@pytest.mark.parametrize("order", [("good", "bad"), ("bad", "good")], ids=["good first", "bad first"])
def test_one_is_damaged_and_the_other_is_not(desk: Desk, server: Nginx, order: tuple[str, str], signature: str) -> None:
    """Each has a verdict of its own, told apart in tables; none is lost or a duplicate, and the bad one alone goes."""
    image = desk.image(DATA)
    urls = {name: f"{server.url}/get?f={name}{signature.format(name)}" for name in order}
    desk.site.set_location(image, urls[order[0]], {"store": "web"})
    desk.site.add_location(image, urls[order[1]], {"store": "web"})
    done = desk.run("verify", image, "-f", "json")
    verified = {row["URL"]: row["Verdict"] for row in done.rows}
    assert (done.status, sorted(verified.values())) == (1, ["corrupt", "intact"])
    listed = {row["URL"]: row["Verdict"] for row in desk.run("list", image, "-f", "json").rows}
    assert listed == verified
    plan = desk.run("repair", image, "-f", "json").rows
    assert [(row["Action"], row["Before"]) for row in plan] == [("cannot", "corrupt")]
    assert "nothing to prune" in desk.run("prune", image, "--duplicates").out
    done = desk.run("prune", image, "--state", "corrupt", "--yes")
    assert (done.status, desk.urls(image)) == (0, [urls["good"]]), done.out


def test_a_query_that_may_mean_nothing_makes_no_second_copy(desk: Desk, server: Nginx) -> None:
    """A server may ignore it: as copies that stay, locations of one path count once."""
    image = desk.image(DATA)
    path = desk.add_file(image, b"damaged")
    for query in ("?f=good", "?f=same"):
        desk.site.add_location(image, f"{server.url}/get{query}", {"store": "web"})
    done = desk.run("prune", image, "--min-durable", "3")
    assert "2 other durable copies are proven intact, 3 must stay" in done.out
    assert desk.run("prune", image, "--min-durable", "2", "--yes").status == 0
    assert f"file://{path}" not in desk.urls(image)
