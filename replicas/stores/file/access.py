"""Whether the owner of a file store's folder may read a file in it: the rule for a tool that runs as somebody else.

glance-api runs as the user that owns the folder, replica tools often as root, who may read everything. Owner, group and
mode of the file and of each folder above it decide. What they do not decide (access control lists) is not judged.
"""

import contextlib
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

REMEDY = "; as root: "  # what follows it, to the end of the text, is a command


@dataclass(frozen=True)
class Owner:
    """A user as the kernel judges one: number, groups."""

    uid: int
    gid: int
    groups: Collection[int]

    def may(self, facts: os.stat_result, bits: int) -> bool:
        """Whether the mode gives the user these of the bits r (4), w (2), x (1). No word of access control lists."""
        if self.uid == 0:
            return True
        if facts.st_uid == self.uid:
            granted = facts.st_mode >> 6
        elif facts.st_gid in self.groups:
            granted = facts.st_mode >> 3
        else:
            granted = facts.st_mode
        return granted & bits == bits

    def __str__(self) -> str:
        return f"{_name(pwd.getpwuid, self.uid)}:{_name(grp.getgrgid, self.gid)}"


def owner(root: Path) -> Owner:
    """Who owns a store's folder. Raises OSError."""
    facts = os.stat(root)
    groups = {facts.st_gid}
    with contextlib.suppress(KeyError, OSError):
        user = pwd.getpwuid(facts.st_uid)
        groups |= set(os.getgrouplist(user.pw_name, user.pw_gid))
    return Owner(facts.st_uid, facts.st_gid, groups)


def obstacle(root: Path, steps: Sequence[str]) -> str | None:
    """Why the owner of `root` cannot read the file below it, ending in `REMEDY` and a command; None: he can.

    None, too, where that is not for us to tell: the owner is root, or runs this, or there are access control lists.
    """
    with contextlib.suppress(OSError):
        reader = owner(root)
        if reader.uid in (0, os.geteuid()):
            return None
        path = root.joinpath(*steps)
        for parent in reversed(path.parents):
            if _refuses(reader, parent, 1):
                return _text(reader, root, parent, "entered", "u+x" if root in (parent, *parent.parents) else "o+x")
        if _refuses(reader, path, 4):
            return _text(reader, root, path, "read", "u+r")
    return None


def _refuses(reader: Owner, path: Path, bits: int) -> bool:
    """Whether the mode of `path` refuses, and nothing but the mode is asked."""
    return not reader.may(os.lstat(path), bits) and not _has_list(path)


def _has_list(path: Path) -> bool:
    """Whether an access control list has a say: POSIX's, or the ones of NFS and of SMB."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False  # a file system without any
    return any(name.endswith(("posix_acl_access", "nfs4_acl", "cifs_acl", "richacl")) for name in names)


def _text(reader: Owner, root: Path, path: Path, what: str, bits: str) -> str:
    facts, name = os.lstat(path), shlex.quote(str(path))
    is_theirs = facts.st_uid == reader.uid
    shown = f"{_name(pwd.getpwuid, facts.st_uid)}:{_name(grp.getgrgid, facts.st_gid)} {stat.filemode(facts.st_mode)}"
    commands = [f"chmod {bits} {name}"]
    if bits != "o+x" and not is_theirs:
        needed = 4 if what == "read" else 1
        commands = [f"chown {reader} {name}", *([] if facts.st_mode >> 6 & needed else commands)]
    return (
        f"{path} ({shown}) cannot be {what} by {reader}, the owner of {root}, as whom glance-api runs"
        f"{REMEDY}{' && '.join(commands)}"
    )


def _name(ask: Callable[[int], "pwd.struct_passwd | grp.struct_group"], number: int) -> str:
    try:
        return str(ask(number)[0])
    except (KeyError, OSError):
        return str(number)
