"""Image ids with capitals: Glance keeps the spelling of its user, and so does everything of ours."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from services import eventually
from services.databases.schema import add_image
from services.databases.servers import MariaDB
from services.glance.site import GlanceHost, GlanceSite
from support.programs import Desk
from support.worlds.scenes import new_bytes

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.errors import Refused
from glance_replicas.ledger.ledger import place_key
from glance_replicas.model import Host, Location, is_image_id

pytest_plugins = ["support.desk"]

CAPITALS = "ABCDEF01-2345-4678-9ABC-DEF012345678"
SMALL = CAPITALS.lower()
HOST = Host("api1", None, "http://127.0.0.9:1")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (CAPITALS, True),
        (SMALL, True),
        ("aBcDeF01-2345-4678-9abc-def012345678", True),
        (f"{SMALL}\n", False),
        (f"{{{SMALL}}}", False),
        (SMALL.replace("-", ""), False),
        (f"urn:uuid:{SMALL}", False),
        (SMALL.replace("0", "\u0660"), False),
        ("", False),
    ],
)
def test_what_is_an_image_id(text: str, right: bool) -> None:
    """What Glance's schema takes, and nothing that a more tolerant parser would."""
    assert is_image_id(text) is right


def test_an_id_is_the_image_of_that_spelling_alone(glance_database_url: str) -> None:
    """On a database without case, too, nothing is read, locked or registered under another spelling."""
    add_image(glance_database_url, SMALL, b"small")
    with closing(Catalogue(glance_database_url)) as catalogue:
        catalogue.add(SMALL, "file:///store/small", {})
        assert catalogue.image(CAPITALS) is None
        assert list(catalogue.images([CAPITALS])) == []
        assert catalogue.statuses([CAPITALS]) == {}
        with pytest.raises(Refused):
            catalogue.add(CAPITALS, "file:///store/large", {})
        with pytest.raises(Refused):
            catalogue.decide(CAPITALS, lambda held: held.image)
        assert catalogue.respelled([CAPITALS, SMALL]) == {CAPITALS: [SMALL]}
        assert catalogue.respelled([SMALL]) == {}


def test_two_ids_that_differ_in_case_share_nothing(glance_database_url: str) -> None:
    """Where the database knows both, each has its own rows and place; an id in a third spelling means neither."""
    if "mysql" in glance_database_url:
        pytest.skip("MariaDB holds both for one, and takes the first only")
    third = SMALL[:1].upper() + SMALL[1:]
    with closing(Catalogue(glance_database_url)) as catalogue:
        for one in (SMALL, CAPITALS):
            add_image(glance_database_url, one, one.encode())
            catalogue.add(one, f"http://h:1/replicas/{one}", {"replica_host": "h"})
        found = {image.id: image.locations for image in catalogue.images([SMALL, CAPITALS])}
        assert [one.url for one in found[CAPITALS]] == [f"http://h:1/replicas/{CAPITALS}"]
        assert len({place_key(one) for locations in found.values() for one in locations}) == 2
        assert {one: sorted(ids) for one, ids in catalogue.respelled([third]).items()} == {third: [CAPITALS, SMALL]}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """One host with our pipeline, on SQLite."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as site:
        yield site.add_host("127.0.0.2", processes=1)


def twice(host: GlanceHost, image_id: str) -> requests.Response:
    """The second download, after the first one's copy was registered."""
    assert host.client().download(image_id).ok
    assert eventually(lambda: any("replicas" in one["url"] for one in host.site.locations(image_id)))
    return host.client().download(image_id)


def test_images_with_capitals_are_kept_as_any_other(host: GlanceHost) -> None:
    """A hit, a registration and a signed URL of its own for each of two ids that differ in case only."""
    data = {one: new_bytes(50_000) for one in (CAPITALS, SMALL)}
    for one, content in data.items():
        host.client().create(data=content, id=one)
        answer = twice(host, one)
        assert "; hit" in answer.headers["Cache-Status"]
        assert answer.content == content
    for one, content in data.items():
        assert host.cache_dir.joinpath(one).read_bytes() == content
        (url,) = (row["url"] for row in host.client().replicas(one)["replicas"] if row["host"] == host.name)
        assert requests.get(url, timeout=10).content == content
        assert requests.get(url.replace(f"replicas/{one}", f"replicas/{one.swapcase()}"), timeout=10).status_code == 403


