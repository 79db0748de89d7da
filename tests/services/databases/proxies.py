"""What stands between hosts and a database in many clouds: HAProxy before Galera, PgBouncer before PostgreSQL."""

import os
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from .. import free_port, need
from ..process import Process
from .galera import Galera
from .servers import Postgres

BALANCER = """
global
    external-check
    insecure-fork-wanted
defaults
    mode tcp
    timeout connect 2s
    timeout client 10m
    timeout server 10m
frontend galera
    bind {address}:{port}
    default_backend nodes
backend nodes
    option external-check
    external-check path "{path}"
    external-check command {folder}/check
"""
CHECK = """#!/bin/sh
# HAProxy gives: its own address and port, the server's address and port.
exec {mariadb} --no-defaults --host="$3" --port="$4" --user=glance --password=glance --connect-timeout=1 \\
    --skip-column-names --batch --execute="SHOW STATUS LIKE 'wsrep_local_state'" | grep -q '4$'
"""
POOLER = """
[databases]
* = host={server} port={server_port} user=glance
[pgbouncer]
listen_addr = {address}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 300
"""


class _Proxy:
    """One that listens on an address of its own; the same databases are there."""

    _process: Process

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address, self.port = folder, address, free_port(address)
        folder.mkdir(parents=True)

    def through(self, url: str, drivername: str | None = None) -> str:
        """The URL of the same database behind this, also by another driver."""
        made = sa.make_url(url).set(host=self.address, port=self.port)
        made = made.set(drivername=drivername) if drivername else made
        return made.render_as_string(hide_password=False)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), 1).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """It has ended."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Balancer(_Proxy):
    """HAProxy: all connections go to the first node; while it is away to the next one, and new ones back afterwards."""

    def __init__(self, folder: Path, cluster: Galera, address: str = "127.0.2.9") -> None:
        super().__init__(folder, address)
        path = os.pathsep.join(("/usr/sbin", "/usr/bin", "/sbin", "/bin"))
        text = BALANCER.format(address=address, port=self.port, folder=folder, path=path)
        for number, node in enumerate(cluster.nodes):
            backup = " backup" if number else ""
            text += f"    server n{number} {node.address}:{node.port} check inter 500 rise 2 fall 2{backup}\n"
        (folder / "haproxy.cfg").write_text(text)
        check = folder / "check"
        check.write_text(CHECK.format(mariadb=need("mariadb")))
        check.chmod(0o755)
        self._process = Process([need("haproxy"), "-db", "-f", folder / "haproxy.cfg"], folder / "haproxy.log")
        self._process.wait(self._listens)


class Pooler(_Proxy):
    """PgBouncer in transaction mode: each transaction of a client may meet another of `size` connections."""

    def __init__(self, folder: Path, server: Postgres, size: int, address: str = "127.0.2.8") -> None:
        super().__init__(folder, address)
        owner = server.owner
        text = POOLER.format(server=server.address, server_port=server.port, address=address, port=self.port, size=size)
        (folder / "pgbouncer.ini").write_text(text)
        if owner:
            shutil.chown(folder, owner)
        self._process = Process([need("pgbouncer"), folder / "pgbouncer.ini"], folder / "pgbouncer.log", user=owner)
        self._process.wait(self._listens)
