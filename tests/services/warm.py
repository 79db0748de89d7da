"""uWSGI for a host without paying for its imports each time: a fork of one that has them (`warm.c`).

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

from . import environment, need

_WORDS = 100  # as many as a host may have
_FOLDER = Path(__file__).parent
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
    """The uWSGI that waits and forks."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._lock, self.owner = threading.Lock(), os.getpid()
        self._folder = Path(tempfile.mkdtemp(prefix="glance-replicas-warm-"))
        library = self._folder / "warm.so"
        compiler = [need("cc"), "-shared", "-fPIC", "-O2", "-Wall", "-o", library, _FOLDER / "warm.c"]
        subprocess.run(compiler, check=True, timeout=60)
        self.env = environment()
        more = {"LD_PRELOAD": str(library), "WARM_SCRIPT": str(_FOLDER / "warm_uwsgi.py")}
        more |= {"WARM_PYTHON": sys.executable, "WARM_MODULES": " ".join(modules), "PYTHONWARNINGS": "ignore"}
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [need("uwsgi"), *["--master"] * _WORDS]
            self._popen = subprocess.Popen(
                command, stdin=theirs, stdout=subprocess.DEVNULL, env=self.env | more, start_new_session=True
            )

    def ask(self, what: dict[str, Any], *files: int) -> Any:
        """The answer; ConnectionResetError when it has ended."""
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(what).encode()], files)
            answer = self._channel.recv(1 << 16)
        if not answer:
            raise ConnectionResetError("the warm uWSGI has ended")
        return json.loads(answer)

    def close(self) -> None:
        """It ends; hosts that run do not."""
        self._channel.close()
        self._popen.wait(20)
        shutil.rmtree(self._folder)


@functools.cache
def _server(_owner: int, modules: tuple[str, ...]) -> _Server:
    """The one of this process."""
    made = _Server(modules)
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
    """uWSGI, started with these words; None where it has to be started as usual."""
    if words[0] != str(need("uwsgi")) or len(words) > _WORDS or shutil.which("cc") is None:
        return None
    server = _server(os.getpid(), modules)
    if _loading(env) != _loading(server.env):
        return None
    with contextlib.suppress(OSError):  # it did not come up
        more = {"words": list(words), "env": env, "cwd": str(cwd)}
        return Forked(server, server.ask(more, log.fileno()), words)
    return None


def _loading(env: dict[str, str]) -> dict[str, str]:
    """What a program heeds only when it starts."""
    return {name: value for name, value in env.items() if name.startswith(("LD_", "PYTHON"))}
