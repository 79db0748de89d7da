"""`replica audit` of another host, from a machine that never sees its disk: two real hosts, and one that lies."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from services.configuration import SIGNING_KEYS
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Done, Programs
from support.worlds.cached import keep
from support.worlds.scenes import new_image, settle

from glance_replicas.cache import CachedFile
from glance_replicas.ledger.ledger import Ledger, Withdrawal
from glance_replicas.location import replica_url
from glance_replicas.model import HOST_KEY, Host, Location
from glance_replicas.signing import parse_keys, sign
from glance_replicas.stores.body import Limits
from glance_replicas.stores.hosts import remote

pytest_plugins = ["support.desk"]

KEYS = parse_keys(SIGNING_KEYS)
_ids = itertools.count(1)


class Pair:
    """`here` has only a configuration; `there` runs, with a janitor that looks for requests every five seconds."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.site, self._programs = GlanceSite(folder), programs
        self.here = self.site.add_host("127.0.0.2", start=False)
        self.there = self.site.add_host(
            "127.0.0.3", processes=1, options={"replicas": {"janitor_interval_seconds": "3600"}}
        )
        self.site.wait_known()
        self.ledger = Ledger(self.site.ledger_url)
        self.kept, data = new_image(self.there, 5000)
        assert self.there.client().download(self.kept).content == data
        settle(lambda: len(self.site.locations(self.kept)) == 2)

    def run(self, *words: object) -> Done:
        return self._programs.run("--config-file", self.here.config_file, "audit", *words)

    def dark(self, data: bytes = b"bytes") -> Path:
        """A complete file of an image that nobody knows."""
        path = self.there.cache_dir / f"b0000000-0000-4000-8000-{next(_ids):012d}"
        keep(path, data)
        return path

    def done(self, number: int) -> Withdrawal | None:
        """The line of this number once it is closed."""
        return next((one for one in self.ledger.withdrawals() if one.id == number and one.finished_at), None)

    def close(self) -> None:
        self.ledger.close()
        self.site.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair") / "site", programs)
    yield made
    made.close()


def audit(pair: Pair, *words: object) -> Done:
    return pair.run("--host", pair.there.name, "--grace", "0s", "--max-share", "90", *words)


def test_a_dark_file_of_another_host(pair: Pair) -> None:
    """It is listed, seen by two audits and removed by its host on request; the record is closed, then all agree."""
    path = pair.dark()
    done = audit(pair, "-f", "json")
    (row,) = done.rows
    assert (done.status, row["Kind"], row["Name"], row["Size"]) == (1, "dark", path.name, 5)
    done = audit(pair, "--remove-dark", "--yes", "-f", "json")
    (row,) = done.rows
    assert (done.status, row["Action"]) == (0, "asked"), done.err
    assert "1 dark, 0 lost, 1 to be removed by the host within seconds" in done.err
    settle(lambda: not path.exists(), 30)
    settle(lambda: [one for one in pair.ledger.withdrawals() if one.image_id == path.name and one.finished_at])
    done = audit(pair)
    assert (done.status, done.out) == (0, f"host:{pair.there.name}: 1 listed, 1 in the catalogue: 0 dark, 0 lost\n")


def test_the_host_looks_again(pair: Pair) -> None:
    """What an audit called dark and is another file by now, or an image's that is active, stays; the line is closed."""
    path, active = pair.dark(b"other bytes"), pair.there.cache_dir / pair.kept
    numbers = []
    for one, size in ((path, 5), (active, active.stat().st_size)):
        copy = Location(one.name, replica_url(pair.there.url, one.name), {HOST_KEY: pair.there.name})
        numbers.append(pair.ledger.request_withdrawal(copy, reason="dark", who="a test", proof={"bytes": size}))
    settle(lambda: all(map(pair.done, numbers)), 30)
    assert path.exists()
    assert active.exists()
    assert len(pair.site.locations(pair.kept)) == 2
    path.unlink()


def test_a_lost_file_of_another_host(pair: Pair) -> None:
    """A row without its file is lost, by the list and by the host's own 404."""
    image, data = new_image(pair.there, 6000)
    assert pair.there.client().download(image).content == data
    settle(lambda: len(pair.site.locations(image)) == 2)
    (pair.there.cache_dir / image).unlink()
    done = audit(pair, "-f", "json")
    assert (done.status, [(row["Kind"], row["Name"]) for row in done.rows]) == (1, [("lost", image)])
    pair.there.client().delete(image)


def test_who_may_list(pair: Pair) -> None:
    """Without a signature for this very path nobody is told what is here, and nothing but GET is answered."""
    url = f"{pair.there.url}/replicas/"
    other = sign(replica_url(pair.there.url, pair.kept), KEYS, 60).partition("?")[2]
    for one in (url, f"{url}?{other}", sign(url, KEYS, -60), sign(url, parse_keys(["k9:" + "x" * 32]), 60)):
        assert requests.get(one, timeout=10).status_code == 403
    assert requests.post(sign(url, KEYS, 60, method="POST"), timeout=10).status_code == 405
    answer = requests.get(sign(url, KEYS, 60), timeout=10)
    assert answer.text.splitlines()[-1] == f"end {len(answer.text.splitlines()) - 1}"


def test_a_directory_that_cannot_be_read(pair: Pair) -> None:
    """The host answers with an error, nothing is judged, exit 3; an empty one is taken for unmounted."""
    away = pair.there.cache_dir.with_name("away")
    pair.there.cache_dir.rename(away)
    try:
        done = audit(pair)
        assert (done.status, "nothing was judged" in done.out, "status 503" in done.out) == (3, True, True)
        pair.there.cache_dir.mkdir()
        done = audit(pair)
        assert (done.status, "is empty, the catalogue names files in it" in done.out) == (3, True)
        pair.there.cache_dir.rmdir()
    finally:
        away.rename(pair.there.cache_dir)


def lines(number: int) -> bytes:
    moment = time.time() - 100 * 86400
    names = (f"c0000000-0000-4000-8000-{one:012d}" for one in range(number))
    return remote.written(CachedFile(name, 5, True, moment, moment, False) for name in names)


def listing(server: FaultyServer) -> remote.Listing:
    return remote.Listing(Host("api9", None, server.url), lambda url: url, Limits(2, 5))


def test_a_hundred_thousand_files(faulty: FaultyServer) -> None:
    """All of them come, each with its size and time."""
    faulty.put(remote.PATH, lines(100_000))
    found = list(listing(faulty).entries())
    assert len({one.name for one in found}) == 100_000
    assert {one.size for one in found} == {5}


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (lines(9), {"truncate_at": 300}),
        (lines(9).rpartition(b"end")[0], {}),
        (lines(9).rpartition(b"\n")[0], {}),
        (lines(9).replace(b"end 9", b"end 10"), {}),
        (lines(9)[:30] + lines(9), {}),
        (b"", {}),
        (b"<html>" * 1000, {}),
        (lines(9), {"status": 404}),
        (lines(9), {"status": 403}),
        (lines(9), {"status": 503}),
        (lines(9), {"html": True}),
    ],
)
def test_a_list_that_is_none(pair: Pair, faulty: FaultyServer, body: bytes, faults: dict[str, object]) -> None:
    """Cut off, miscounted, something else, or refused: nothing is dark or lost, and the status is 3."""
    pair.ledger.heartbeat(Host("api9", None, faulty.url))
    faulty.put(remote.PATH, body, **faults)
    done = pair.run("--host", "api9", "--grace", "0s")
    assert done.status == 3, done.out + done.err
    assert "host:api9: nothing was judged" in done.out
