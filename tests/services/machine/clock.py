"""A machine whose clock is wrong: a library loaded before libc (`clock.c`)."""

import subprocess
from pathlib import Path

from .. import environment, need

_SOURCE = Path(__file__).with_name("clock.c")


def wrong_clock(folder: Path, ahead_seconds: int) -> dict[str, str]:
    """The environment of a process on a machine whose clock is ahead, or behind, by so much."""
    library = folder / "clock.so"
    if not library.exists():
        command = [need("cc"), "-shared", "-fPIC", "-O2", "-Wall", "-o", library, _SOURCE]
        subprocess.run(command, check=True, timeout=60)
    return environment(LD_PRELOAD=str(library), CLOCK_AHEAD=str(ahead_seconds))
