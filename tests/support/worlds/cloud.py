"""A cloud of hosts without WSGI servers: one catalogue, one ledger, a faulty server as the durable back end."""

import dataclasses
import itertools
import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer

from glance_replicas import settings
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly
from glance_replicas.model import Host
from glance_replicas.transfer.fill import start
from glance_replicas.transfer.follow import start_or_join

MIB = 1 << 20
SIZE = 3 * MIB + 17
DATA = random.Random(5).randbytes(SIZE)
_ids = itertools.count(1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> settings.Settings:
    """The settings of a host that was never started."""
    site = GlanceSite(tmp_path_factory.mktemp("configured"))
    host = site.add_host("127.0.0.2", start=False)
    return settings.load([str(host.config_file)])


class Cloud:
    """One catalogue, one ledger, one durable back end (a faulty server), and hosts made as they are needed."""

    def __init__(
        self, folder: Path, loaded: settings.Settings, durable: FaultyServer, database_url: str | None = None
    ) -> None:
        self.site = GlanceSite(folder / "site", database_url)
        self.durable, self._folder = durable, folder
        self._settings = dataclasses.replace(
            loaded,
            database=self.site.database_url,
            ledger=self.site.ledger_url,
            connect_timeout_seconds=1.0,
            stall_timeout_seconds=1.0,
            dead_after_seconds=3600,
        )
        self._open: list[LocalHost] = []

    def host(self, name: str, url: str = "", **changes: Any) -> LocalHost:
        """A host with a directory of its own, known to the ledger."""
        url = url or f"http://127.0.0.9:{next(_ids)}"
        made = dataclasses.replace(
            self._settings, host_name=name, host_url=url, cache_dir=self._folder / name, **changes
        )
        local = LocalHost.assemble(made)
        local.cache.prepare()
        local.ledger.heartbeat(Host(name, made.host_zone, url))
        self._open.append(local)
        return local

    def image(self, **faults: Any) -> str:
        """A new image whose one durable location is the faulty server."""
        name = f"80000000-0000-4000-8000-{next(_ids):012d}"
        add_image(self.site.database_url, name, DATA)
        self.site.add_location(name, self.durable.put(f"/{name}", DATA, **faults), {"store": "web"})
        return name

    def reads(self, name: str) -> int:
        """How often the durable copy was read."""
        return self.durable.reads(f"/{name}")

    def rows(self, name: str) -> list[str]:
        """The hosts registered for an image."""
        found = [one["metadata"].get("replica_host") for one in self.site.locations(name)]
        return [one for one in found if one]

    def cached(self, local: LocalHost) -> str:
        """A new image that this host has cached and registered."""
        name = self.image()
        filled(local, name)
        assert local.settings.host_name in self.rows(name)
        return name

    def close(self) -> None:
        """No connection is left."""
        for local in self._open:
            local.catalogue.close()
            local.ledger.close()


def filled(local: LocalHost, name: str) -> None:
    """The host has the complete file of an image, and has done what comes after it."""
    (local.cache.folder / "queue" / name).touch()
    copier, end = assembly.prefetch_worker(local), time.monotonic() + 30
    while (local.cache.folder / "queue" / name).exists():
        assert time.monotonic() < end, "it was never cached"
        copier.step()
        time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path: Path, loaded: settings.Settings, faulty: FaultyServer) -> Iterator[Cloud]:
    """A cloud without hosts."""
    with closing(Cloud(tmp_path, loaded, faulty)) as made:
        yield made


def read(local: LocalHost, name: str) -> bytes:
    """What a client of this host gets."""
    image = local.catalogue.active(name)
    assert image is not None
    with closing(start_or_join(local.cache, local.fill_setup.plan(image))) as follower:
        return b"".join(follower.read(0, SIZE))


def fill(local: LocalHost, name: str) -> None:
    """The image is filled and reported."""
    image = local.catalogue.active(name)
    assert image is not None
    filler = start(local.cache, local.fill_setup.plan(image))
    assert filler is not None
    filler.join(30)
