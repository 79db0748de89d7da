"""The mark in a cache directory that says which host it belongs to, and which machine that is.

    {"host": name, "url": host_url, "machine": identity, "before": [names that this host had]}

Written by that host's janitor, which touches it in each pass. The same URL on the same machine under another name is a
host that was renamed: it takes the directory over at once. Any other host takes it over when the owner has been silent
for long; until then it is a guest there, and registers nothing. Two hosts in one directory would each name files that
the other one removes (a share on /var/lib/glance of every node is a documented way to run Glance).
"""

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..cache import Cache, own_file

_FILE = "owner"
_MACHINE = "/etc/machine-id"
_BOOT = "/proc/sys/kernel/random/boot_id"  # in a container without a machine id: the same until the next start
_MOST = 5  # names kept


@dataclass(frozen=True)
class Mark:
    """Whose a directory is. `age_seconds` since its owner touched it."""

    host: str
    url: str | None
    machine: str
    before: tuple[str, ...] = ()
    age_seconds: float = 0.0

    def is_of(self, other: "Mark") -> bool:
        """Whether the two are one host: of one name, or renamed."""
        return self.host == other.host or (
            self.url is not None and (self.url, self.machine) == (other.url, other.machine) and self.machine != ""
        )

    def names_before(self, own: "Mark") -> tuple[str, ...]:
        """The names that `own` had, by this mark; none when it is another host's."""
        return tuple(name for name in (self.host, *self.before) if name != own.host)[:_MOST] if self.is_of(own) else ()


def machine() -> str:
    """What tells this machine from others; "" where nothing does."""
    for path in (_MACHINE, _BOOT):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text:
            return text
    return ""


def read(cache: Cache) -> Mark | None:
    """The mark of the directory; None: it has none, or one that says nothing. Raises CacheError."""
    found = own_file.read(cache, _FILE)
    if not isinstance(found, dict) or not isinstance(found.get("host"), str):
        return None
    url, before = found.get("url"), found.get("before")
    return Mark(
        found["host"],
        url if isinstance(url, str) else None,
        str(found.get("machine") or ""),
        tuple(map(str, before)) if isinstance(before, list) else (),
        max(0.0, time.time() - _touched_at(cache)),
    )


def claim(cache: Cache, own: Mark, silent_after_seconds: float) -> Mark:
    """The directory is this host's, or stays that of the host whose mark is returned. Raises CacheError.

    To be called under the janitor's lock. Killed in between: the mark is the one before, or the new one.
    """
    there = read(cache)
    if there is not None and not there.is_of(own) and there.age_seconds < silent_after_seconds:
        return there
    wanted = replace(own, before=there.names_before(own) if there is not None else ())
    if there is None or replace(there, age_seconds=0.0) != wanted:
        content = {"host": wanted.host, "url": wanted.url, "machine": wanted.machine, "before": list(wanted.before)}
        own_file.write(cache, _FILE, content)
    else:
        with cache.errors(_FILE):
            os.utime(cache.own(_FILE))
    return wanted


def _touched_at(cache: Cache) -> float:
    with cache.errors(_FILE):
        try:
            return cache.own(_FILE).stat().st_mtime
        except FileNotFoundError:
            return time.time()
