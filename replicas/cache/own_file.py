"""Small files of our own in a host's directory (`Cache.own`): read whole, written whole."""

import json
import os
from typing import Any

from .directory import Directory


def read(directory: Directory, name: str) -> Any:
    """What JSON it holds; None: there is none, or it is none. Raises CacheError when it cannot be read."""
    with directory.errors(name):
        try:
            return json.loads(directory.own(name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None


def write(directory: Directory, name: str, content: object) -> None:
    """The file is this, on disk. Killed in between: it is what it was. Raises CacheError."""
    path = directory.own(name)
    new = path.with_name(f"{name}.new")
    with directory.errors(name):
        with open(directory.open_own(new.name, os.O_TRUNC), "wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
