"""The rule that keeps the last durable copy of an image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glance_replicas.model import HOST_KEY, Image, Location
from glance_replicas.removal.last_durable import why_kept

ID = "11111111-1111-4111-8111-111111111111"
HOST = "http://api1:9292/replicas/" + ID
# As Glance's http driver reads them, with and without a signature.
SPELLED = (
    HOST + "?kid=a&sig=b",
    "HTTP://api1:9292/x/..//replicas/" + ID,
    HOST + ";x",
    HOST + ";x?kid=a&sig=b",
    HOST.replace("replicas", "repl\ticas"),
    HOST.replace("-", "\n-") + "?kid=a&sig=b",
    HOST.replace("r", "%72") + "#x",
    HOST.replace("1", "2"),  # another image's copy on a host
    HOST.replace("1", "2") + "?kid=a&sig=b",
)
URLS = (
    "file:///store/one",
    "file:///store//one",
    "swift+https://user:password@auth/c/one",
    "swift+https://other:password@auth/c/one",
    "http://[not/a/url",
    HOST,
    *SPELLED,
    "https://elsewhere/one.qcow2",
)


def image(*rows: tuple[str, bool]) -> Image:
    """An image whose locations are these: URL, and whether the metadata call it a copy on a host."""
    found = [Location(ID, url, {HOST_KEY: "api1"} if ours else {}, row) for row, (url, ours) in enumerate(rows, 1)]
    return Image(ID, "active", 1, None, tuple(found))


def kept(found: Image, number: int, *, going: tuple[int, ...] = (), damaged: tuple[int, ...] = ()) -> bool:
    """Whether the rule keeps this location (numbered from 0)."""
    rows = found.locations
    return (
        why_kept(found, rows[number], [rows[one] for one in going], lambda one: rows.index(one) in damaged) is not None
    )


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("url", [HOST, *SPELLED])
def test_copies_on_hosts_are_never_durable(url: str, ours: bool) -> None:
    """Whatever the metadata say and however the URL is spelled, the copy in the store is the last one."""
    found = image(("file:///store/one", False), (url, ours))
    assert kept(found, 0)
    assert not kept(found, 1)


def test_our_metadata_on_a_durable_row() -> None:
    """A row that says it is a copy on a host, and whose URL is none, is durable like any other: it protects, too.

    Users write metadata: had it counted for less, the store's copies of an image would be no copies of it.
    """
    assert kept(image(("file:///store/one", True), (HOST, True)), 0)
    assert not kept(image(("file:///store/one", False), ("file:///store/two", True)), 0)
    assert kept(image(("file:///store/one", False), ("file:///store/two", True)), 0, damaged=(1,))
    assert not kept(image(("file:///store/one", True), ("file:///store/two", False)), 0)


def test_two_names_of_one_copy_are_one() -> None:
    """Two rows, credentials or spellings of one place do not stand in for each other."""
    for one, other in (URLS[:2], URLS[2:4], ("https://elsewhere/one?x=1", "https://elsewhere/one?x=2")):
        assert kept(image((one, False), (other, False)), 0)
        assert not kept(image((one, False), (other, False), ("rbd://pool/one", False)), 0)


def test_what_leaves_in_the_same_step_does_not_count() -> None:
    """Two removals in one request are judged together."""
    found = image(("file:///store/one", False), ("rbd://pool/one", False), (HOST, True))
    assert not kept(found, 0)
    assert not kept(found, 0, going=(0, 2))
    assert kept(found, 0, going=(0, 1))
    assert kept(found, 1, going=(0,))


def test_last_intact_copy() -> None:
    """A damaged copy may go, not the last one that is not; of damaged ones any may, but one."""
    found = image(("file:///store/one", False), ("rbd://pool/one", False))
    assert kept(found, 0, damaged=(1,))
    assert not kept(found, 1, damaged=(1,))
    assert not kept(found, 0, damaged=(0, 1))
    assert kept(image(("file:///store/one", False), (HOST, True)), 0, damaged=(0,))


@given(
    st.lists(st.tuples(st.sampled_from(URLS) | st.text(max_size=30), st.booleans()), min_size=1, max_size=6),
    st.sets(st.integers(0, 5)),
    st.data(),
)
def test_never_the_last(rows: list[tuple[str, bool]], damaged: set[int], data: st.DataObject) -> None:
    """Whatever the rows, removals one after the other never take the last durable copy, nor the last intact one."""
    found, marked = image(*rows), set(damaged)
    durable = {one.row for one in found.locations if one.url not in (HOST, *SPELLED)}
    intact = durable - {one + 1 for one in marked}
    while True:
        free = [
            one for one in found.locations if why_kept(found, one, (), lambda x: (x.row or 0) - 1 in marked) is None
        ]
        free = [one for one in free if one.row in durable]
        if not free:
            break
        gone = data.draw(st.sampled_from(free))
        found = Image(ID, "active", 1, None, tuple(one for one in found.locations if one is not gone))
    left = {one.row for one in found.locations}
    assert not durable or left & durable
    assert not intact or left & intact
