"""The two glance-api hosts of the demo: their files, their processes, and no others."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ETC = Path(__file__).resolve().parent.parent / "etc"
IDENTITY = {"X-Identity-Status": "Confirmed", "X-Roles": "admin,member", "X-Project-Id": "demo", "X-User-Id": "demo"}
PORT = 9292

CONF = """\
[DEFAULT]
transport_url = fake:/
worker_self_reference_url = {url}
image_cache_dir = {run}/{name}/cache
node_staging_uri = file://{run}/{name}/staging
enabled_backends = fast:file, web:http
[database]
connection = sqlite:///{run}/glance.sqlite?timeout=30
sqlite_synchronous = false
[glance_store]
default_backend = fast
[fast]
filesystem_store_datadir = {run}/store
weight = 1
[web]
weight = 0
[os_glance_staging_store]
filesystem_store_datadir = {run}/{name}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {run}/{name}/tasks
[paste_deploy]
config_file = {run}/glance-api-paste.ini
flavor = keystone+replicas
[oslo_policy]
policy_file = {run}/policy.yaml
[replicas]
host_name = {name}
host_zone = {zone}
signing_keys = demo:{secret}
max_bytes = 2147483648
min_free_bytes = 0
janitor_interval_seconds = 2
"""


@dataclass(frozen=True)
class Host:
    """One glance-api: an address, a name and a zone of its own."""

    name: str
    address: str
    zone: str
    port: int
    run: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}:{self.port}"

    @property
    def log(self) -> Path:
        """What uWSGI and Glance write."""
        return self.run / f"{self.name}.log"

    @property
    def start_command(self) -> str:
        """What a person would type to start it."""
        return (
            f"OS_GLANCE_CONFIG_DIR={self.name} uwsgi --ini {os.path.relpath(ETC, self.run)}/uwsgi.ini"
            f" --http-socket {self.address}:{self.port} --virtualenv {sys.prefix}"
        )

    def answers(self) -> bool:
        """Whether Glance answers."""
        with contextlib.suppress(OSError):
            return fetch(f"{self.url}/versions")[0] in (200, 300)
        return False


def prepare(run: Path) -> list[Host]:
    """Two hosts, configured, in the folder `run`."""
    port = free_port()
    hosts = [Host("api1", "127.0.0.2", "zone-a", port, run), Host("api2", "127.0.0.3", "zone-b", port, run)]
    secret = os.urandom(32).hex()
    run.mkdir(parents=True)
    for host in hosts:
        for name in ("cache", "staging", "tasks"):
            (run / host.name / name).mkdir(parents=True)
        facts = {"url": host.url, "run": run, "name": host.name, "zone": host.zone, "secret": secret}
        (run / host.name / "glance-api.conf").write_text(CONF.format(**facts))
    (run / "store").mkdir()
    # The sample pipeline without Keystone: the `context` filter believes what the identity headers say.
    paste = (ETC / "glance-api-paste.ini").read_text()
    (run / "glance-api-paste.ini").write_text(paste.replace("osprofiler authtoken context", "context"))
    (run / "policy.yaml").write_text((ETC / "policy.yaml").read_text())
    (run / "identity").write_text("".join(f"{name}: {value}\n" for name, value in IDENTITY.items()))
    return hosts


def start(host: Host, keep: bool) -> None:
    """The host's server runs; its pid is on record. Unless `keep`, it ends when this process does, however that is."""
    words = [f"{sys.prefix}/bin/uwsgi", *host.start_command.split()[2:]]
    env = environment() | {"OS_GLANCE_CONFIG_DIR": str(host.run / host.name)}
    with host.log.open("ab") as log:
        server = subprocess.Popen(
            words,
            cwd=host.run,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=None if keep else _die_with(os.getpid()),  # noqa: PLW1509  one thread is all there is
        )
    with (host.run / "pids").open("a") as record:
        record.write(f"{server.pid} {_state(server.pid)[1]}\n")


def stop(run: Path) -> int:
    """Nothing runs of what the record names; how many servers that were."""
    record = run / "pids"
    found = [line.split() for line in record.read_text().splitlines()] if record.exists() else []
    running = [int(pid) for pid, began in found if _runs(int(pid), began)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, began in found:
            if _runs(int(pid), began):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(pid), number)  # of a session of its own: master and workers
        deadline = time.monotonic() + 3  # uWSGI with threads takes long to end; kill -9 at any instant loses nothing
        while any(_runs(int(pid), began) for pid, began in found) and time.monotonic() < deadline:
            time.sleep(0.05)
    record.unlink(missing_ok=True)
    return len(running)


def environment() -> dict[str, str]:
    """Ours with the programs beside this Python first, and without what would lead requests elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "UWSGI_")) and "proxy" not in k.lower()}
    return kept | {"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "ignore"}


def fetch(url: str) -> tuple[int, bytes]:
    """Status and body of a GET with the demo's identity. Raises OSError when nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=IDENTITY), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read()


def free_port() -> int:
    """A port that is free on both addresses, Glance's own if it can be."""
    for wanted in (PORT, *[0] * 20):
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.2", wanted))
            other.bind(("127.0.0.3", one.getsockname()[1]))
            return int(one.getsockname()[1])
    raise RuntimeError("no port is free on both 127.0.0.2 and 127.0.0.3")


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before it becomes a server: ask the kernel for SIGKILL when its parent ends.

    Not SIGTERM, which uWSGI ignores while it sets itself up. `no-orphans` ends its workers with it.
    """
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _state(pid: int) -> tuple[str, str]:
    """State and start time of a process; a pid used again has another start time."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", ""
    return fields[0], fields[19]


def _runs(pid: int, began: str) -> bool:
    state, its = _state(pid)
    return its == began and state not in "ZX"
