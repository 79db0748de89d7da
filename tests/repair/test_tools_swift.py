"""`replica repair` and `replica audit` of a Swift store, by the programs: a kill in the middle, and paged listings."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from services.web.proxy import FaultyProxy
from support.places.readers import dlo, plain, swift_url
from support.programs import Programs
from support.worlds.deep import CONTAINER, Deep, image_id
from support.worlds.scenes import settle

from glance_replicas import settings
from glance_replicas.errors import Unreachable
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.stores.body import Limits
from glance_replicas.stores.swift.listing import Listing

pytest_plugins = ["support.desk"]

MIB = 1 << 20


@pytest.fixture
def deep(tmp_path: Path, swift: Swift, programs: Programs) -> Iterator[Deep]:
    made = Deep(tmp_path / "site", swift, programs)
    yield made
    made.close()


def test_a_kill_in_the_middle(deep: Deep, faulty: FaultyServer) -> None:
    """kill -9 while Swift takes the bytes: the damaged object is as it was, and the next repair makes it good."""
    name, data = image_id(1), bytes(range(256)) * 12288
    deep.connection.put_object(CONTAINER, name, b"damaged")
    deep.image(name, data, swift_url(deep.swift, name, CONTAINER), faulty.put("/good", data, rate=4 * MIB))
    process = deep.start("repair", name, "--yes")
    settle(lambda: faulty.reads("/good") == 2, 60)  # the look, and then the bytes for Swift
    assert process.kill().status == -signal.SIGKILL
    assert deep.connection.get_object(CONTAINER, name)[1] == b"damaged"
    faulty.change("/good")
    done = deep.run("repair", name, "--yes", "-f", "json")
    (row,) = done.rows
    assert (done.status, row["Action"], row["Before"], row["After"]) == (0, "restored", "wrong_size", "intact")
    assert deep.connection.get_object(CONTAINER, name)[1] == data


def test_a_large_object(deep: Deep, faulty: FaultyServer) -> None:
    """A DLO that lost a segment is whole again, as `replica verify` says."""
    name, data = image_id(2), bytes(range(256)) * 4096
    dlo(deep.connection, name, data)
    deep.image(name, data, swift_url(deep.swift, name), faulty.put("/good", data))
    deep.connection.delete_object("segments", f"{name}-00003")
    assert deep.run("repair", name, "--yes").status == 0
    assert deep.run("verify", name).status == 0
    deep.connection.delete_object(deep.swift.container, name)


def audit(deep: Deep, *words: object, status: int) -> list[dict[str, Any]]:
    done = deep.run("audit", "--store", "fast", "--grace", "0s", *words, "-f", "json")
    assert done.status == status, done.err
    return list(done.rows)


def test_dark_and_lost(deep: Deep) -> None:
    """Objects of images that are there, and their segments, are no strays; others are, and go when seen by two audits.

    Segments that their object does not use stay as long as their image is active.
    """
    here, large, gone, lost = map(image_id, range(10, 14))
    for name in (here, large, f"{large}-00001", f"{large}.a-00001", gone, f"{gone}-00001", f"{here}.txt"):
        deep.connection.put_object(CONTAINER, name, b"bytes")
    deep.connection.put_object(CONTAINER, large, b"", headers={"X-Object-Manifest": f"{CONTAINER}/{large}-"})
    deep.image(here, b"bytes", swift_url(deep.swift, here, CONTAINER))
    deep.image(large, b"bytes", swift_url(deep.swift, large, CONTAINER))
    deep.image(lost, b"bytes", swift_url(deep.swift, lost, CONTAINER))
    deep.image(gone, b"bytes", status="deleted")
    remove = ("--remove-dark", "--yes", "--max-share", "60")
    first = audit(deep, *remove, status=1)
    found = {(row["Kind"], row["Name"].removeprefix(f"{CONTAINER}/"), row["Action"]) for row in first}
    assert found == {
        *(("dark", name, "keep") for name in (gone, f"{gone}-00001", f"{here}.txt", f"{large}.a-00001")),
        ("lost", lost, "keep"),
    }
    again = audit(deep, *remove, status=1)
    assert {row["Name"].partition("/")[2] for row in again if row["Action"] == "removed"} == {gone, f"{gone}-00001"}
    assert not deep.names() & {gone, f"{gone}-00001"}
    assert {here, large, f"{large}-00001", f"{here}.txt"} <= deep.names()
    ledger = Ledger(deep.site.ledger_url)
    lines = [(one.image_id, one.url) for one in ledger.withdrawals() if one.reason == "dark"]
    ledger.close()
    assert sorted(lines) == [(gone, f"swift+config://ref1/{CONTAINER}/{gone}{end}") for end in ("", "-00001")]


def test_no_listing_no_judgement(deep: Deep, faulty: FaultyServer) -> None:
    """Storage that is no Swift, and a key that Keystone refuses: nothing is judged, exit 3, nothing goes."""
    name = image_id(20)
    deep.connection.put_object(CONTAINER, name, b"bytes")
    deep.host.configure({"fast": {"swift_store_endpoint": f"{faulty.url}/v1/AUTH_test"}})
    done = deep.run("audit", "--store", "fast", "--grace", "0s", "--remove-dark", "--yes")
    assert done.status == 3
    assert "store:fast: nothing was judged" in done.out
    deep.host.configure({"fast": {"swift_store_endpoint": "", "swift_store_key": "wrong"}})
    assert deep.run("audit", "--store", "fast", "--grace", "0s").status == 3
    assert name in deep.names()


def test_pages(deep: Deep) -> None:
    """Everything is listed, page by page; when one of them does not come, that is an error and not an end."""
    names = [f"{number}/\u00e9 %&?" for number in range(7)]
    for name in names:
        deep.connection.put_object(CONTAINER, name, b"bytes")
    settings.load([str(deep.host.config_file)])
    listing = Listing(cfg.CONF, "fast", Limits(), page=3)
    assert [one.name for one in listing.entries()] == [f"{CONTAINER}/{name}" for name in names]
    assert next(listing.entries()).size == len(b"bytes")
    with FaultyProxy("127.0.0.1", int(deep.swift.url.rpartition(":")[2])) as proxy:
        deep.host.configure({"fast": {"swift_store_endpoint": proxy.url + deep.swift.account_path}})
        settings.load([str(deep.host.config_file)])
        listing = Listing(cfg.CONF, "fast", Limits(), page=3)
        assert len(list(listing.entries())) == len(names)
        proxy.order(503, "marker=2")
        with pytest.raises(Unreachable):
            list(listing.entries())


def test_another_account(deep: Deep) -> None:
    """The container is there and empty though rows name objects in it: nothing is judged."""
    deep.image(image_id(30), b"bytes", swift_url(deep.swift, image_id(30), CONTAINER))
    plain(deep.connection, image_id(30), b"in another container")
    done = deep.run("audit", "--store", "fast", "--grace", "0s")
    assert done.status == 3
    assert f"{CONTAINER} is empty, the catalogue names files in it" in done.out
    deep.connection.delete_object(deep.swift.container, image_id(30))


def test_an_image_that_is_only_cached_goes_back(deep: Deep) -> None:
    """Into the container and under the name that Glance gives it; what a run killed before its row left is found."""
    name, data = f"{uuid.uuid4()}", b"x" * 100_000
    with FaultyServer() as server:
        server.put(f"/replicas/{name}", data)
        deep.image(name, data)
        deep.site.add_location(name, f"{server.url}/replicas/{name}", {"store": "web", "replica_host": "api9"})
        done = deep.run("repair", name, "--to-store", "fast", "--yes")
        assert done.status == 0, done
        assert deep.connection.get_object(CONTAINER, name)[1] == data
        [url] = [one["url"] for one in deep.site.locations(name) if one["url"].startswith("swift")]
        assert url.endswith(f"/{CONTAINER}/{name}")
        assert deep.run("verify", name).status == 0
        deep.site.rows("DELETE FROM image_locations WHERE value LIKE 'swift%' AND image_id = :i", i=name)
        written = deep.connection.head_object(CONTAINER, name)["x-timestamp"]
        assert deep.run("repair", name, "--to-store", "fast", "--yes").status == 0
        assert deep.connection.head_object(CONTAINER, name)["x-timestamp"] == written
