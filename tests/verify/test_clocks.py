"""Machines whose clocks differ: what was found last counts, whatever the clock of the machine that found it says."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.databases.schema import add_image
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from services.machine.clock import wrong_clock
from support.worlds.shelf import DATA

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.ledger.ledger import Ledger, place_key
from glance_replicas.ledger.pins import Pins
from glance_replicas.model import HOST_KEY, Result
from glance_replicas.verdict import Verdict

HOUR = 3600
IMAGES = [f"80000000-0000-4000-8000-{number:012d}" for number in range(20)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[GlanceHost]:
    """One configured host; its programs run on machines of which each has a clock of its own. So has the database."""
    with GlanceSite(tmp_path_factory.mktemp("site"), postgres.create_glance("clocks")) as site:
        yield site.add_host(start=False)


@pytest.fixture
def image(host: GlanceHost) -> str:
    """An image with two intact files; every test has one of its own."""
    name = IMAGES.pop()
    add_image(host.site.database_url, name, DATA)
    catalogue = Catalogue(host.site.database_url)
    for copy in ("first", "second"):
        (host.site.store_dir / f"{name}-{copy}").write_bytes(DATA)
        catalogue.add(name, f"file://{host.site.store_dir}/{name}-{copy}", {"store": "fast"})
    return name


def replica(host: GlanceHost, ahead: int, *arguments: str) -> int:
    """The exit status of a program on a machine with that clock, which it really has."""
    return program(host, ahead, *arguments).returncode


def program(host: GlanceHost, ahead: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What that program said."""
    env = wrong_clock(host.folder, ahead)
    clock = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], env=env, capture_output=True, check=True
    )
    assert abs(float(clock.stdout) - time.time() - ahead) < 60
    command = [Path(sys.prefix) / "bin" / "replica", "--config-file", host.config_file, *arguments]
    return subprocess.run(command, env=env, capture_output=True, check=False, timeout=60, text=True)


def state(host: GlanceHost, image: str, *, full: bool = False) -> Result:
    """What the ledger says of the first file."""
    ledger = Ledger(host.site.ledger_url)
    (location,) = (one for one in Catalogue(host.site.database_url).image(image).locations if "first" in one.url)  # type: ignore[union-attr]
    return ledger.states([image], full=full)[image, place_key(location)]


def damage(host: GlanceHost, image: str) -> None:
    """Other bytes of the same length."""
    (host.site.store_dir / f"{image}-first").write_bytes(DATA[::-1])


@pytest.mark.parametrize(
    ("first", "second", "look"),
    [(HOUR, 0, ("repair",)), (0, -HOUR, ("repair",)), (HOUR, 0, ("verify", "--evidence", "full"))],
)
def test_damage_found_later_counts(
    host: GlanceHost, image: str, first: int, second: int, look: tuple[str, ...]
) -> None:
    """A machine ahead saw it intact, then one behind finds it damaged: damaged it is, also by the last full one."""
    replica(host, first, "repair", image)
    assert state(host, image).verdict is Verdict.INTACT
    damage(host, image)
    replica(host, second, *look, image)
    assert (state(host, image).verdict, state(host, image, full=True).verdict) == (Verdict.CORRUPT, Verdict.CORRUPT)


def test_a_look_is_fresh_by_the_clock_of_the_ledger(host: GlanceHost, image: str) -> None:
    """What a machine ahead recorded is of now to another: neither looked at again, nor spared for an hour longer."""
    replica(host, HOUR, "repair", image)
    seen = state(host, image).checked_at
    assert seen is not None
    assert abs(seen.timestamp() - time.time()) < 60
    damage(host, image)
    assert replica(host, 0, "verify", image, "--evidence", "full", "--max-age", "1h") == 0, "looked at a moment ago"
    time.sleep(1.1)
    assert replica(host, 0, "verify", image, "--evidence", "full", "--max-age", "1s") == 1


@pytest.mark.parametrize("ahead", [3 * HOUR, -3 * HOUR])
def test_ages_are_by_the_clock_of_the_ledger(host: GlanceHost, image: str, ahead: int) -> None:
    """Whatever the clock of the machine that shows them: what was done a moment ago is some seconds old."""
    replica(host, 0, "repair", image)
    ledger = Ledger(host.site.ledger_url)
    Pins(ledger.database).add([image], ["api1"], "a test")
    ledger.request_withdrawal(ledger.states([image]).popitem()[1].location, reason="a test", who="a test")
    ledger.close()
    for words in (["list", image], ["pin", "list", image], ["audit", "log", image], ["verify", image, "--dry-run"]):
        out = program(host, ahead, *words, "-f", "table").stdout
        assert re.search(r"\b\d+ s ago", out), out
        assert not re.search(r"\d (min|h|d) ago", out), out


@pytest.mark.parametrize("ahead", [0, 72 * HOUR])
def test_a_new_copy_is_not_unused(host: GlanceHost, image: str, ahead: int) -> None:
    """A copy that was registered a moment ago is younger than a day, however far ahead the machine of the prune is."""
    catalogue = Catalogue(host.site.database_url)
    catalogue.add(image, f"http://127.0.0.9:1/replicas/{image}", {"store": "web", HOST_KEY: "api9"})
    ages = catalogue.ages([image])
    assert len(ages) == 3
    assert all(0 <= age < 60 for age in ages.values())
    day = "SELECT (now() AT TIME ZONE 'UTC')::date - 5, :id, 'api9', 0, 0, 0"
    host.site.ledger_rows(
        f"INSERT INTO replica_uses (day, image_id, host, downloads, bytes, hit_bytes) {day}", id=image
    )
    words = ("prune", image, "--unused", "1d", "-f", "json")
    assert "nothing to prune" in program(host, ahead, *words).stderr
    host.site.rows(
        "UPDATE image_locations SET created_at = created_at - interval '3 days' WHERE image_id = :id", id=image
    )
    assert [row["Host"] for row in json.loads(program(host, ahead, *words).stdout)] == ["api9"], "one that is old"