def test_on_mariadb_a_path_in_the_other_case_means_glances_spelling(tmp_path: Path, mariadb: MariaDB) -> None:
    """Glance answers for both spellings there; file, row and document have the one of the image."""
    with GlanceSite(tmp_path / "site", mariadb.create_glance("spelled")) as site:
        host, content = site.add_host("127.0.0.2", processes=1), new_bytes(50_000)
        host.client().create(data=content, id=SMALL)
        assert host.client().download(CAPITALS).content == content
        answer = twice(host, SMALL)
        assert "; hit" in answer.headers["Cache-Status"]
        assert "; hit" in host.client().download(CAPITALS).headers["Cache-Status"]
        assert [path.name for path in host.cache_dir.iterdir() if is_image_id(path.name)] == [SMALL]
        assert {row["url"] for row in site.locations(SMALL)} == {
            f"{host.url}/replicas/{SMALL}",
            f"file://{site.store_file(SMALL)}",
        }
        assert host.client().replicas(CAPITALS)["image_id"] == SMALL


@pytest.fixture(scope="module")
def odd(desk: Desk) -> str:
    """An image with capitals in its id, with a damaged copy beside the intact one."""
    image = desk.image(b"the bytes of an image", "odd", id="FEDCBA01-2345-4678-9ABC-DEF012345678")
    desk.add_file(image, b"the bytes of an imagE")
    return image


@pytest.mark.parametrize("words", ["list {}", "verify {}", "repair {}", "prune {}", "copy {} --to api1"])
def test_tools_take_the_id_that_glance_shows(desk: Desk, odd: str, words: str) -> None:
    """As it is, and typed in small letters all the same; what they print is the image's own spelling."""
    desk.ledger.heartbeat(HOST)
    for typed in (odd, odd.lower()):
        done = desk.run(*words.format(typed).split())
        assert odd in done.out, done.err
        assert "no such image" not in done.err
        assert done.status in (0, 1)


def test_pins_are_kept_under_the_id_that_glance_shows(desk: Desk, odd: str) -> None:
    """Set and listed by one spelling, lifted by the other."""
    desk.ledger.heartbeat(HOST)
    assert desk.run("pin", "add", odd.lower(), "--host", "api1").status == 0
    assert [row["Image"] for row in desk.run("pin", "list", odd, "-f", "json").rows] == [odd]
    assert desk.run("pin", "remove", odd.lower(), "--host", "api1").out == "1 pin removed\n"


def test_the_next_command_of_such_an_image_works(desk: Desk) -> None:
    """`verify --all` names the image as Glance does, and what it says to run next repairs it."""
    image = desk.image(b"more bytes of an image", id="ABBACD01-2345-4678-9ABC-DEF012345678")
    desk.add_file(image, b"more bytes of an imagE")
    (line,) = (one for one in desk.run("verify", "--all").out.splitlines() if f"replica repair {image};" in one)
    assert desk.run(*line.split("replica ")[1].split(";")[0].split(), "--yes").status == 0
    assert desk.run("verify", image).status == 0


def test_an_unknown_id_is_named_as_it_was_typed(desk: Desk) -> None:
    """What no image has, in any spelling, is status 3 and shown as typed."""
    typed = "00000000-0000-4000-8000-00000000DEAD"
    done = desk.run("verify", typed)
    assert done.status == 3
    assert f"image {typed}: there is no such image" in done.err


def test_two_images_that_differ_in_case_are_told_apart(desk: Desk) -> None:
    """A third spelling is no order about either of them: both are named, status 2."""
    first = desk.image(b"one", id="CCCCCC01-2345-4678-9ABC-DEF012345678")
    second = desk.image(b"two", id=first.lower())
    done = desk.run("verify", first.replace("CCC", "ccc", 1))
    assert done.status == 2
    assert first in done.err
    assert second in done.err
    assert [row["Image"] for row in desk.run("list", first, "-f", "json").rows] == [first]


def test_locations_of_such_an_image_are_of_that_image() -> None:
    """The place of a copy keeps the case of its path."""
    urls = [f"http://h/replicas/{one}" for one in (CAPITALS, SMALL)]
    assert len({place_key(Location("x", url)) for url in urls}) == 2
