"""One server process with its group: started in a session of its own, ended as a whole, never by name."""

import atexit
import contextlib
import functools
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import environment, eventually, need
from .glance import warm


@functools.cache
def _reaper(owner: int) -> "subprocess.Popen[bytes]":
    """The one reaper of the process `owner`; a fork gets its own."""
    script = Path(__file__).with_name("reaper.py")
    command = [sys.executable, "-S", "-E", str(script)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _tell_reaper(sign: str, group: int) -> None:
    pipe = _reaper(os.getpid()).stdin
    assert pipe is not None
    pipe.write(f"{sign}{group}\n".encode())
    pipe.flush()


def end_reaper() -> None:
    """Close the reaper's input, so that it ends what is still running, and wait for it. Twice does no harm."""
    if _reaper.cache_info().currsize:
        _reaper(os.getpid()).communicate(timeout=20)
        _reaper.cache_clear()


atexit.register(end_reaper)


class Process:
    """A server, its log file and the group of processes under it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        user: str | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        imported: tuple[str, ...] = (),
    ) -> None:
        """With what is `imported` uWSGI starts quickly (`warm`)."""
        self.log_path, self.stop_signal = log, stop_signal
        words, env = [str(part) for part in [*as_user(user), *command]], env or environment()
        with log.open("ab") as output:
            quick = warm.popen(words, output, env=env, cwd=cwd or Path.cwd(), modules=imported) if imported else None
            self._popen: warm.Forked | subprocess.Popen[bytes] = quick or subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        self.pid, self._ended = self._popen.pid, False
        _tell_reaper("+", self.pid)

    def log(self) -> str:
        """What the server has written so far."""
        return self.log_path.read_text(errors="replace")

    def running(self) -> bool:
        """Whether the leader of the group still runs."""
        return self._popen.poll() is None

    def children(self) -> list[int]:
        """Processes that the leader started and that still run."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(word) for word in text.split()]
        return []

    def wait(self, ready: Callable[[], bool], timeout: float = 60.0) -> None:
        """Return when `ready()`; RuntimeError with the end of the log when the server ends or takes too long."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running() or time.monotonic() > deadline:
                state = "is not ready" if self.running() else f"ended with status {self._popen.returncode}"
                self.kill()
                raise RuntimeError(f"{self._popen.args} {state}; the end of its log:\n{self.log()[-4000:]}")
            time.sleep(0.02)

    def stop(self, timeout: float = 10.0) -> None:
        """Ask the leader to end; after `timeout` seconds, and for whatever it left behind, SIGKILL."""
        if self.running():
            self._popen.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group; nothing of it runs, or holds a port, afterwards."""
        if self._ended:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(10)
        eventually(lambda: not members(self.pid), timeout=10)
        self._ended = True
        _tell_reaper("-", self.pid)


def members(group: int) -> list[int]:
    """The processes of a group that run; zombies do not."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def as_user(user: str | None) -> list[str | Path]:
    """The words before a command that root runs as another user."""
    if user is None or os.geteuid() != 0:
        return []
    return [need("setpriv"), f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", "--"]


def run(command: Sequence[str | Path], *, user: str | None = None, stdin: str = "", cwd: Path | None = None) -> str:
    """Standard output of a program that has to succeed; RuntimeError with its output when it does not."""
    words = [str(part) for part in [*as_user(user), *command]]
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, env=environment(), cwd=cwd, timeout=120, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{words} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
