"""A real Galera cluster: three MariaDB servers that all take writes, each on a loopback address of its own."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql
import sqlalchemy as sa

from .. import absent, eventually, free_port, need
from ..once import once
from ..process import Process, run
from .servers import MariaDB

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
ADDRESSES = ("127.0.2.1", "127.0.2.2", "127.0.2.3")
JOIN_SECONDS = 90.0  # a node gets all data of another one


@dataclass(frozen=True)
class Ports:
    """The same four on each address; a cluster's own, so that several can run side by side."""

    sql: int
    group: int
    increments: int  # IST
    snapshot: int  # SST

    @classmethod
    def free(cls, addresses: Sequence[str]) -> Self:
        """Ports that nobody has on any of these addresses."""
        found: list[int] = []
        while len(found) < 4:
            port = free_port(addresses[0])
            if port not in found and all(_is_free(one, port) for one in addresses[1:]):
                found.append(port)
        return cls(*found)


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


class Node(MariaDB):
    """One server of a cluster: not started yet. Killed, stopped or cut off, it comes back with the others' data."""

    def __init__(self, folder: Path, address: str, ports: Ports, members: Sequence[str]) -> None:
        self.folder, self.data, self.address = folder, folder / "data", address
        self.port, self._ports, self._members = ports.sql, ports, members
        self._process: Process | None = None
        self.owner = self.user if os.geteuid() == 0 else None
        self._words_of_start: list[str] = []

    def make(self, template: Path | None = None) -> None:
        """Its folder is there: empty, so that it gets all from another node, or with what the `template` holds."""
        self.data.mkdir(parents=True)
        if template:
            run([need("cp"), "--archive", "--sparse=always", f"{template}/data/.", self.data])
        for one in (self.folder, self.data) if self.owner else ():
            shutil.chown(one, self.owner)

    def command(self) -> list[str | Path]:
        """One server, one address, no file outside the folder."""
        here, ports = self.address, self._ports
        members = ",".join(f"{one}:{ports.group}" for one in self._members)
        provider = f"gmcast.listen_addr=tcp://{here}:{ports.group};ist.recv_addr={here}:{ports.increments}"
        return [
            *(need("mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.folder}"),
            *(f"--bind-address={here}", f"--port={ports.sql}", f"--socket={self.folder}/socket"),
            *(f"--pid-file={self.folder}/pid", "--skip-name-resolve", "--max-connections=300"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-log-file-size=16M"),
            *("--innodb-buffer-pool-size=64M", "--binlog-format=ROW", "--default-storage-engine=InnoDB"),
            *("--innodb-autoinc-lock-mode=2", "--wsrep-on=ON", f"--wsrep-provider={PROVIDER}"),
            *("--wsrep-cluster-name=tests", f"--wsrep-cluster-address=gcomm://{members}"),
            *(f"--wsrep-node-name={here}", f"--wsrep-node-address={here}:{ports.group}"),
            *(f"--wsrep-node-incoming-address={here}:{ports.sql}", "--wsrep-sst-method=rsync"),
            f"--wsrep-sst-receive-address={here}:{ports.snapshot}",
            f"--wsrep-provider-options={provider};gcache.size=64M;gcache.dir={self.data}",
            *self._words_of_start,
        ]

    def start(self, *, alone: bool = False) -> None:
        """It takes reads and writes as a part of the cluster; `alone`: of a new one."""
        self._words_of_start = ["--wsrep-new-cluster"] if alone else []
        self._process = Process(
            self.command(), self.folder / "server.log", user=self.owner, stop_signal=self.stop_signal
        )
        self._process.wait(self.is_synced, JOIN_SECONDS)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of an answer; what SQLAlchemy asks of each new connection a minority refuses."""
        with pymysql.connect(
            host=self.address, port=self.port, user="glance", password="glance", autocommit=True
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return list(cursor.fetchall())

    def execute(self, statement: str) -> None:
        """Run a statement outside any transaction, as the server's administrator."""
        self.ask(statement)

    def status(self, name: str) -> str:
        """A value of `SHOW STATUS`. Raises pymysql's Error when the server does not answer."""
        return str(self.ask(f"SHOW STATUS LIKE '{name}'")[0][1])

    def is_synced(self) -> bool:
        """Whether it answers, and has what the cluster has."""
        try:
            return (self.status("wsrep_ready"), self.status("wsrep_local_state_comment")) == ("ON", "Synced")
        except pymysql.Error:
            return False

    def has(self, database: str) -> bool:
        """Whether this database has got here."""
        return bool(self.ask(f"SHOW DATABASES LIKE '{database}'"))

    def isolate(self) -> None:
        """The others cannot be reached: it is a minority and refuses every statement."""
        self.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")
        assert eventually(lambda: self.status("wsrep_cluster_status") != "Primary", 30)

    def rejoin(self) -> None:
        """The others can be reached again, and it is one of them."""
        self.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
        assert eventually(self.is_synced, 30)

    def freeze(self) -> None:
        """It does nothing, as when its machine hangs; the others go on after some seconds."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It goes on where it was."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGCONT)

    def thaw(self) -> None:
        """It goes on where it was, and is one of the others when it has caught up."""
        self.go_on()
        assert eventually(self.is_synced, JOIN_SECONDS)

    def hold_up(self, seconds: float) -> None:
        """For so long it applies nothing of what the others have committed, as a node that lags."""
        with pymysql.connect(host=self.address, port=self.port, user="glance", password="glance") as connection:
            cursor = connection.cursor()
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            time.sleep(seconds)
            cursor.execute("UNLOCK TABLES")


class Galera:
    """A started cluster; what is made on one node is on all when the call returns."""

    def __init__(self, folder: Path, addresses: Sequence[str] = ADDRESSES) -> None:
        if not PROVIDER.exists():
            absent("galera-4 is not installed; bin/system-packages installs it")
        need("rsync")
        ports = Ports.free(addresses)
        self.nodes = [Node(folder / address, address, ports, addresses) for address in addresses]
        first, *others = self.nodes
        first.make(once(MariaDB.user, MariaDB._first))
        for node in others:
            node.make()
        first.start(alone=True)
        with ThreadPoolExecutor(len(others)) as pool:
            list(pool.map(Node.start, others))

    def create(self, name: str) -> list[str]:
        """The URLs of a new empty database, one for each node."""
        self.nodes[0].create(name)
        return self.urls(name)

    def create_glance(self, name: str) -> list[str]:
        """The URLs of a new database with Glance's tables, one for each node."""
        self.nodes[0].create_glance(name)
        return self.urls(name)

    def urls(self, name: str) -> list[str]:
        """The URLs of a database, when every node has done what the first one did."""
        for node in self.nodes:
            assert eventually(lambda node=node: node.has(name), 30)  # type: ignore[misc]
            with sa.create_engine(node.url(name), poolclass=sa.NullPool).connect() as connection:
                connection.execute(sa.text("SET SESSION wsrep_sync_wait = 1"))
                connection.execute(sa.text("SHOW TABLES")).all()
        return [node.url(name) for node in self.nodes]

    def is_whole(self) -> bool:
        """Whether every node has what all have, and knows all others."""
        try:
            sizes = {int(node.status("wsrep_cluster_size")) for node in self.nodes}
        except pymysql.Error:
            return False
        return sizes == {len(self.nodes)} and all(node.is_synced() for node in self.nodes)

    def close(self) -> None:
        """All servers have ended, for good."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
