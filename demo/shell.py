"""Commands as a person types them: shown, run, their output shown and held against what it should be."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

WIDTH, LINES = 170, 14
T = TypeVar("T")


class Unexpected(Exception):
    """A step did not show what it should; the text names the expectation."""


class Shell:
    """One shell session: a folder, an environment, and everything in the open."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def say(self, text: str) -> None:
        """One line of explanation before a step."""
        print(f"\n# {text}", flush=True)

    def set(self, name: str, value: str) -> None:
        """A variable for the commands that follow."""
        print(f"$ export {name}={value}", flush=True)
        self.environment[name] = value

    def __call__(self, command: str, status: int = 0, lines: int = LINES) -> str:
        """The output of a command that ends with this status. Raises Unexpected."""
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        output = done.stdout.decode(errors="replace").strip()
        show(output, lines)
        if done.returncode:
            print(f"(exit status {done.returncode})", flush=True)
        expect(done.returncode == status, f"exit status {status} of: {command.splitlines()[0]}")
        return output


def show(text: str, lines: int = LINES) -> None:
    """The text, trimmed to what can be read at a glance."""
    rows = text.splitlines()
    for row in rows[:lines]:
        print(row if len(row) <= WIDTH else f"{row[: WIDTH - 3]}...")
    if len(rows) > lines:
        print(f"... and {len(rows) - lines} lines more")


def expect(true: object, what: str) -> None:
    """Nothing, if so. Raises Unexpected."""
    if not true:
        raise Unexpected(what)


def eventually(answer: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """The first answer that is true. Raises Unexpected when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        expect(time.monotonic() < deadline, f"{what}, within {seconds:.0f} s")
        time.sleep(0.1)
    return found
