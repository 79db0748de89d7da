"""URLs that need no taking apart are left as they are, exactly where taking them apart would leave them so."""

import re
from urllib.parse import urlsplit, urlunsplit

import pytest
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
    if not location._SPELLED.search(url):
        assert location.place(Location("x", url)) == url
        assert location._normal(parts.path) == parts.path


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


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://h/a/b", "http://h/a/./c/../b"),
        ("http://h/a/b", "http://h/a/%62"),
        ("http://h/a/b", "http://H:80//a/b"),
        ("https://h/a", "https://u:p@h:443/a?x=1"),
        ("file:///a/b", "file:////a//b"),
        ("s3://k:s@h/b/o", "s3+https://h/b/o"),
    ],
)
def test_two_names_of_one_copy(one: str, other: str) -> None:
    """However a URL is spelled it names one copy, so that a proof does not count it twice."""
    assert location.place(Location("x", one)) == location.place(Location("x", other))


def test_redacted_paths_stay_paths() -> None:
    """No part of a path reads as a host."""
    assert location.redact("file:////a/b?x=1") == "file:///a/b?..."
    assert location.place(Location("x", "http://h:8080/a")) != location.place(Location("x", "http://h/a"))
