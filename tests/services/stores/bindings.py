"""Debian's Python modules of Ceph for the Python of the tests: two files, not all that Debian has installed.

They are no packages on PyPI. Debian builds them for its own Python; another one of the same version can load them.
"""

import contextlib
import os
import sys
import sysconfig
from pathlib import Path

DEBIAN = Path("/usr/lib/python3/dist-packages")
MODULES = ("rados", "rbd")


def expose() -> None:
    """`import rados, rbd` works here and in all programs started from now on, where Debian has them for this Python.

    To be called before anything that imports them if it can, as glance_store's driver does.
    """
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    files = [DEBIAN / f"{name}{suffix}" for name in MODULES]
    folder = Path(sys.prefix) / "ceph"
    if not all(file.exists() for file in files) or str(folder) in sys.path:
        return
    folder.mkdir(exist_ok=True)
    for file in files:
        with contextlib.suppress(FileExistsError):
            (folder / file.name).symlink_to(file)
    sys.path.append(str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(folder)]))
