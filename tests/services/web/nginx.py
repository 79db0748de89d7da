"""nginx as a peer that serves files of one folder, with an access log to count reads with."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from .. import answers, free_port, need
from ..process import Process

CONF = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    log_format counted '$request_method $uri $status $body_bytes_sent "$http_range"';
    access_log {folder}/access.log counted;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    sendfile on;
    {http}
    server {{
        listen {address}:{port};
        root {root};
        {rate}
        {more}
    }}
}}
"""


class Nginx:
    """A started nginx; `folder` is its own, `root` what it serves, `more` and `http` further directives there."""

    def __init__(
        self,
        folder: Path,
        root: Path,
        address: str = "127.0.0.1",
        *,
        limit_rate: str | None = None,
        more: str = "",
        http: str = "",
    ) -> None:
        self.folder, self.root, self.address, self.port = folder, root, address, free_port(address)
        self.url = f"http://{address}:{self.port}"
        self._more, self._http = more, http
        self._process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.start(limit_rate)

    def start(self, limit_rate: str | None = None) -> None:
        """Serving; `limit_rate` in nginx's words ("1m": a MiB per second for each connection)."""
        rate = f"limit_rate {limit_rate};" if limit_rate else ""
        user = "user root;" if os.geteuid() == 0 else ""
        names = {"folder": self.folder, "address": self.address, "port": self.port, "root": self.root}
        conf = self.folder / "nginx.conf"
        conf.write_text(CONF.format(user=user, rate=rate, more=self._more, http=self._http, **names))
        words = [need("nginx"), "-e", "stderr", "-p", self.folder, "-c", conf]
        self._process = Process(words, self.folder / "nginx.log", cwd=self.folder)
        self._process.wait(lambda: answers(self.address, self.port, "/ready", "HEAD"))
        (self.folder / "access.log").write_text("")

    def stop(self) -> None:
        """End it; `start()` serves the same folder at the same port again."""
        if self._process:
            self._process.stop()

    close = stop

    def url_of(self, name: str) -> str:
        """The URL of a file in `root`."""
        return f"{self.url}/{quote(name)}"

    def requests(self) -> list[str]:
        """Lines `METHOD PATH STATUS BYTES "RANGE"` of requests that have ended, since the last start."""
        return (self.folder / "access.log").read_text().splitlines()

    def count(self, name: str, method: str = "GET") -> int:
        """How many requests for a file have ended since the last start."""
        return sum(line.startswith(f"{method} /{name} ") for line in self.requests())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
