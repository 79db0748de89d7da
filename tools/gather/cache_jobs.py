"""Finds what runs Glance's cache programs on this machine: cron tables and units of systemd. Reads only."""

import re
from collections.abc import Iterator
from pathlib import Path

from glance_replicas.check import CacheProgram

_TABLES = ("etc/crontab", "etc/cron.d", *(f"etc/cron.{each}" for each in ("hourly", "daily", "weekly", "monthly")))
_USERS = ("var/spool/cron", "var/spool/cron/crontabs")
_UNITS = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system", "run/systemd/system")
_PROGRAM = re.compile(r"glance-cache-(?:pruner|cleaner|prefetcher)\b")
_MOST_BYTES = 1 << 20  # of one file


def find(root: Path = Path("/")) -> tuple[tuple[CacheProgram, ...], tuple[str, ...]]:
    """Every job that names one of the programs outside a comment, and the places that may not be read."""
    jobs: dict[CacheProgram, None] = {}
    unread: list[str] = []
    seen: set[tuple[int, int]] = set()  # one folder under two names counts once
    for path in _files(root, unread):
        try:
            facts = path.stat()
            if (facts.st_dev, facts.st_ino) in seen or not path.is_file():
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with path.open(errors="replace") as text:
                lines = text.read(_MOST_BYTES).splitlines()
        except FileNotFoundError:
            continue
        except OSError:
            unread.append(str(path))
            continue
        for line in lines:
            if not line.lstrip().startswith(("#", ";")):
                jobs |= dict.fromkeys(CacheProgram(name, str(path)) for name in _PROGRAM.findall(line))
    return tuple(jobs), tuple(unread)


def _files(root: Path, unread: list[str]) -> Iterator[Path]:
    for name in (*_TABLES, *_USERS):
        place = root / name
        yield from [place] if place.is_file() else _inside(place, unread)
    for name in _UNITS:
        yield from (path for path in _inside(root / name, unread) if path.suffix in (".service", ".timer"))


def _inside(folder: Path, unread: list[str]) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        unread.append(str(folder))
        return []
