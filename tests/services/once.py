"""What takes long to make and is the same for everybody: made by the first process of a test run that needs it."""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_FOLDER = "GLANCE_REPLICAS_TEST_RUN"  # in the environment: all processes of a run share this folder


def begin() -> bool:
    """A run begins, unless this process belongs to one; True if it did, so that who began it calls `end`."""
    if _FOLDER in os.environ:
        return False
    os.environ[_FOLDER] = str(new_folder("run", memory=True))
    return True


def end() -> None:
    """Nothing of it is left."""
    shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` has filled. One that failed half-way is made anew by the next."""
    if begin():
        atexit.register(end)
    folder = Path(os.environ[_FOLDER])
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, making = folder / name, folder / f"{name}.making"
        if not made.exists():
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            make(making)
            making.rename(made)
    return made


def new_folder(name: str, memory: bool) -> Path:
    """An empty folder with a short path that other users may enter. In memory, where that is asked for and has room."""
    shared = Path("/dev/shm")
    roomy = memory and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 4 << 30
    folder = Path(tempfile.mkdtemp(prefix=f"glance-replicas-{name}-", dir=shared if roomy else None))
    folder.chmod(0o755)
    return folder
