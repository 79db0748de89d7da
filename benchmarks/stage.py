"""What every benchmark stands on: a Glance site, the shaped back end, images without uploads, nginx and Varnish."""

import http.client
import json
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from clients import Ask, fetch
from services import PLACES, eventually, free_port, need
from services.databases.servers import Postgres, server_folder
from services.glance.site import GlanceHost, GlanceSite
from services.process import Process, members
from services.stores.keystone import Keystone
from services.stores.swift import Swift

MIB = 1 << 20


class Stage(ExitStack):
    """A folder of its own, everything in it ended and removed at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="glance-replicas-bench-", dir=os.environ.get("BENCH_DIR")))
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        database = Postgres(self.enter_context(server_folder("postgres")))
        self.callback(database.kill)
        site = GlanceSite(self.folder / "site", database.create_glance("bench"), quick=False)
        self.site: GlanceSite = self.enter_context(site)
        self._images: dict[int, str] = {}

    def hosts(
        self, *pipelines: str, number: int = 2, link_rate: int = 0, sendfile: str = "off", **rest: Any
    ) -> list[GlanceHost]:
        """Running hosts, each with its workers warm; two processes of 16 threads unless told.

        With `link_rate` hosts reach each other through an nginx that gives every connection so many bytes a second.
        """
        rest = {"processes": 2, "threads": 16, "start": False, **rest}
        made = []
        for at, name in enumerate(pipelines, number):
            port = free_port()
            options = {"sendfile": sendfile} | ({"host_url": f"http://127.0.0.1:{port}"} if link_rate else {})
            made.append(
                self.site.add_host(
                    f"127.0.0.{at}", pipeline=name, name=f"{name}-{at}", options={"replicas": options}, **rest
                )
            )
            if link_rate:
                nginx_link(self, made[-1], port, link_rate)
        for host in made:
            host.start(wait=False)
        for host in made:
            host.wait_ready()
        for host in made:
            self.warm(host)
        return made

    def origin(self, size: int, bytes_per_second: float = 0) -> "Origin":
        """A back end with the bytes of the images of this size."""
        return self.enter_context(Origin(self, self.data(size), bytes_per_second))

    def data(self, size: int) -> Path:
        """A file of random bytes."""
        path = self.folder / f"data-{size}"
        if not path.exists():
            source = random.Random(size)
            with path.open("wb") as file:
                for start in range(0, size, MIB):
                    file.write(source.randbytes(min(MIB, size - start)))
        return path

    def warm_memory(self, size: int) -> None:
        """The system has so many bytes of free memory that were in use a moment ago.

        A virtual machine gives free pages back to its host within seconds, and to get one anew takes several times as
        long as to write to it.
        """
        path, block = self.folder / "scratch", bytes(MIB)
        with path.open("wb", buffering=0) as file:
            for _ in range(size // MIB):
                file.write(block)
        path.unlink()

    def image(self, host: GlanceHost, size: int, origin: "Origin | None" = None) -> str:
        """A new image of `size` bytes that nobody has cached, in `origin` or in the file store.

        The first of a size is uploaded, the others are its rows again under another id.
        """
        if size not in self._images:
            with self.data(size).open("rb") as file:
                self._images[size] = host.client().create(data=file, visibility="public")["id"]
        image_id = str(uuid.uuid4())
        self._again("images", self._images[size], image_id)
        self._again("image_locations", self._images[size], image_id)
        if origin is not None:
            self.site.set_location(image_id, origin.url_of(image_id), {"store": "web"})
        return image_id

    def swift(self, size: int, number: int) -> tuple[GlanceHost, Swift, list[str]]:
        """A Glance over a real Swift with so many images of this size."""
        for name in ("keystone", "swift"):
            (self.folder / name).mkdir()
        keystone = self.enter_context(Keystone(self.folder / "keystone"))
        swift = self.enter_context(Swift(self.folder / "swift", keystone))
        site = self.enter_context(GlanceSite(self.folder / "cloud", store="swift", swift=swift, quick=False))
        host = site.add_host("127.0.0.3", pipeline="stock", processes=1)
        images = []
        for _ in range(number):
            with self.data(size).open("rb") as file:
                images.append(str(host.client().create(data=file)["id"]))
        return host, swift, images

    def _again(self, table: str, old: str, new: str) -> None:
        key = "id" if table == "images" else "image_id"
        columns = (
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = :table"
        )
        names = [row["column_name"] for row in self.site.rows(columns, table=table)]
        names = [name for name in names if name != key and not (table == "image_locations" and name == "id")]
        copied = ", ".join(names)
        self.site.rows(
            f"INSERT INTO {table} ({key}, {copied}) SELECT :new, {copied} FROM {table} WHERE {key} = :old",
            new=new,
            old=old,
        )

    def warm(self, host: GlanceHost) -> None:
        """Every thread of every worker has served a miss and a hit of a small image."""
        for _ in range(2):
            image_id = self.image(host, 4 * MIB)
            for _ in range(2):
                fetch([download(host, image_id)] * host.threads * host.processes)
            forget(host, image_id)


class Origin:
    """The program of origin.py, running."""

    def __init__(self, stage: Stage, path: Path, bytes_per_second: float) -> None:
        self.address, self.port = "127.0.0.1", free_port()
        self.url = f"http://{self.address}:{self.port}"
        words = [sys.executable, Path(__file__).with_name("origin.py"), self.address, str(self.port), path]
        self._process = Process([*words, str(bytes_per_second)], stage.folder / f"origin-{self.port}.log")
        self._process.wait(lambda: listens(self.address, self.port))

    def ask(self, name: str) -> Ask:
        """A read past every cache."""
        return Ask(self.url_of(name))

    def url_of(self, image_id: str) -> str:
        """Where an image is."""
        return f"{self.url}/{image_id}"

    def counts(self, name: str) -> tuple[int, int]:
        """Reads of an image, and bytes sent for them."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=30)
        connection.request("GET", "/-/counts")
        found = json.loads(connection.getresponse().read())
        connection.close()
        reads, sent = found.get(f"/{name}", (0, 0))
        return reads, sent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()


