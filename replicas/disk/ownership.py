"""Whose the files are that a program run as root makes: those of the user that runs Glance, who has to open them later.

That user is the owner of the cache directory; where that is root (and its group may write there), the owner of what is
in it. A folder that is root's altogether is used by root.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple


class User(NamedTuple):
    """A user by number, with the first of its groups."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """As the system calls it, or the number."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def groups(self) -> Collection[int]:
        """All of its groups."""
        if self.uid == os.geteuid():
            return {os.getegid(), *os.getgroups()}
        return {self.gid, *(group.gr_gid for group in grp.getgrall() if self.name in group.gr_mem)}


ROOT = User(0, 0)


def current() -> User | None:
    """Who runs this; None: root, who opens everything and says nothing of who else may."""
    return User(os.geteuid(), os.getegid()) if os.geteuid() else None


def user_of(folder: Path, *inside: str) -> User | None:
    """Whose a folder is; None when that is root, for all of it. Raises OSError."""
    for path in (folder, *(folder / name for name in inside)):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        if facts.st_uid:
            return User(facts.st_uid, facts.st_gid)
    return None


def give(path: Path | int, folder: Path) -> None:
    """What root has just made in a folder belongs to the folder's owner. Raises OSError.

    Killed before it: a file of root's, which the next pass that runs as root gives away.
    """
    if os.geteuid() == 0 and (user := user_of(folder)) is not None:
        os.chown(path, user.uid, user.gid, follow_symlinks=isinstance(path, int))


def give_all(paths: Iterable[Path], user: User) -> int:
    """How many of these files and folders were root's, and are the user's now. Raises OSError."""
    given = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid == 0:
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
                given += 1
    return given


def may_read(facts: os.stat_result, user: User, groups: Collection[int]) -> bool:
    """Whether the mode lets the user read what these are the facts of."""
    if user.uid == 0:
        return True
    if facts.st_uid == user.uid:
        return bool(facts.st_mode & stat.S_IRUSR)
    return bool(facts.st_mode & (stat.S_IRGRP if facts.st_gid in groups else stat.S_IROTH))
