"""A host as etc/ has it: one uWSGI for the API and one for bodies (uwsgi.ini), HAProxy before both (haproxy.cfg)."""

import socket
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from .. import environment, eventually, free_port, need
from ..process import Process
from .client import GlanceClient
from .site import SHARED, GlanceSite

ETC = Path(__file__).parents[3] / "etc"
ADDRESS = "127.0.0.2"
PROCESSES = 2  # as uwsgi.ini says
SAMPLE_PORTS = {"api": 9292, "bodies": 9293}


class TwoUwsgi:
    """The samples at addresses of the loopback, running; nothing else in them is changed."""

    def __init__(self, site: GlanceSite, *, api: Iterable[str] = (), bodies: Iterable[str] = ()) -> None:
        """`api` and `bodies` are more words of the command lines."""
        self.ports = {"api": free_port(ADDRESS), "bodies": free_port(ADDRESS)}
        self.host = site.add_host(ADDRESS, processes=PROCESSES, threads=16, start=False)
        self.host.configure({"replicas": {"host_url": f"http://{ADDRESS}:{self.ports['bodies']}"}})
        self.listen = f"127.0.0.1:{free_port()}"
        self.servers: dict[str, Process] = {}
        try:
            self._uwsgi("api", "uwsgi.ini", api)
            self._uwsgi("bodies", "uwsgi.ini:downloads", bodies)
            self._haproxy()
        except BaseException:
            self.close()
            raise

    def _uwsgi(self, name: str, section: str, more: Iterable[str]) -> None:
        words: list[str | Path] = [need("uwsgi"), "--ini", f"{ETC}/{section}", "--virtualenv", sys.prefix]
        words += ["--http-socket", f"{ADDRESS}:{self.ports[name]}", *more]
        folder = self.host.folder
        env = environment(OS_GLANCE_CONFIG_DIR=str(folder))
        imported = SHARED if self.host.site.quick else ()
        self.servers[name] = Process(words, folder / f"{name}.log", env=env, cwd=folder, imported=imported)

    def _haproxy(self) -> None:
        sample, path = (ETC / "haproxy.cfg").read_text(), self.host.folder / "haproxy.cfg"
        changes = {"10.0.0.10:9292": self.listen, "/dev/log local0": "stdout format raw local0"}
        changes |= {f"10.0.0.11:{port}": f"{ADDRESS}:{self.ports[name]}" for name, port in SAMPLE_PORTS.items()}
        for old, new in changes.items():
            assert old in sample
            sample = sample.replace(old, new)
        path.write_text(sample)
        for name, server in self.servers.items():
            server.wait(partial(self._loaded, name))
        made = self.servers["haproxy"] = Process([need("haproxy"), "-db", "-f", path], path.with_suffix(".log"))
        made.wait(lambda: _takes(self.listen))
        assert eventually(lambda: self.client().request("GET", "/v2/images").ok)

    def _loaded(self, name: str) -> bool:
        return self.log(name).count("WSGI app 0 (mountpoint='') ready") >= PROCESSES

    def client(self, project: str = "p1", roles: Iterable[str] = ("admin", "member"), user: str = "u1") -> GlanceClient:
        """A caller with this identity, through the proxy."""
        return GlanceClient(f"http://{self.listen}", project, roles, user)

    def log(self, name: str) -> str:
        """What `api`, `bodies` or `haproxy` has written."""
        return self.servers[name].log()

    def close(self) -> None:
        """End all of them."""
        for one in self.servers.values():
            one.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _takes(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True