class Peer:
    """Another server on a port of its own, from a command line that is made of folder and port."""

    def __init__(
        self, stage: Stage, name: str, command: Callable[[Path, int], Sequence[str | Path]], port: int = 0
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder = stage.folder / f"{name}-{self.port}"
        folder.mkdir()
        self.process = Process(command(folder, self.port), folder / "log", cwd=folder)
        self.process.wait(lambda: listens("127.0.0.1", self.port))
        stage.callback(self.process.kill)

    def ask(self, name: str) -> Ask:
        """A request for a file or an image."""
        return Ask(f"{self.url}/{name}")


_NGINX = """
{user}
daemon off; pid {folder}/pid; error_log stderr warn; worker_processes {workers};
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; sendfile_max_chunk 2m; default_type application/octet-stream;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
    server {{ listen 127.0.0.1:{port} backlog=1024; {server} }}
}}
"""


def _nginx(stage: Stage, server: str, *, cache: bool = False, port: int = 0) -> Peer:
    def command(folder: Path, port: int) -> Sequence[str | Path]:
        http = f"proxy_cache_path {folder}/cache keys_zone=all:8m use_temp_path=off;" if cache else ""
        user = "user root;" if os.geteuid() == 0 else ""
        conf = folder / "nginx.conf"
        conf.write_text(_NGINX.format(folder=folder, port=port, http=http, server=server, user=user, workers=2))
        return [need("nginx"), "-e", "stderr", "-p", folder, "-c", conf]

    return Peer(stage, "nginx", command, port)


def nginx_link(stage: Stage, host: GlanceHost, port: int, rate: int) -> Peer:
    """nginx in front of a host, at `rate` bytes a second for each connection."""
    return _nginx(
        stage,
        f"location / {{ proxy_pass {host.url}; proxy_http_version 1.1; proxy_buffering off; limit_rate {rate}; }}",
        port=port,
    )


def nginx_files(stage: Stage, root: Path) -> Peer:
    """nginx with two workers and sendfile on the files of a folder."""
    return _nginx(stage, f"root {root};")


def nginx_cache(stage: Stage, origin: Origin) -> Peer:
    """nginx in front of the back end, one request at a time for what is not there yet."""
    return _nginx(
        stage,
        f"location / {{ proxy_pass {origin.url}; proxy_http_version 1.1; proxy_set_header Connection ''; "
        "proxy_cache all; proxy_cache_lock on; proxy_cache_lock_timeout 60s; proxy_cache_lock_age 60s; "
        "proxy_cache_valid 200 1h; proxy_max_temp_file_size 0; }",
        cache=True,
    )


def varnish(stage: Stage, origin: Origin) -> Peer | None:
    """Varnish in front of the back end, in memory; None where it is not installed."""
    found = shutil.which("varnishd", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if found is None:
        return None

    def command(folder: Path, port: int) -> Sequence[str | Path]:
        vcl = folder / "default.vcl"
        vcl.write_text(f'vcl 4.1;\nbackend default {{ .host = "{origin.address}"; .port = "{origin.port}"; }}\n')
        storage = "malloc,2G"
        words = ["-F", "-a", f"127.0.0.1:{port}", "-f", vcl, "-s", storage, "-n", folder / "work"]
        return [found, *words, "-j", "none", "-p", "vcc_err_unref=off"]

    return Peer(stage, "varnish", command)


def download(host: GlanceHost, image_id: str, **headers: str) -> Ask:
    """A request for the bytes of an image."""
    return Ask(f"{host.url}/v2/images/{image_id}/file", {**host.client().identity, **headers})


def forget(host: GlanceHost, image_id: str) -> None:
    """The disk has its space back; the image will not be asked for again."""
    time.sleep(0.05)  # a fill renames its file when its last client may have gone
    (host.cache_dir / image_id).unlink(missing_ok=True)


def wait_for(done: Callable[[], bool], seconds: float = 60) -> None:
    """Return when it is so; RuntimeError when it is not in time."""
    if not eventually(done, seconds):
        raise RuntimeError(f"not within {seconds:.0f} s")


def listens(address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def cpu_seconds(process: Process) -> float:
    """User and system time of a server and its workers so far."""
    ticks = 0
    for pid in members(process.pid):
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


@contextmanager
def note(text: str) -> Iterator[None]:
    """Say on stderr what goes on, and how long it took."""
    began = time.monotonic()
    print(f"{text} ...", end=" ", file=sys.stderr, flush=True)
    yield
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
