"""`replica pin`: pins as an operator gives and lifts them."""

from support.programs import Desk

from glance_replicas.model import Host

pytest_plugins = ["support.desk"]

NOBODY = "00000000-0000-4000-8000-00000000dead"


def rows(desk: Desk, *words: object) -> list[tuple[str, str]]:
    done = desk.run("pin", "list", *words, "-f", "json")
    assert done.status == 0, done.err
    return [(one["Image"], one["Host"]) for one in done.rows]


def test_pins_by_order(desk: Desk) -> None:
    """Added on one host or on all, listed by image and host, removed from one host or from all."""
    for name in ("pin-a", "pin-b"):
        desk.ledger.heartbeat(Host(name, None, f"http://{name}"))
    first, second = sorted(desk.image() for _ in range(2))
    known = [host.name for host in desk.ledger.hosts()]
    assert desk.run("pin", "add", first, second, "--host", "pin-a").out == "2 images pinned on 1 host\n"
    assert desk.run("pin", "add", first, "--all").status == 0
    assert rows(desk, "--host", "pin-a") == [(first, "pin-a"), (second, "pin-a")]
    assert rows(desk, first) == [(first, name) for name in known]
    who = desk.run("pin", "list", first, "-c", "Who", "-f", "value").out
    assert "@" in who
    assert desk.run("pin", "remove", first, second, "--host", "pin-a").out == "2 pins removed\n"
    assert desk.run("pin", "remove", first, "--all").out.endswith("removed\n")
    assert rows(desk, first, second) == []


def test_what_cannot_be_pinned(desk: Desk) -> None:
    """An unknown host is the user's error, an unknown image is said and makes the status 3; a place must be named."""
    image = desk.image()
    desk.ledger.heartbeat(Host("pin-a", None, "http://pin-a"))
    done = desk.run("pin", "add", image, "--host", "nowhere")
    assert (done.status, "knows no host nowhere" in done.err) == (2, True)
    done = desk.run("pin", "add", NOBODY, image, "--host", "pin-a")
    assert (done.status, f"image {NOBODY}: there is no such image" in done.err) == (3, True)
    assert rows(desk, NOBODY, image) == [(image, "pin-a")]
    assert desk.run("pin", "add", image).status == 2
    assert desk.run("pin", "add", "cirros", "--all").status == 2
