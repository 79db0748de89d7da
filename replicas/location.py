"""Location URLs as plain data: kinds, redaction, our own per-host form."""

import posixpath
import re
from urllib.parse import unquote, urlsplit, urlunsplit

from .model import Location, is_image_id

# What `redact` and `place` leave as it is: nearly every URL, and taking one apart costs ten times as much.
_PLAIN = re.compile(r"(?!s3\+)(?:[a-z][a-z0-9+.-]*://[a-z0-9.:_-]+|file://)(?:/[!\"$-.0->@-~]+)+")
_SPELLED = re.compile(r"%|/\.|:(?:80|443)(?:/|$)")  # what may be another spelling of a plain one
_PORTS = {"http": ":80", "https": ":443"}
_REPLICA_PATH = re.compile(r"/replicas/([0-9a-fA-F-]{36})")


def scheme(url: str) -> str:
    """The lower-case scheme, or "" when there is none."""
    head, colon, _ = url.partition(":")
    return head.lower() if colon and head.replace("+", "").replace("-", "").replace(".", "").isalnum() else ""


def redact(url: str) -> str:
    """The URL without user, password, query and fragment: fit for logs and reports.

    Swift URLs hold passwords, ours hold signatures, others may hold either in any place.
    """
    if _PLAIN.fullmatch(url):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme(url)}://(unparsable)"
    netloc = parts.netloc.rpartition("@")[2]
    query = "..." if parts.query else ""
    path = parts.path if netloc else re.sub("^//+", "/", parts.path)  # or it would read as a host
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def replica_url(host_url: str, image_id: str) -> str:
    """The per-host URL of a cached copy, as stored in the catalogue (never signed)."""
    return f"{host_url.rstrip('/')}/replicas/{image_id}"


def replica_path(path: str) -> str | None:
    """The image id of a `/replicas/{image_id}` path; None for anything else, however it is spelled."""
    match = _REPLICA_PATH.fullmatch(path)
    return match.group(1) if match and is_image_id(match.group(1)) else None


def is_replica_of(location: Location, host_name: str, host_url: str) -> bool:
    """Whether a row is this host's own registration: its name and its URL, both."""
    return location.host == host_name and location.url == replica_url(host_url, location.image_id)


def is_ours(location: Location) -> bool:
    """Whether a row has the form of a registration of some host of ours (any name, any URL).

    Users may write metadata of their own, so the URL must say the same as the metadata.
    """
    return location.is_cached and has_replica_path(location)


def is_volatile(location: Location) -> bool:
    """Whether the copy is on a host: by its metadata, or by its URL when a user registered that by hand."""
    return location.is_cached or has_replica_path(location)


def has_replica_path(location: Location) -> bool:
    """Whether the URL is that of a copy on a host, any host, whatever the metadata say."""
    if scheme(location.url) not in ("http", "https"):
        return False
    return urlsplit(where(location.url)).path.endswith(f"/replicas/{location.image_id}")


def kind(location: Location) -> str:
    """`cached` for a copy on a host, else the scheme of the store (`file`, `swift`, `rbd`, ...)."""
    return "cached" if location.is_cached else (scheme(location.url) or "unknown")


def place(location: Location) -> str:
    """What identifies a copy, as far as its URL tells: the URL without credentials, normalised.

    The three schemes of S3 are one: the store's options say how it is asked.
    """
    return where(location.url)


def where(url: str) -> str:
    """What a URL says of a place: the URL without credentials, in one spelling."""
    if _PLAIN.fullmatch(url) and not _SPELLED.search(url):
        return url
    parts = urlsplit(redact(url))
    family = "s3" if parts.scheme.startswith("s3+") else parts.scheme
    netloc = parts.netloc.lower().removesuffix(_PORTS.get(family, "/"))
    return f"{family}://{netloc}{_normal(parts.path)}"


def _normal(path: str) -> str:
    """One spelling of a path. Where a store tells two spellings apart, two copies count as one, which is no danger."""
    return re.sub("^//+", "/", posixpath.normpath(unquote(path))) if path else ""
