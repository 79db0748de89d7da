"""Reader of http(s) URLs: per-host locations of our own, and images that were registered by their URL."""

import base64
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import Unsupported
from ..location import redact
from .body import Body, Limits
from .wire import Target, Wire


class Reader:
    """Reads http and https with the system's certificate authorities; proxies of the environment are not used.

    `signer` makes the URL that goes out of the URL as stored; only the stored one, redacted, is ever shown. User and
    password in a URL become basic authorisation for that host alone. `headers` go with every request.
    """

    schemes = ("http", "https")
    store = None

    def __init__(
        self,
        limits: Limits | None = None,
        signer: Callable[[str], str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._wire = Wire(limits or Limits())
        self._signer = signer
        self._headers = headers or {}

    def size(self, url: str) -> int | None:
        """What HEAD says, in bytes; None for an answer without a length."""
        return self._wire.size(self._target(url))

    def open(self, url: str, offset: int = 0) -> Body:
        """The bytes from `offset` on. Redirects, encoded bodies and other ranges than asked for raise WrongAnswer."""
        return self._wire.open(self._target(url), offset)

    def _target(self, url: str) -> Target:
        shown = redact(url)
        try:
            parts = urlsplit(self._signer(url) if self._signer else url)
            userinfo, at, place = parts.netloc.rpartition("@")
            if parts.scheme.lower() not in self.schemes or not parts.hostname:
                raise ValueError("not http")
        except ValueError as error:
            raise Unsupported(f"{shown}: not an http URL") from error
        headers = {**self._headers, **({"Authorization": _basic(userinfo)} if at else {})}
        return Target(urlunsplit((parts.scheme, place, parts.path or "/", parts.query, "")), shown, headers)


def _basic(userinfo: str) -> str:
    """RFC 7617."""
    user, _, password = userinfo.partition(":")
    return "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
