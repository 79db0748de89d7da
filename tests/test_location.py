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
    assert "@" not in url or parts.scheme in ("http", "https", "file")
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
        ("https://h/a", "https://u:p@h:443/a"),
        ("https://h/a?x=1", "https://u:p@h:443/a?x=1"),
        ("s3+https://AK:a/b+c=@h:9000/b/o", "s3+https://h:9000/b/o"),
        ("swift+https://t%3Au:pa/ss@h/v3/c/o", "swift+https://h/v3/c/o"),
        ("file:///a/b", "file:///a/b?x=1"),
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
    assert location.redact("http://h:8080/a@b/c") == "http://h:8080/a@b/c"
    assert location.redact("file:///a@b") == "file:///a@b"
    assert location.place(Location("x", "http://h:8080/a")) != location.place(Location("x", "http://h/a"))


TEXTS = st.text(st.characters(codec="ascii", exclude_characters="@"), max_size=20)
SCHEMES = ["s3", "s3+http", "s3+https", "swift", "swift+http", "swift+https", "swift+config", "rbd", "ftp"]


@given(
    st.sampled_from(SCHEMES), TEXTS, TEXTS, st.from_regex(r"[a-z0-9]+(?::[0-9]+)?(?:/[a-z0-9-]+){2}", fullmatch=True)
)
def test_credentials_end_with_the_last_at(scheme: str, user: str, secret: str, rest: str) -> None:
    """Whatever is in user and secret, slashes too, nothing of it is shown, nor a part of what a place is known by."""
    url = f"{scheme}://{user}:{secret}@{rest}"
    assert location.redact(url) == f"{scheme}://{rest}"
    assert location.where(url) == location.where(f"{scheme}://{rest}")


@given(st.text(max_size=60), st.sampled_from([*SCHEMES, "http", "https", "file", "cinder", ""]))
def test_what_is_redacted_stays_so(rest: str, scheme: str) -> None:
    """Of the ledger's URLs, which are redacted, the place is that of the location itself, whatever is in them."""
    url = f"{scheme}://{rest}"
    shown = location.redact(url)
    assert location.redact(shown) == shown
    assert location.where(shown) == location.where(url)


@pytest.mark.parametrize("secret", ["pa/ss", "pa/ss/", "/", "a?b", "a#b", "a:b/c", "[a/b"])
def test_web_urls_with_odd_passwords(secret: str) -> None:
    """A password that is none by the standard is not shown either."""
    assert location.redact(f"https://user:{secret}@h/file").rpartition("://")[2] in ("h/file", "(unparsable)")


def before(url: str) -> str:
    """The place of a URL as of the versions before queries counted, for URLs without secrets."""
    parts = urlsplit(url)
    family = "s3" if parts.scheme.startswith("s3+") else parts.scheme
    netloc = parts.netloc.rpartition("@")[2].lower()
    netloc = netloc.removesuffix({"http": ":80", "https": ":443"}.get(family, "/"))
    path = parts.path if parts.netloc else re.sub("^//+", "/", parts.path)
    return f"{family}://{netloc}{location._normal(path)}"


@given(
    st.sampled_from([*SCHEMES, "http", "https", "file", "filesystem", "cinder", "vsphere"]),
    st.from_regex(r"(?:[A-Za-z0-9.-]{0,8}(?::[0-9]{1,5})?)(?:/[A-Za-z0-9%._~+-]{0,6}){0,5}", fullmatch=True),
)
def test_places_without_query_keep_their_keys(scheme: str, rest: str) -> None:
    """What the ledger knows of a place is known after an upgrade."""
    url = f"{scheme}://{rest}"
    assert location.where(url) == before(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://h/get?f=good",
        "http://h/get?f=good&kid=1&expires=2&sig=3",
        "http://h/get?X-Amz-Algorithm=a&X-Amz-Date=2&f=good&X-Amz-Signature=3&X-Amz-Expires=9",
        "http://h/get?f=good&AWSAccessKeyId=a&Signature=b&Expires=1",
        "http://h/get?temp_url_sig=a&temp_url_expires=b&f=good",
        "http://h/get?sv=1&f=good&sig=2&se=3",
    ],
)
def test_a_query_is_a_part_of_the_place_and_its_signature_is_not(url: str) -> None:
    """Two objects behind one path are two places; the same one signed anew is one, and shows neither."""
    assert location.where(url) == location.where("http://h/get?f=good")
    assert location.where(url) != location.where("http://h/get?f=bad")
    assert location.where(url) != location.where("http://h/get")
    shown = location.redact(url)
    assert re.fullmatch(r"http://h/get\?\.\.\.[0-9a-f]{8}", shown)
    assert shown != location.redact("http://h/get?f=bad")


def test_our_own_signature_is_no_part_of_the_place() -> None:
    """A signed URL and the stored one are one place, and shown as before."""
    signed = "http://h/replicas/x?kid=k&expires=9&sig=abc"
    assert location.where(signed) == location.where("http://h/replicas/x") == "http://h/replicas/x"
    assert location.redact(signed) == "http://h/replicas/x?..."


def test_texts_lose_credentials_and_signatures() -> None:
    """What a library or a driver says of a URL, in the middle of a line."""
    text = "Row ('s3+http://AK:a/b+c@h:1/b/o', 1) http://u:p@h/x?sig=abc&y=1 swift://t:u:p/q@h/c/o: gone; a@b.org stays"
    shown = "Row ('s3+http://h:1/b/o', 1) http://h/x?sig=...&y=1 swift://h/c/o: gone; a@b.org stays"
    assert location.redact_text(text) == shown
