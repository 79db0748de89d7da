"""The replicas document: what is built is what is parsed, and a hostile one ends in one clear error."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glance_replicas.client import json_values
from glance_replicas.client.document import MAX_REPLICAS, MOST_CACHED, Document, build, dump, parse, replica
from glance_replicas.errors import ConfigError
from glance_replicas.model import Digest, Image, Location, Result
from glance_replicas.verdict import Evidence, Verdict

IMAGE = "11111111-2222-4333-8444-555555555555"
SHA = "ab" * 64
HERE = f"http://h1:9292/replicas/{IMAGE}"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def made() -> Document:
    image = Image(IMAGE, "active", 1234, Digest("sha512", SHA), name="tést", checksum="cd" * 16)
    near = Location(IMAGE, HERE, {"replica_host": "h1", "replica_zone": "z1", "store": "web"})
    far = Location(IMAGE, "swift+config://ref/c/x", {"store": "fast"})
    seen = Result(near, Verdict.INTACT, Evidence.FULL, checked_at=NOW - timedelta(hours=1), size=1234)
    rows = [replica(near, near.url + "?sig=1", seen, 12.5, NOW), replica(far, far.url, None, None, NOW)]
    return build(image, rows)


def test_there_and_back() -> None:
    """Parsing what was built gives the same document, with all the names the contract has."""
    assert parse(dump(made())) == made()
    value = json.loads(dump(made()))
    names = {"image_id", "name", "status", "size", "checksum", "os_hash_algo", "os_hash_value", "alarm"}
    names |= {"replicas", "download"}
    assert set(value) == names | {"total"}
    assert value["download"] == f"/v2/images/{IMAGE}/file"
    first = value["replicas"][0]
    assert first["state"] == {
        "verdict": "intact",
        "evidence": "full",
        "checked_at": "2026-03-04T04:06:07+00:00",
        "age_seconds": 3600.0,
    }
    assert (first["kind"], first["durable"], first["priority"], first["heartbeat_age_seconds"]) == (
        "cached",
        False,
        1,
        12.5,
    )
    assert value["replicas"][1]["priority"] == 2
    assert value["replicas"][1]["state"] is None


def test_the_best_of_many() -> None:
    """Of 500 copies on hosts the fifty best are named, and every durable one, and how many there are (E 58)."""
    found = []
    for number in range(500):
        metadata = {"replica_host": f"h{number}"}
        one = Location(IMAGE, f"http://h{number}/replicas/{IMAGE}", metadata)
        found.append(replica(one, one.url, None, None, NOW))
    found.append(replica(Location(IMAGE, "file:///x"), "file:///x", None, None, NOW))
    shown = parse(dump(build(Image(IMAGE, "active", 1, None), found)))
    assert [one.host for one in shown.replicas] == [*(f"h{number}" for number in range(MOST_CACHED)), None]
    assert [one.priority for one in shown.replicas] == list(range(1, MOST_CACHED + 2))
    assert shown.total == 501
    assert parse({"image_id": IMAGE, "replicas": []}).total is None


def test_digest_of_a_legacy_image() -> None:
    """An image with nothing but md5 keeps it, and one without any digest says so."""
    legacy = build(Image(IMAGE, "active", 1, Digest("md5", "cd" * 16), checksum="cd" * 16), [])
    assert (legacy.os_hash_algo, legacy.digest) == (None, Digest("md5", "cd" * 16))
    assert parse({"image_id": IMAGE}).digest is None


def test_only_the_web_is_read() -> None:
    """Only http and https are offered for download; what else stands there stays visible."""
    schemes = ["file:///etc/passwd", "ftp://x/y", "HTTP://h/x", "https://h/x", "javascript:1", "unix:/run/x"]
    found = parse({"image_id": IMAGE, "replicas": [{"url": url} for url in schemes]})
    assert [one.url for one in found.replicas] == schemes
    assert [one.url for one in found.readable] == ["HTTP://h/x", "https://h/x"]


def test_order_is_the_servers() -> None:
    """Priorities decide, equal ones keep their order: the client never loses the order the server chose."""
    entries = [{"url": f"http://h/{n}", "priority": p} for n, p in enumerate([3, 1, 3, 2])]
    assert [one.url[-1] for one in parse({"image_id": IMAGE, "replicas": entries}).replicas] == ["1", "3", "0", "2"]


def test_the_download_path_is_not_taken_from_the_document() -> None:
    """A document cannot send a token elsewhere: the path of Glance's download follows from the image id."""
    assert parse({"image_id": IMAGE, "download": "http://evil/"}).download == f"/v2/images/{IMAGE}/file"


