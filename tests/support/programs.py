"""The programs of this package as processes of their own, without paying for their imports each time.

One process imports what every command needs and then forks for each call: what runs is the real `main`, with its own
standard output and error, exit status and signals.
"""

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import stevedore
from services import environment

import glance_replicas
from support import TESTS

if TYPE_CHECKING:
    from services.glance.site import GlanceHost, GlanceSite

    from glance_replicas.ledger.ledger import Ledger

# Commands of another program, what runs inside glance-api, and what only alembic may load.
ELSEWHERE = tuple(f"glance_replicas.{name}" for name in ("middleware", "tools.cloud.osc", "ledger.migrations."))


@dataclass(frozen=True)
class Done:
    """What a program left behind."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> Any:
        """Standard output as JSON; where there is none, the test fails with what the program said instead."""
        assert self.out, f"no output, exit status {self.status}: {self.err}"
        return json.loads(self.out)


@dataclass(frozen=True)
class Started:
    """A program that runs; its output goes to `folder`."""

    programs: "Programs"
    pid: int
    folder: Path

    def kill(self) -> Done:
        """SIGKILL; what it had written until then, unless it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)  # not reaped before `wait`, so that the number is still its own
        return self.wait()

    def out(self) -> str:
        """What it has written so far."""
        return (self.folder / "out").read_bytes().decode()  # a carriage return stays one

    def wait(self) -> Done:
        """Its end."""
        status = self.programs.ask(wait=self.pid)
        done = Done(status, self.out(), (self.folder / "err").read_text())
        shutil.rmtree(self.folder)
        return done


class Programs:
    """Runs `replica`, or `openstack`, with given arguments; close it at the end."""

    def __init__(self, program: str = "replica", before: Sequence[str | Path] = (), **env: str) -> None:
        """`before`: the words that run a command somewhere else, in a namespace for one."""
        command = [*before, sys.executable, __file__, program]
        folder = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(PYTHONPATH=folder, **env)
        )

    def run(self, *words: object, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """The exit status and the output of the program with these words, and with `env` over its environment."""
        return self.start(*words, stdin=stdin, env=env).wait()

    def start(self, *words: object, stdin: str = "", env: Mapping[str, str] | None = None) -> Started:
        """The program runs, in a process of its own."""
        folder = Path(tempfile.mkdtemp(prefix="glance-replicas-program-"))
        for name in ("out", "err"):
            (folder / name).touch()
        (folder / "in").write_text(stdin)
        pid = self.ask(words=[str(word) for word in words], folder=str(folder), env=dict(env or {}))
        return Started(self, pid, folder)

    def ask(self, **what: Any) -> int:
        """The server's answer."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=20)


@functools.cache
def replica() -> Programs:
    """The one `replica` of this test run, started when it is first asked for; `close` ends it."""
    return Programs()


def close() -> None:
    """That one is ended, if it was started. Twice does no harm."""
    if replica.cache_info().currsize:
        replica().__exit__()
        replica.cache_clear()


@dataclass
class Desk:
    """A site with a Glance that makes images, and the programs run with its glance-api.conf."""

    site: "GlanceSite"
    host: "GlanceHost"
    programs: Programs

    @property
    def ledger_url(self) -> str:
        """A database of its own beside Glance's."""
        return f"sqlite:///{self.site.folder}/ledger.sqlite"

    def run(self, *words: object) -> Done:
        """`replica --config-file ... WORDS`."""
        return self.programs.run("--config-file", self.host.config_file, *words)

    def image(self, data: bytes = b"image", name: str = "image", **rest: Any) -> str:
        """A new active image with one intact location in the file store; returns its id."""
        return str(self.host.client().create(name, data, **rest)["id"])

    def add_file(self, image_id: str, data: bytes | None, name: str = "second") -> Path:
        """One more durable location, of these bytes; None: without a file."""
        path = self.site.store_dir / f"{name}-{image_id}"
        if data is not None:
            path.write_bytes(data)
        self.site.add_location(image_id, f"file://{path}", {"store": "fast"})
        return path

    def add_replica(self, image_id: str, base: str, host: str = "api9") -> str:
        """A cached copy registered for a host under this base URL; returns its URL."""
        url = f"{base}/replicas/{image_id}"
        self.site.add_location(image_id, url, {"store": "web", "replica_host": host, "replica_zone": "z9"})
        return url

    @property
    def ledger(self) -> "Ledger":
        """The ledger that the programs use."""
        from glance_replicas.ledger.ledger import Ledger

        return Ledger(self.ledger_url)

    def urls(self, image_id: str) -> list[str]:
        """The URLs in the catalogue."""
        return [one["url"] for one in self.site.locations(image_id)]


def _preload(program: str) -> None:
    importlib.import_module("cliff.command")._get_distributions_by_modules()  # reads what every package says of itself
    if program == "openstack":
        for name in ("openstackclient.shell", "openstack.connection", "keystoneauth1.identity.v3"):
            importlib.import_module(name)
        for name in ("osc", "osc_acts"):
            importlib.import_module(f"glance_replicas.tools.cloud.{name}")
        return
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(None):
        import glance_store
        from oslo_config import cfg

        glance_store.register_opts(cfg.ConfigOpts())
        importlib.import_module("glance.common.config")
    for found in pkgutil.walk_packages(glance_replicas.__path__, "glance_replicas."):
        if not found.name.startswith(ELSEWHERE):
            importlib.import_module(found.name)
    stevedore.ExtensionManager("cliff.formatter.list")


def _child(program: str, words: list[str], folder: str, env: dict[str, str]) -> None:
    for number, name in enumerate(("in", "out", "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY if number else os.O_RDONLY), number)
    os.environ.update(env)
    module = "openstackclient.shell" if program == "openstack" else "glance_replicas.tools.main"
    main = importlib.import_module(module).main
    sys.argv = [program, *words]
    try:
        status = main()
    except SystemExit as end:
        status = int(end.code or 0)
    sys.stdout.flush()
    os._exit(status)


def _serve(program: str) -> None:
    _preload(program)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
            continue
        child = os.fork()
        if not child:
            _child(program, **asked)
        print(child, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
