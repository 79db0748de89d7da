"""A catalogue of many images whose copies are at a faulty server, and hosts that are configured and never run."""

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer

from glance_replicas import checksum
from glance_replicas.catalogue.tables import locations
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.schema.tables import checks, claims
from support.programs import Done, Programs, Started
from support.worlds.scenes import settle

DATA = b"the bytes of every image here"
_ids = itertools.count(1)


class Crowd:
    """Images with some locations each, all intact, and programs run with one or another configuration."""

    def __init__(self, folder: Path, programs: Programs, web: FaultyServer, database_url: str | None = None) -> None:
        self.site = GlanceSite(folder, database_url)
        self.programs, self.web = programs, web
        self.paths: dict[str, list[str]] = {}  # of each image, at the server

    def machine(self, address: str = "127.0.0.2") -> GlanceHost:
        """One more configuration."""
        return self.site.add_host(address, start=False)

    def add(self, number: int, each: int = 1) -> list[str]:
        """So many images with so many locations each; their ids."""
        names = [f"70000000-0000-4000-8000-{next(_ids):012d}" for _ in range(number)]
        self.put(names, each)
        return names

    def put(self, names: Sequence[str], each: int = 1) -> None:
        """Images with these ids."""
        self.paths |= {name: [f"/{part}/{name}" for part in range(each)] for name in names}
        add_images(self.site, {name: [self.web.put(path, DATA) for path in self.paths[name]] for name in names})

    def urls(self) -> list[str]:
        """Every location, in the order of all counts."""
        return [self.web.url + path for paths in self.paths.values() for path in paths]

    def reads(self) -> list[int]:
        """How often each location was read."""
        return [self.web.reads(path) for paths in self.paths.values() for path in paths]

    def settle(self) -> None:
        """Every answer of the server has reached its end, or its client has gone."""
        settle(lambda: not self.web.connections())

    def recorded(self) -> list[int]:
        """How many results of each location there are in the history."""
        ledger = Ledger(self.site.ledger_url)
        counted = sa.select(checks.c.image_id, checks.c.url, sa.func.count())
        rows = ledger.database.rows(counted.group_by(checks.c.image_id, checks.c.url))
        ledger.close()
        found = {row[1]: row[2] for row in rows}
        return [found.get(url, 0) for url in self.urls()]

    def expire_claims(self) -> None:
        """As when the time of every lease had passed."""
        ledger = Ledger(self.site.ledger_url)
        ledger.database.change(claims.update().values(expires_at=ledger.now().replace(year=2020)))
        ledger.close()

    def start(self, machine: GlanceHost, *words: object) -> Started:
        """`replica verify` with the configuration of a machine."""
        return self.programs.start("--config-file", machine.config_file, "verify", *words)

    def verify(self, machine: GlanceHost, *words: object) -> Done:
        """The same to its end."""
        return self.start(machine, *words).wait()


def add_images(site: GlanceSite, urls: Mapping[str, Sequence[str]]) -> None:
    """Active images of DATA, each with these locations, straight into the catalogue."""
    fixed = {"status": "active", "created_at": datetime(2026, 1, 1), "deleted": False}
    digest = checksum.of([DATA], "sha512")[0]
    facts = {"name": "x", "size": len(DATA), "visibility": "shared", "os_hash_algo": "sha512", **fixed}
    facts |= {"os_hash_value": digest.value, "min_disk": 0, "min_ram": 0, "protected": False, "os_hidden": False}
    row = {"meta_data": json.dumps({"store": "web"}), **fixed}
    rows = [{"image_id": name, "value": url} | row for name, each in urls.items() for url in each]
    engine = sa.create_engine(site.database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        table = sa.table("images", *(sa.column(one) for one in ("id", *facts)))
        connection.execute(sa.insert(table), [{"id": name} | facts for name in urls])
        connection.execute(sa.insert(locations), rows)
    engine.dispose()


def wait_all(started: Sequence[Started]) -> list[Done]:
    """The end of each."""
    return [one.wait() for one in started]
