"""Location URLs as plain data: kinds, redaction, our own per-host form."""

import hashlib
import posixpath
import re
from collections.abc import Hashable
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from .model import Location, is_image_id

# What `redact` and `place` leave as it is: nearly every URL, and taking one apart costs ten times as much.
_PLAIN = re.compile(
    r"(?:https?://[a-z0-9._-]+(?::\d{1,5})?|file://)(?:/[!\"$-.0->@-~]+)+"  # a "@" here is of the path
    r"|(?!s3\+)[a-z][a-z0-9+.-]*://[a-z0-9.:_-]+(?:/[!\"$-.0->A-~]+)+"
)
_SPELLED = re.compile(r"%|/\.|:(?:80|443)(?:/|$)")  # what may be another spelling of a plain one
_SERVER = re.compile(r"(?:[\w.~-]+|\[[0-9a-f:.%]+\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_IN_TEXT = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s@]*@\S*")
_IN_QUERY = re.compile(r"([?&](?:[\w-]*sig(?:nature)?|[\w-]*credential|[\w-]*token|[\w-]*password)=)[^&\s'\"]+", re.I)
_SHOWN_QUERY = re.compile(r"\.\.\.(?:[0-9a-f]{8})?")
_PORTS = {"http": ":80", "https": ":443"}
_QUERIED = ("http", "https", "vsphere")  # whose objects may be named by a query
# Parameters that let somebody in and name no object: the marks that must all be there, and what may come with them.
_SIGNATURES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"kid", "expires", "sig"}), frozenset()),  # our own
    (
        frozenset({"X-Amz-Signature"}),
        frozenset(f"X-Amz-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders"))
        | {"X-Amz-Security-Token"},
    ),
    (
        frozenset({"X-Goog-Signature"}),
        frozenset(f"X-Goog-{name}" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders")),
    ),
    (frozenset({"Expires", "Signature"}), frozenset({"AWSAccessKeyId", "GoogleAccessId"})),
    (frozenset({"temp_url_sig", "temp_url_expires"}), frozenset({"temp_url_ip_range"})),  # Swift
    (frozenset({"sig", "sv"}), frozenset({"ss", "srt", "sp", "se", "st", "spr", "sr"})),  # Azure
)
_REPLICA_PATH = re.compile(r"/replicas/([0-9a-fA-F-]{36})")


def scheme(url: str) -> str:
    """The lower-case scheme, or "" when there is none."""
    head, colon, _ = url.partition(":")
    return head.lower() if colon and head.replace("+", "").replace("-", "").replace(".", "").isalnum() else ""


def is_web(url: str) -> bool:
    """Whether a web server answers for it: whatever it sends may be another page, with status 200."""
    return scheme(url) in _PORTS


def redact(url: str) -> str:
    """The URL without user, password, query and fragment: fit for logs and reports, and of one line.

    Swift URLs hold passwords, S3 URLs held secret keys, ours hold signatures, others may hold either in any place. Of a
    query that names the object eight digits stay, which tell it from others. What is redacted stays as it is.
    """
    if _PLAIN.fullmatch(url):
        return url
    try:
        parts = urlsplit(_without_credentials(url))
    except ValueError:
        return f"{scheme(url)}://(unparsable)"
    path = parts.path if parts.netloc else re.sub("^//+", "/", parts.path)  # or it would read as a host
    made = urlunsplit((parts.scheme, parts.netloc, path, _redacted(parts.query, parts.scheme), ""))
    return made if made.isprintable() else "".join(map(_printable, made))


def redact_text(text: str) -> str:
    """A text of whatever origin with the credentials and signatures of the URLs in it left out."""
    return _IN_QUERY.sub(r"\1...", _IN_TEXT.sub(lambda match: _without_credentials(match[0]), text))


def _without_credentials(url: str) -> str:
    """The URL without all that stands before its server.

    A secret may have a slash, which neither S3's URLs nor Swift's quote, so that the standard's idea of an authority
    ends within it: the last "@" ends the credentials, as in Glance's `_update_s3_location_credentials`. Only a web URL
    that begins with a server, and a file's path, may have one further on.
    """
    head, slashes, rest = url.partition("://")
    if not slashes:
        head, slashes, rest = url.partition(":")
    if "@" not in rest:
        return url
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    server = authority.rpartition("@")[2]
    name = scheme(url)
    if name in _PORTS and _SERVER.fullmatch(server):
        return head + slashes + server + rest[len(authority) :]
    if name in ("file", "filesystem") and not authority:
        return url
    return head + slashes + rest.rpartition("@")[2]


def _printable(character: str) -> str:
    return character if character.isprintable() else quote(character, errors="surrogatepass")


def _redacted(query: str, name: str) -> str:
    """What is shown of a query: nothing it says, but whether two say the same, where that names the object."""
    if not query or _SHOWN_QUERY.fullmatch(query):
        return query
    naming = _naming(query) if name in _QUERIED else ""
    return "..." + (hashlib.sha256(naming.encode("utf-8", "surrogatepass")).hexdigest()[:8] if naming else "")


def _naming(query: str) -> str:
    """The parameters without those of a signature: what is signed anew is the same object."""
    parts = query.split("&")
    names = {part.partition("=")[0] for part in parts}
    signing = {name for mark, others in _SIGNATURES for name in mark | others if mark <= names}
    return "&".join(part for part in parts if part.partition("=")[0] not in signing)


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
    """Whether a row has the form of a registration of some host of ours (any name, any URL)."""
    return location.host is not None


def kind(location: Location) -> str:
    """`cached` for a copy on a host, else the scheme of the store (`file`, `swift`, `rbd`, ...)."""
    return "cached" if location.is_cached else (scheme(location.url) or "unknown")


def place(location: Location) -> str:
    """What identifies a copy, as far as its URL tells: the URL without credentials, normalised.

    The three schemes of S3 are one: the store's options say how it is asked.
    """
    return where(location.url)


def where(url: str) -> str:
    """What a URL says of a place: the URL without credentials and signatures, in one spelling; the same if redacted."""
    if _PLAIN.fullmatch(url) and not _SPELLED.search(url):
        return url
    parts = urlsplit(redact(url))
    family = "s3" if parts.scheme.startswith("s3+") else parts.scheme
    netloc = parts.netloc.lower().removesuffix(_PORTS.get(family, "/"))
    query = parts.query.removeprefix("...") if family in _QUERIED else ""
    return f"{family}://{netloc}{_normal(parts.path)}" + (f"?{query}" if query else "")


def object_of(place: Hashable) -> Hashable:
    """The place without what its query says: a web server may ignore that, so that several places are one copy."""
    is_web = isinstance(place, str) and scheme(place) in _PORTS
    return place.partition("?")[0] if is_web and isinstance(place, str) else place


def _normal(path: str) -> str:
    """One spelling of a path. Where a store tells two spellings apart, two copies count as one, which is no danger."""
    return re.sub("^//+", "/", posixpath.normpath(unquote(path))) if path else ""


def described(location: Location) -> str:
    """A location in words: the host of a cached copy or the store, and the URL."""
    owner = (
        f"cached on {location.host}"
        if location.host
        else f"in store {location.store}"
        if location.store
        else "in the store"
    )
    return f"{owner} at {redact(location.url)}"