def test_glances_own_metadata() -> None:
    """An image as Glance shows it, with locations, without, and the answer of the locations call."""
    locations = [
        {"url": HERE, "metadata": {"replica_host": "h1", "replica_zone": "z1", "store": "web"}},
        {"url": "file:///store/x", "metadata": {}},
        {"url": "file:///store/y", "metadata": {"replica_host": "h1"}},  # a user's word makes no cached copy of it
    ]
    shown = parse({"id": IMAGE, "size": 5, "os_hash_algo": "sha512", "os_hash_value": SHA, "locations": locations})
    assert [(one.kind, one.host, one.durable) for one in shown.replicas] == [
        ("cached", "h1", False),
        ("file", None, True),
        ("file", None, True),
    ]
    assert shown.digest == Digest("sha512", SHA)
    assert parse({"id": IMAGE, "name": None}).replicas == ()
    assert parse(json.dumps(locations), IMAGE).replicas == shown.replicas


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"image_id": 1' + "0" * 9999 + "}", "not JSON"),
        ("3", "no JSON object"),
        ({}, "image_id"),
        ({"image_id": "../../etc/passwd"}, "image_id"),
        ({"image_id": IMAGE, "size": "1"}, "size"),
        ({"image_id": IMAGE, "size": -1}, "size"),
        ({"image_id": IMAGE, "size": True}, "size"),
        ({"image_id": IMAGE, "checksum": 5}, "checksum"),
        ({"image_id": IMAGE, "replicas": {}}, "replicas is no list"),
        ({"image_id": IMAGE, "replicas": [5]}, "replicas[0] is no object"),
        ({"image_id": IMAGE, "replicas": [{}]}, "replicas[0].url"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://["}]}, "replicas[0].url"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h/\x1b[2J"}]}, "replicas[0].url"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h/ x"}]}, "replicas[0].url"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h/" + "x" * 9000}]}, "replicas[0].url"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "host": "\x1b[31m"}]}, "replicas[0].host"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "priority": 0}]}, "priority"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "durable": "yes"}]}, "durable"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "heartbeat_age_seconds": float("nan")}]}, "heartbeat"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "heartbeat_age_seconds": 10**400}]}, "heartbeat"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "state": "intact"}]}, "state"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h", "state": {"verdict": "fine"}}]}, "state"),
        ({"image_id": IMAGE, "replicas": [{"url": "http://h"}] * (MAX_REPLICAS + 1)}, "more than"),
        ({"id": IMAGE, "locations": [{"url": "http://h", "metadata": []}]}, "replicas[0]"),
    ],
)
def test_hostile(value: Any, what: str) -> None:
    """What is wrong is named; nothing else is raised."""
    with pytest.raises(ConfigError, match="replicas document") as caught:
        parse(value)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_about_another_image() -> None:
    """A document of another image is refused when the caller knows which one it asked for."""
    with pytest.raises(ConfigError, match="not 99999999"):
        parse({"image_id": IMAGE}, "99999999-2222-4333-8444-555555555555")


def test_too_large() -> None:
    """More than a few megabytes are not even parsed."""
    with pytest.raises(ConfigError, match="larger"):
        parse("x" * (json_values.MAX_BYTES + 1))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
ENTRIES = st.fixed_dictionaries(
    {"url": st.sampled_from(["http://h/x", "swift://y", ""]) | VALUES},
    optional=dict.fromkeys(("host", "zone", "priority", "durable", "state", "size", "metadata", "kind"), VALUES),
)


@given(
    st.fixed_dictionaries(
        {"image_id": st.just(IMAGE)},
        optional={
            "replicas": st.lists(ENTRIES, max_size=3) | VALUES,
            "locations": st.lists(ENTRIES, max_size=3) | VALUES,
            "size": VALUES,
            "checksum": VALUES,
            "os_hash_algo": st.sampled_from(["sha512", "shake_128", "nope"]) | VALUES,
            "os_hash_value": st.just(SHA) | VALUES,
        },
    )
    | VALUES
)
def test_any_value(value: Any) -> None:
    """Whatever JSON can hold, parsing ends in a document that can be built again, or in ConfigError."""
    try:
        found = parse(value)
    except ConfigError:
        return
    assert found.digest is None or found.digest.value
    assert parse(dump(found)) == found
