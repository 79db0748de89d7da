"""What this host's file system knows of a location and its URL does not say."""

import os
from collections.abc import Hashable
from urllib.parse import urlsplit

from glance_replicas import location
from glance_replicas.model import Location


def identity(one: Location) -> Hashable:
    """What identifies the copy behind a location: for a file that can be seen from here device and inode, else its URL.

    So two mounts of one folder, a hard link or a symbolic link are one copy. Two names of one server in http URLs, or
    one file on two hosts' NFS mounts, are beyond what can be told from here.
    """
    if location.scheme(one.url) in ("file", "filesystem"):
        parts = urlsplit(one.url)
        try:
            found = os.stat(parts.netloc + parts.path)
        except (OSError, ValueError):
            return location.place(one)
        return ("file", found.st_dev, found.st_ino)
    return location.place(one)
