"""uWSGI or gunicorn for a host without paying for its imports each time: a fork of one that has them (`warm.c`).

What runs is the program itself, with its own words, environment, folder, session and exit status. Where that cannot
be, the program is started as usual: another program, a library to be loaded first, an interpreter with other settings.
"""

import atexit
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from .. import environment, need

_WORDS = 100  # as many as a host may have
_SCRIPT = Path(__file__).with_name("warm_host.py")
_open: list["_Server"] = []


class Forked:
    """What `Process` uses of subprocess.Popen."""

    def __init__(self, server: "_Server", pid: int, args: Sequence[str]) -> None:
        self._server, self.pid, self.args = server, pid, args
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit status, or subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(self.args), timeout)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has ended: its number may be another's then."""
        if self.poll() is None:
            os.kill(self.pid, number)


class _Server:
    """The uWSGI, or the Python that can become gunicorn, that waits and forks."""

    def __init__(self, program: str, modules: Sequence[str]) -> None:
        self._lock, self.owner = threading.Lock(), os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="glance-replicas-warm-"))
        self.env = environment()
        more = {"WARM_MODULES": " ".join(modules), "PYTHONWARNINGS": "ignore"}
        # -P: here, `glance` is that of the folder that the script is in.
        command: list[str | Path] = [sys.executable, "-P", _SCRIPT]
        if program == "uwsgi":
            command = [need("uwsgi"), *["--master"] * _WORDS]
            more |= {"LD_PRELOAD": self._library(), "WARM_SCRIPT": str(_SCRIPT), "WARM_PYTHON": sys.executable}
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._popen = subprocess.Popen(
                command, stdin=theirs, stdout=subprocess.DEVNULL, env=self.env | more, start_new_session=True
            )

    def _library(self) -> str:
        library = self._folder / "warm.so"
        source = _SCRIPT.with_name("warm.c")
        compiler = [need("cc"), "-shared", "-fPIC", "-O2", "-Wall", "-o", library, source]
        subprocess.run(compiler, check=True, timeout=60)
        return str(library)

    def ask(self, what: dict[str, Any], *files: int) -> Any:
        """The answer; ConnectionResetError when it has ended."""
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(what).encode()], files)
            answer = self._channel.recv(1 << 16)
        if not answer:
            raise ConnectionResetError("the warm process has ended")
        return json.loads(answer)

    def close(self) -> None:
        """It ends; hosts that run do not."""
        self._channel.close()
        self._popen.wait(20)
        shutil.rmtree(self._folder)


@functools.cache
def _server(_owner: int, program: str, modules: tuple[str, ...]) -> _Server:
    """The one of this process."""
    made = _Server(program, modules)
    _open.append(made)
    return made


@atexit.register
def close() -> None:
    """None of this process waits any more. Twice does no harm."""
    for one in [one for one in _open if one.owner == os.getpid()]:
        _open.remove(one)
        one.close()
    _server.cache_clear()


def popen(
    words: Sequence[str], log: IO[bytes], *, env: dict[str, str], cwd: Path, modules: tuple[str, ...]
) -> Forked | None:
    """The program, started with these words; None where it has to be started as usual."""
    program = Path(words[0]).name
    if program not in ("uwsgi", "gunicorn") or len(words) > _WORDS or shutil.which("cc") is None:
        return None
    server = _server(os.getpid(), program, modules)
    if _loading(env) != _loading(server.env):
        return None
    with contextlib.suppress(OSError):  # it did not come up
        more = {"words": list(words), "env": env, "cwd": str(cwd)}
        return Forked(server, server.ask(more, log.fileno()), words)
    return None


def _loading(env: dict[str, str]) -> dict[str, str]:
    """What a program heeds only when it starts."""
    return {name: value for name, value in env.items() if name.startswith(("LD_", "PYTHON"))}
