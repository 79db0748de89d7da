"""Values out of JSON that nobody vouches for: each is what it has to be, or ConfigError says which is not."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..location import scheme

MAX_BYTES = 4 << 20  # of JSON; a thousand replicas with long URLs are half of it
MAX_TEXT = 8192  # characters of one value


def load(text: str | bytes) -> Any:
    """The value of JSON text of bounded size. Raises ConfigError."""
    if len(text) > MAX_BYTES:
        raise unusable(f"it is larger than {MAX_BYTES} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unusable(f"it is not JSON ({str(error)[:100]})") from error


def url_in(entry: Mapping[str, Any], where: str) -> str:
    """Its `url`, which has a scheme and can be taken apart. Raises ConfigError, as all of these."""
    url = text_in(entry, "url", where) or ""
    try:
        usable = " " not in url and bool(scheme(url)) and urlsplit(url) is not None
    except ValueError:  # urlsplit: brackets that hold no IPv6 address
        usable = False
    if not usable:
        raise unusable(f"{where}.url is no URL")
    return url


def text_in(entry: Mapping[str, Any], name: str, where: str) -> str | None:
    """A value that may be shown on a terminal; only an image's own name may hold anything."""
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT or not (value.isprintable() or name == "name"):
        raise unusable(f"{where}.{name}".lstrip(".") + f" is no printable text of at most {MAX_TEXT} characters")
    return value


def whole_in(entry: Mapping[str, Any], name: str, where: str, what: str) -> int | None:
    """A number that is not negative and fits into 63 bits."""
    value = entry.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63):
        raise unusable(f"{where}.{name}".lstrip(".") + f" is no {what}")
    return value


def seconds_in(entry: Mapping[str, Any], name: str, where: str) -> float | None:
    """A number that is one, and no longer than the age of anything."""
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e15:  # NaN is not less
        raise unusable(f"{where}.{name} is no number of seconds")
    return float(value)


def unusable(what: str) -> ConfigError:
    """What to raise of such a document."""
    return ConfigError(f"the replicas document cannot be used: {what}")
