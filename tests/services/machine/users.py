"""Programs as another user than the one that runs the tests, who must be root."""

import os
import subprocess
import sys
from pathlib import Path

from .. import absent, environment

# What is inside a folder that is closed to others is shown to the command alone, in a mount namespace of its own.
_SCRIPT = """
set -e
closed=$1 inside=$2 spare=$3 uid=$4
shift 4
if [ -n "$closed" ]; then
    mkdir -p "$spare"
    mount --bind "$inside" "$spare"
    mount -t tmpfs -o mode=755 none "$closed"
    mkdir -p "$inside"
    mount --bind "$spare" "$inside"
fi
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"
"""


def as_user(uid: int, folder: Path) -> list[str | Path]:
    """What stands before a command so that it is run by this user, for whom this Python is made reachable."""
    python = Path(sys.base_prefix)
    closed = next((str(one) for one in reversed(python.parents) if not one.stat().st_mode & 0o001), "")
    prefix: list[str | Path] = ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh"]
    prefix += [closed, python, folder / "python", str(uid)]
    if os.geteuid():
        absent("only root can be two users")
    tried = [*prefix, sys.executable, "-c", "import glance_replicas"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False, cwd="/", env=environment())
    if done.returncode:
        absent(f"another user cannot run this Python: {done.stderr[-200:]}")
    return prefix
