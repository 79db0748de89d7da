"""URLs that need no taking apart are left as they are, exactly where taking them apart would leave them so."""

import re
from urllib.parse import urlsplit, urlunsplit

from hypothesis import given
from hypothesis import strategies as st

from glance_replicas import location
from glance_replicas.model import Location


@given(st.from_regex(location._PLAIN, fullmatch=True))
def test_plain_urls_are_their_own_place(url: str) -> None:
    """What the short way lets through has no secret and is spelled as the long way would spell it."""
    parts = urlsplit(url)
    assert "@" not in parts.netloc
    assert parts.query == parts.fragment == ""
    assert urlunsplit((parts.scheme, parts.netloc.lower(), re.sub(r"/{2,}", "/", parts.path), "", "")) == url
    assert location.redact(url) == url
    assert location.place(Location("x", url)) == (None, url)


def test_others_are_taken_apart() -> None:
    """Credentials, signatures, double slashes and capitals in a host name never go the short way."""
    for url in (
        "http://u:p@h/c",
        "http://h/c?sig=1",
        "http://h/c#f",
        "http://h//c",
        "http://H/c",
        "file:////c",
        "http://h/ c",
    ):
        assert not location._PLAIN.fullmatch(url), url
