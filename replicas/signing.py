"""Signed per-host URLs: HMAC-SHA256 over method, URL and expiry, in the manner of Swift's TempURL.

The URL begins with the host's own base URL, as it reports that to the ledger, so that a signature opens nothing at any
other host. A GET signature also allows HEAD. Two keys may be valid at once, so that they can be rotated: the first
signs, all verify. A key is written `id:secret`; the id travels in the URL, the secret never does.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from .errors import ConfigError
from .location import is_replica_of
from .model import Host, Location

MAX_LIFETIME = 7 * 86400  # seconds; a signature further in the future than this is refused
_PARAMETERS = ("kid", "expires", "sig")


@dataclass(frozen=True)
class Key:
    """One signing key."""

    id: str
    secret: bytes = field(repr=False)


class Signs(Protocol):
    """With what a host signs, and for how long; `Settings` says it."""

    @property
    def signing_keys(self) -> Sequence[Key]:
        """The first signs."""

    @property
    def signature_lifetime_seconds(self) -> int:
        """How long a signed URL is good for."""


def parse_keys(texts: Sequence[str]) -> tuple[Key, ...]:
    """Keys from `id:secret` texts. Raises ConfigError for a malformed one, without showing the secret."""
    keys = []
    for number, text in enumerate(texts, 1):
        key_id, colon, secret = text.strip().partition(":")
        if not colon or not key_id.isalnum() or len(secret) < 16:
            raise ConfigError(
                f"[replicas] signing_keys: entry {number} is not ID:SECRET with a plain id and a secret of at "
                "least 16 characters; make one with: echo k1:$(openssl rand -hex 32)"
            )
        keys.append(Key(key_id, secret.encode()))
    if len({key.id for key in keys}) != len(keys):
        raise ConfigError("[replicas] signing_keys: two keys have the same id")
    return tuple(keys)


def sign(url: str, keys: Sequence[Key], lifetime: int, *, method: str = "GET", now: float | None = None) -> str:
    """`url` with `kid`, `expires` and `sig`; unchanged when there is no key. `lifetime` in seconds."""
    if not keys:
        return url
    parts = urlsplit(url)
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    expires = int((time.time() if now is None else now) + lifetime)
    return f"{plain}?{urlencode({'kid': keys[0].id, 'expires': expires, 'sig': _mac(keys[0], method, plain, expires)})}"


def sign_copy(copy: Location, hosts: Mapping[str, Host], signs: Signs) -> str:
    """The URL of an image's cached copy, signed if it is exactly what one of these hosts serves of that very image.

    Any other URL is unchanged: users write locations, and a signature for another image's path would open that one.
    `hosts` by name.
    """
    host = hosts.get(copy.host or "")
    if host is None or not is_replica_of(copy, host.name, host.url):
        return copy.url
    return sign(copy.url, signs.signing_keys, signs.signature_lifetime_seconds)


def unsign(url: str) -> str:
    """The URL as stored: without our three parameters (and without any other, stored URLs have none)."""
    parts = urlsplit(url)
    if set(_PARAMETERS) <= parse_qs(parts.query, keep_blank_values=True).keys():  # as `verify` is given them
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return url


def verify(
    method: str, url: str, query: Mapping[str, Sequence[str]], keys: Sequence[Key], now: float | None = None
) -> bool:
    """Whether the three parameters, each given exactly once, sign this method and URL and are in date.

    `url` is without its query, below the host's own base URL: what a proxy makes of the path is not signed. `query`
    maps names to all their values. The comparison takes constant time.
    """
    values = {name: query.get(name, ()) for name in _PARAMETERS}
    if any(len(found) != 1 for found in values.values()):
        return False
    expires_text = values["expires"][0]
    if not (expires_text.isascii() and expires_text.isdigit() and len(expires_text) <= 12):
        return False
    expires, moment = int(expires_text), time.time() if now is None else now
    key = next((known for known in keys if known.id == values["kid"][0]), None)
    if key is None or not moment < expires <= moment + MAX_LIFETIME:
        return False
    signed_method = "GET" if method == "HEAD" else method
    given = values["sig"][0].encode("utf-8", "replace")
    return hmac.compare_digest(_mac(key, signed_method, url, expires).encode(), given)


def _mac(key: Key, method: str, url: str, expires: int) -> str:
    # What is asked may hold a lone surrogate: it has bytes of its own, so that no other text's signature fits it.
    text = f"{method}\n{url}\n{expires}".encode("utf-8", "surrogatepass")
    return hmac.new(key.secret, text, hashlib.sha256).hexdigest()
