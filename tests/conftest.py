"""The fixtures of real services; services/ has what they are made of."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from glance.db.sqlalchemy import api as glance_api  # before anything has parsed the options that it registers
from hypothesis import settings
from oslo_config import cfg
from oslo_db import options as db_options
from services import once
from services.databases.galera import Galera
from services.databases.schema import sqlite_database, sqlite_url
from services.databases.servers import DatabaseServer, MariaDB, Postgres, server_folder
from services.glance import warm
from services.glance.site import GlanceHost, GlanceSite
from services.process import end_reaper
from services.stores import bindings
from services.stores.ceph import Ceph
from services.stores.cinder import Cinder
from services.stores.gateway import Gateway
from services.stores.keystone import Keystone
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from services.web.nginx import Nginx
from support import TESTS, programs
from support.workers import Scheduling, summary

from glance_replicas.ledger.ledger import Ledger

_numbers = itertools.count(1)

# Files run side by side: those that take longest begin first, so that no long one is left at the end.
LONGEST = [
    *("chaos", "access_table", "writers_s3", "fault_matrix", "cache_filter", "demo", "repair_killed"),
    *("client_programs", "janitor", "catalogue", "put_back", "tools_copy", "glance_cache_api", "server"),
    *("ranges", "guard", "cinder_stores", "glance_cache_tests", "openstackclient", "users"),
]

# What starts servers or hosts: fixtures, and names that a test's module has imported. Such tests are marked `services`.
SERVERS = {"cinder", "ceph", "galera", "gateway", "keystone", "mariadb", "nginx", "postgres", "site", "swift"}
SERVERS |= {"two_hosts"}
STARTERS = {"Cloud", "Crowd", "Desk", "GlanceSite", "Keystone", "Programs", "Scene", "Swift"}


def pytest_configure(config: pytest.Config) -> None:
    """Programs under test can be interrupted, also where a shell runs this in the background; they find `support`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    bindings.expose()
    if once.begin():
        config.add_cleanup(once.end)
    settings.register_profile("ours", deadline=None)  # machines are slow at times
    settings.load_profile("ours")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))


def pytest_sessionfinish() -> None:
    """Leave no process behind."""
    programs.close()
    warm.close()
    end_reaper()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were; marks what starts servers, which `make quick` leaves out."""
    order = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    for item in items:
        if isinstance(item, pytest.Function) and needs_services(item):
            item.add_marker(pytest.mark.services)


def needs_services(item: pytest.Function) -> bool:
    """Whether a test starts a server or a host."""
    chosen = {str(value) for value in item.callspec.params.values()} if hasattr(item, "callspec") else set()
    named = {*item.fixturenames, *chosen}
    return bool(named & SERVERS) or any(hasattr(item.module, name) for name in STARTERS)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    """Slow servers are started in one worker each."""
    return Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The files that took most time."""
    summary(terminalreporter)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GlanceSite]:
    """A site with a file store and without hosts."""
    with GlanceSite(tmp_path / "site") as made:
        yield made


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[tuple[GlanceHost, GlanceHost]]:
    """Two hosts of one site with our pipeline, in zones of their own, for all tests of a module.

    On PostgreSQL: with SQLite, Glance answers 500 ("database is locked") to one who writes while another host does.
    """
    with GlanceSite(tmp_path_factory.mktemp("site"), postgres.create_glance(f"two_hosts_{next(_numbers)}")) as made:
        hosts = [made.add_host(f"127.0.0.{n}", zone=f"zone-{n}", start=False) for n in (2, 3)]
        for host in hosts:
            host.start(wait=False)
        for host in hosts:
            host.wait_ready()
        made.wait_known()
        yield hosts[0], hosts[1]


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    """A web server with faults."""
    with FaultyServer() as server:
        yield server


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """A Keystone for the whole run."""
    with Keystone(tmp_path_factory.mktemp("keystone")) as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone) -> Iterator[Swift]:
    """A Swift for the whole run."""
    with Swift(tmp_path_factory.mktemp("swift"), keystone) as server:
        yield server


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph for the whole run."""
    with Ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="session")
def cinder(tmp_path_factory: pytest.TempPathFactory, keystone: Keystone, ceph: Ceph) -> Iterator[Cinder]:
    """A Cinder for the whole run."""
    with Cinder(tmp_path_factory.mktemp("cinder"), keystone, ceph) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(ceph: Ceph) -> Iterator[Gateway]:
    """An S3 server on that Ceph, for the whole run."""
    with Gateway(ceph) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the whole run."""
    with server_folder("postgres") as folder, Postgres(folder) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB for the whole run, in memory: it waits for the disk at each table made, whatever its options."""
    with server_folder("mariadb", memory=True) as folder, MariaDB(folder) as server:
        yield server


@pytest.fixture(scope="session")
def galera() -> Iterator[Galera]:
    """A cluster of three nodes for the whole run; a test that takes a node away brings it back."""
    with server_folder("galera", memory=True) as folder, Galera(folder) as cluster:
        yield cluster


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """An nginx that serves the folder `nginx.root`."""
    root = tmp_path / "www"
    root.mkdir()
    with Nginx(tmp_path / "nginx", root) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database_server(request: pytest.FixtureRequest) -> DatabaseServer | None:
    """Each server in turn; None is SQLite."""
    server: DatabaseServer | None = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    return server


@pytest.fixture
def database_url(database_server: DatabaseServer | None, tmp_path: Path) -> str:
    """A new empty database on SQLite, PostgreSQL and MariaDB in turn."""
    if database_server is None:
        return sqlite_url(tmp_path / "empty.sqlite")
    return database_server.create(f"empty_{next(_numbers)}")


@pytest.fixture
def glance_database_url(database_server: DatabaseServer | None, tmp_path: Path) -> str:
    """A new database with Glance's tables on SQLite, PostgreSQL and MariaDB in turn."""
    if database_server is None:
        return sqlite_database(tmp_path / "glance.sqlite")
    return database_server.create_glance(f"glance_{next(_numbers)}")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """Empty tables of ours, on each database in turn."""
    made = Ledger(database_url)
    made.upgrade()
    yield made
    made.close()


@pytest.fixture
def glance(glance_database_url: str) -> Iterator[ModuleType]:
    """Glance's own database code, on that database."""
    cfg.CONF.register_opts(db_options.database_opts, "database")
    cfg.CONF.set_override("connection", glance_database_url, "database")
    glance_api.clear_db_env()
    yield glance_api
    glance_api.get_engine().dispose()
    glance_api.clear_db_env()
    cfg.CONF.clear_override("connection", "database")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A name in an empty folder; afterwards nothing but that name may be there."""
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder / "image.raw"
    assert [path.name for path in folder.iterdir()] in ([], ["image.raw"])
