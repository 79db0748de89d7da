"""A real Glance: a site with one catalogue and one back end, and its hosts, each a WSGI server of its own."""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from .. import environment, eventually, free_port, need
from ..configuration import Options, conf_text, host_options, merge, paste_text, replicas_options, store_options
from ..databases.schema import add_ledger, db_sync, has_schema, ledger_url, query, sqlite_database
from ..process import Process
from ..stores.ceph import Ceph
from ..stores.swift import Swift
from ..web.faulty import FaultyServer
from .client import GlanceClient

__all__ = ["GlanceClient", "GlanceHost", "GlanceSite"]

APPLICATION = "glance.wsgi.api:application"
# Imported once, before uWSGI forks its workers; each then loads its application by itself (--lazy-apps).
SHARED = (
    "glance.common.wsgi_app",
    "glance.api.v2.router",
    "glance.db.sqlalchemy.api",
    "glance_store._drivers.filesystem",
    "glance_store._drivers.http",
    "glance_replicas.middleware.cache",
    "glance_replicas.middleware.api",
    "glance_replicas.middleware.server",
)


class GlanceHost:
    """One glance-api: own folder, configuration, cache directory and address; stopped until `start()`."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        *,
        address: str,
        name: str,
        zone: str,
        database_url: str,
        server: str,
        processes: int,
        threads: int,
        pipeline: str,
        site: "GlanceSite",
    ) -> None:
        self.site = site
        self.folder, self.address, self.name, self.zone = folder, address, name, zone
        self.server, self.processes, self.threads = server, processes, threads
        self.port = free_port(address)
        self.bound = f"{f'[{address}]' if ':' in address else address}:{self.port}"
        self.url = f"http://{self.bound}"
        self.cache_dir, self.config_file = folder / "cache", folder / "glance-api.conf"
        self._options = merge(host_options(folder, self.url, database_url), options)
        self._process: Process | None = None
        for path in (self.cache_dir, folder / "staging", folder / "tasks"):
            path.mkdir(parents=True)
        self.configure(pipeline=pipeline)

    @property
    def partial_dir(self) -> Path:
        """Where files grow."""
        return self.cache_dir / ".glance-replicas" / "partial"

    def configure(self, options: Options | None = None, pipeline: str | None = None) -> None:
        """Write the files, with these options on top of all earlier ones; a running server needs `restart()`."""
        self._options = merge(self._options, options or {})
        if pipeline is not None:
            self.pipeline = pipeline
        ours = {"replicas": replicas_options(self.name, self.zone, self.url)} if "replica" in self.pipeline else {}
        self.config_file.write_text(conf_text(merge(ours, self._options)))
        (self.folder / "glance-api-paste.ini").write_text(paste_text(self.pipeline))

    def command(self) -> list[str | Path]:
        """The WSGI server's command line."""
        return _uwsgi(self) if self.server == "uwsgi" else _gunicorn(self)

    def start(self, wait: bool = True) -> Self:
        """Serving, or (`wait=False`) about to; RuntimeError with the log when it does not come up."""
        if self._process and self._process.running():
            raise RuntimeError(f"{self.name} runs already")
        path = self.folder / "glance-api.log"
        self._log_start = path.stat().st_size if path.exists() else 0
        env = environment(OS_GLANCE_CONFIG_DIR=str(self.folder))
        imported = SHARED if self.site.quick else ()
        self._process = Process(self.command(), path, env=env, cwd=self.folder, imported=imported)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when every process of the server answers."""
        self.process.wait(self._ready, timeout)

    def _ready(self) -> bool:
        if self.server == "uwsgi":
            loaded = self.process.log()[self._log_start :].count("WSGI app 0 (mountpoint='') ready")
            if loaded < self.processes:
                return False
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return self.client().request("GET", "/versions").status_code in (200, 300)
        return False

    @property
    def process(self) -> Process:
        """The server's process group; RuntimeError before the first start."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def stop(self) -> None:
        """Ask the server to end, and wait."""
        if self._process:
            self._process.stop()

    close = stop

    def kill(self) -> None:
        """SIGKILL to every process of the host at once."""
        self.process.kill()

    def restart(self) -> Self:
        """Stop and start at the same address and port."""
        self.stop()
        return self.start()

    def running(self) -> bool:
        """Whether the server's master runs."""
        return self._process is not None and self._process.running()

    def pids(self) -> list[int]:
        """The worker processes."""
        return self.process.children()

    def log(self) -> str:
        """All that the server and Glance have logged, over all starts."""
        path = self.folder / "glance-api.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def client(self, project: str = "p1", roles: Iterable[str] = ("admin", "member"), user: str = "u1") -> GlanceClient:
        """A caller with this identity."""
        return GlanceClient(self.url, project, roles, user)

    def __enter__(self) -> Self:
        return self if self.running() else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _uwsgi(host: GlanceHost) -> list[str | Path]:
    backlog = min(1024, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    return [
        *(need("uwsgi"), "--module", APPLICATION, "--virtualenv", sys.prefix),
        *("--master", "--die-on-term", "--no-orphans", "--lazy-apps", "--enable-threads", "--need-app"),
        *("--processes", str(host.processes), "--threads", str(host.threads)),
        *itertools.chain.from_iterable(("--shared-pyimport", module) for module in SHARED),
        *("--http-socket", host.bound, "--listen", str(backlog), "--buffer-size", "65535"),
        # Four seconds, the default, would cut off a client that reads slowly.
        *("--socket-timeout", "60"),
        # A chunk of a client's chunked upload may be larger than a MiB, the default.
        *("--chunked-input-limit", str(64 << 20)),
        # Without it clients with a session get resets: http-socket closes without a word.
        *("--add-header", "Connection: close"),
    ]


def _gunicorn(host: GlanceHost) -> list[str | Path]:
    return [
        *(need("gunicorn"), APPLICATION, "--worker-class", "gthread", "--bind", host.bound),
        *("--workers", str(host.processes), "--threads", str(host.threads), "--timeout", "120"),
        *("--graceful-timeout", "5", "--no-control-socket", "--access-logfile", "-"),
    ]


class GlanceSite:
    """One catalogue, one durable back end (store id `fast`), one http store (`web`), and any number of hosts.

    `ledger=False` leaves our own tables out of the database; hosts start from nothing without `quick` (`warm`).
    """

    def __init__(
        self,
        folder: Path,
        database_url: str | None = None,
        *,
        store: str = "file",
        multi_store: bool = True,
        options: Options | None = None,
        swift: Swift | None = None,
        ceph: Ceph | None = None,
        ledger: bool = True,
        quick: bool = True,
    ) -> None:
        self.quick = quick
        self.folder, self.store, self.multi_store, self.swift, self.ceph = folder, store, multi_store, swift, ceph
        folder.mkdir(parents=True, exist_ok=True)
        self.database_url = database_url or sqlite_database(folder / "glance.sqlite")
        if not has_schema(self.database_url):
            db_sync(self.database_url)
        self.store_dir = folder / "store"
        self.store_dir.mkdir(exist_ok=True)
        self.options = merge(store_options(store, self._driver_options(), multi_store), options or {})
        own = self.options.get("replicas", {}).get("connection")
        self.ledger_url = str(own or ledger_url(self.database_url))
        if ledger:
            add_ledger(self.ledger_url)
        self.hosts: list[GlanceHost] = []
        self._moved: dict[str, tuple[FaultyServer, str]] = {}

    def _driver_options(self) -> Mapping[str, str]:
        if self.store == "file":
            return {"filesystem_store_datadir": str(self.store_dir)}
        if self.store == "swift" and self.swift:
            return self.swift.store_options()
        if self.store == "s3" and self.swift:
            return self.swift.s3_options()
        if self.store == "rbd" and self.ceph:
            return self.ceph.store_options()
        return {}

    def add_host(
        self,
        address: str = "127.0.0.2",
        *,
        server: str = "uwsgi",
        processes: int = 2,
        threads: int = 8,
        options: Options | None = None,
        pipeline: str | None = None,
        name: str | None = None,
        zone: str = "zone-a",
        start: bool = True,
    ) -> GlanceHost:
        """One more host, serving or only configured. `pipeline`: replicas (ours), stock, stock-cache, or filters."""
        name = name or f"api{len(self.hosts) + 1}"
        host = GlanceHost(
            self.folder / name,
            merge(self.options, options or {}),
            address=address,
            name=name,
            zone=zone,
            database_url=self.database_url,
            server=server,
            processes=processes,
            threads=threads,
            pipeline=pipeline or "replicas",
            site=self,
        )
        self.hosts.append(host)
        return host.start() if start else host

    def wait_known(self, timeout: float = 20.0) -> None:
        """Every running host with our pipeline is in the ledger, where others find it when a row or a fill names it."""
        names = {host.name for host in self.hosts if host.running() and "replica" in host.pipeline}
        hosts = "SELECT name FROM replica_hosts"
        if not eventually(lambda: names <= {row["name"] for row in self.ledger_rows(hosts)}, timeout):
            raise RuntimeError(f"not all of {sorted(names)} have reported to the ledger")

    def rows(self, statement: str, /, **values: Any) -> list[dict[str, Any]]:
        """What a SQL statement with `:name` values finds in the catalogue; a change is committed."""
        return query(self.database_url, statement, **values)

    def ledger_rows(self, statement: str, /, **values: Any) -> list[dict[str, Any]]:
        """The same in our own tables."""
        return query(self.ledger_url, statement, **values)

    def locations(self, image_id: str) -> list[dict[str, Any]]:
        """The active location rows as `id`, `url`, `metadata`, in order."""
        found = self.rows(
            "SELECT id, value, meta_data FROM image_locations WHERE image_id = :image AND status = 'active' "
            "AND deleted = :no ORDER BY id",
            image=image_id,
            no=False,
        )
        return [{"id": r["id"], "url": r["value"], "metadata": json.loads(r["meta_data"] or "{}")} for r in found]

    def set_location(self, image_id: str, url: str, metadata: Mapping[str, str]) -> None:
        """Every active location of the image becomes this one, behind the API's back."""
        self.rows(
            "UPDATE image_locations SET value = :url, meta_data = :metadata "
            "WHERE image_id = :image AND status = 'active'",
            url=url,
            metadata=json.dumps(dict(metadata)),
            image=image_id,
        )

    def add_location(self, image_id: str, url: str, metadata: Mapping[str, str]) -> None:
        """One more active location of the image, behind the API's back."""
        self.rows(
            "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, updated_at, deleted) "
            "VALUES (:image, :url, :metadata, 'active', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, :no)",
            url=url,
            metadata=json.dumps(dict(metadata)),
            image=image_id,
            no=False,
        )

    def store_file(self, image_id: str) -> Path:
        """The image's bytes in the file back end."""
        return self.store_dir / image_id

    def move_to(self, server: FaultyServer, image_id: str, **faults: Any) -> str:
        """The bytes leave the file back end for `server`, whose URL is now the one durable location."""
        url = server.put(f"/{image_id}", self.store_file(image_id).read_bytes(), **faults)
        self.set_location(image_id, url, {"store": "web"} if self.multi_store else {})
        self.store_file(image_id).unlink()
        self._moved[image_id] = (server, f"/{image_id}")
        return url

    def backend_reads(self, image_id: str) -> int:
        """How often the bytes were asked for (GET) in the back end: after `move_to`, or in Swift."""
        if image_id in self._moved:
            server, path = self._moved[image_id]
            return server.reads(path)
        if self.store == "swift" and self.swift:
            return self.swift.count(image_id)
        raise ValueError("a file store cannot count; call move_to first")

    def close(self) -> None:
        """End all hosts, the quick way; the folder stays."""
        for host in self.hosts:
            if host.running():
                host.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
