"""Reader of http(s) URLs: per-host locations of our own, and images that were registered by their URL."""

import base64
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

from ...errors import Unsupported
from ...location import redact
from ...model import Location
from ..body import Body, Limits
from .answers import Target
from .wire import Tls, Wire

Sign = Callable[[Location], str]


class Reader:
    """Reads http and https; proxies of the environment are not used. No URL is signed: users write such locations.

    User and password in a URL become basic authorisation for that host alone.
    """

    schemes = ("http", "https")
    store = None

    def __init__(self, limits: Limits | None = None, tls: Tls | None = None) -> None:
        self._wire = _wire(limits, tls)

    def size(self, url: str) -> int | None:
        """What HEAD says, in bytes; None for an answer without a length."""
        return self._wire.size(_target(url, url, {}))

    def open(self, url: str, offset: int = 0, stop: int | None = None) -> Body:
        """The bytes from `offset` on. Redirects, encoded bodies and other ranges than asked for raise WrongAnswer."""
        return self._wire.open(_target(url, url, {}), offset, stop)


class Peers:
    """Reads copies on other hosts. `sign` makes the URL that goes out of a copy that is really theirs.

    Only the URL as stored, redacted, is ever shown. `headers` go with every request.
    """

    schemes = ("http", "https")

    def __init__(
        self,
        limits: Limits | None = None,
        sign: Sign | None = None,
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._wire = _wire(limits, tls)
        self._sign = sign or _unsigned
        self._headers = headers or {}

    def size(self, location: Location) -> int | None:
        """As `Reader.size`."""
        return self._wire.size(_target(self._sign(location), location.url, self._headers))

    def open(self, location: Location, offset: int = 0, stop: int | None = None) -> Body:
        """As `Reader.open`."""
        return self._wire.open(_target(self._sign(location), location.url, self._headers), offset, stop)


def _wire(limits: Limits | None, tls: Tls | None) -> Wire:
    believed = tls or Tls()
    return Wire(limits or Limits(), ca_file=believed.ca_file, insecure=believed.insecure)


def _unsigned(location: Location) -> str:
    return location.url


def _target(url: str, stored: str, headers: Mapping[str, str]) -> Target:
    """Where `url` goes, under the name of the `stored` one."""
    shown = redact(stored)
    try:
        parts = urlsplit(url)
        userinfo, at, place = parts.netloc.rpartition("@")
        if parts.scheme.lower() not in Reader.schemes or not parts.hostname:
            raise ValueError("not http")
    except ValueError as error:
        raise Unsupported(f"{shown}: not an http URL") from error
    sent = {**headers, **({"Authorization": _basic(userinfo)} if at else {})}
    return Target(urlunsplit((parts.scheme, place, parts.path or "/", parts.query, "")), shown, sent)


def _basic(userinfo: str) -> str:
    """RFC 7617."""
    user, _, password = userinfo.partition(":")
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
