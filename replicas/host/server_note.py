"""What the server of this host was started with, written down by its processes for programs, which cannot ask it.

.glance-replicas/server    JSON: options of uWSGI that end a process (`check.server`), with their values
"""

from collections.abc import Mapping

from ..cache import Cache, own_file
from ..cache.host_lock import HostLock

_NAME, _LOCK = "server", "server-lock"


def write(cache: Cache, endings: Mapping[str, str]) -> None:
    """The next `read` gives these. Of processes that start together one writes. Raises CacheError.

    Killed here leaves what the server was started with before.
    """
    lock = HostLock(cache, _LOCK)
    if lock.take():
        try:
            own_file.write(cache, _NAME, dict(endings))
        finally:
            lock.free()


def read(cache: Cache) -> tuple[tuple[str, str], ...]:
    """Options and values, as they were at the last start; none: not known, or none. Raises CacheError."""
    found = own_file.read(cache, _NAME)
    return tuple(sorted((str(name), str(value)) for name, value in found.items())) if isinstance(found, dict) else ()
