"""A disk that fails on demand, and tells what was done to it: a library loaded before libc (`disk.c`).

It serves the processes started with its environment; they may change the fault themselves.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .. import environment, need

_SOURCE = Path(__file__).with_name("disk.c")


@dataclass(frozen=True)
class Call:
    """One call that went well."""

    name: str  # write, truncate, sync, mode, attribute, rename, unlink
    inode: int
    first: int  # offset, new length or mode; of an attribute: whether it says what was read
    length: int
    path: str  # as the file was called then
    target: str = ""


class Disk:
    """`folder` holds the library, the fault and the record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._library, self._fault, self._record = folder / "disk.so", folder / "fault", folder / "record"

    def build(self) -> None:
        """The library is there."""
        self._library.parent.mkdir(parents=True, exist_ok=True)
        command = [need("cc"), "-shared", "-fPIC", "-O2", "-Wall", "-o", self._library, _SOURCE, "-ldl"]
        subprocess.run(command, check=True, timeout=60)

    def environment(self) -> dict[str, str]:
        """The environment of a process on this disk."""
        faults = {"DISK_FAULT": str(self._fault), "DISK_RECORD": str(self._record)}
        return environment(LD_PRELOAD=str(self._library), **faults)

    def fail(self, call: str, part: str, number: int, *, skip: int = 0, times: int = -1) -> None:
        """Calls on paths that contain `part` fail with this errno, for ever or so many times.

        Also `read`, which is one at an offset, `stream`, which is one without, and `send`, from a file to a connection.
        """
        whole = self._fault.with_suffix(".new")
        whole.write_text(f"{call} {part} {number} {skip} {times}")
        os.replace(whole, self._fault)

    def heal(self) -> None:
        """Nothing fails."""
        self._fault.unlink(missing_ok=True)

    def calls(self) -> list[Call]:
        """What was done, in order."""
        lines = [line.split(" ") for line in self._record.read_text().splitlines()]
        return [Call(one[0], int(one[1]), int(one[2]), int(one[3]), one[4], one[5]) for one in lines]
