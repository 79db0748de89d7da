"""Verdicts: the rule by table and by property, and one look at copies that are damaged in every way."""

import hashlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.web.faulty import FaultyServer

from glance_replicas.model import Digest, Image, Location, Result, Seen
from glance_replicas.stores.body import Limits
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.sources import Sources
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.judge import judge, ranges, reference
from glance_replicas.verify.probe import probe

ID = "11111111-1111-4111-8111-111111111111"
GOOD, OTHER = Digest("sha256", "aa" * 32), Digest("sha256", "bb" * 32)
PLACE = Location(ID, "http://127.0.0.1/x")


def image(size: int | None = 10, digest: Digest | None = GOOD) -> Image:
    return Image(ID, "active", size, digest)


SIZE, STORED, SAMPLE, FULL = Evidence
MD5 = Digest("md5", "cc" * 16)
WITH_MD5 = Image(ID, "active", 10, GOOD, checksum=MD5.value)
TABLE = [
    (image(), Seen(SIZE, 10), Verdict.INTACT, "10 bytes as expected; the content was not read"),
    (image(), Seen(SIZE, 9), Verdict.WRONG_SIZE, "expected 10 bytes, found 9"),
    (image(), Seen(SIZE, 0), Verdict.WRONG_SIZE, "expected 10 bytes, found 0"),
    (image(0), Seen(SIZE, 0), Verdict.INTACT, "0 bytes as expected; the content was not read"),
    (image(), Seen(SIZE), Verdict.UNVERIFIABLE, "expected 10 bytes, the place does not say how many it has"),
    (image(None), Seen(SIZE, 9), Verdict.UNVERIFIABLE, "the image has no size to compare with"),
    (image(), Seen(FULL, 10, GOOD), Verdict.INTACT, "sha256 and 10 bytes as expected"),
    (image(None), Seen(FULL, 9, GOOD), Verdict.INTACT, "sha256 and 9 bytes; none to compare"),
    (image(), Seen(FULL, 10, Digest("sha256", "AA" * 32)), Verdict.INTACT, "sha256 and 10 bytes as expected"),
    (
        image(),
        Seen(FULL, 10, OTHER),
        Verdict.CORRUPT,
        f"expected sha256 {GOOD.value}, found {OTHER.value}; 10 bytes as expected",
    ),
    (image(None), Seen(FULL, 9, OTHER), Verdict.CORRUPT, f"expected sha256 {GOOD.value}, found {OTHER.value}; 9 bytes"),
    (image(), Seen(FULL, 9, OTHER), Verdict.WRONG_SIZE, "expected 10 bytes, found 9"),
    (image(), Seen(FULL, 9, GOOD), Verdict.WRONG_SIZE, "expected 10 bytes, found 9"),
    (image(), Seen(FULL, 11, error="or more"), Verdict.WRONG_SIZE, "expected 10 bytes, found 11; or more"),
    (
        image(digest=None),
        Seen(FULL, 10),
        Verdict.UNVERIFIABLE,
        "the image has no digest to compare with; 10 bytes as expected",
    ),
    (image(digest=None), Seen(FULL, 9), Verdict.WRONG_SIZE, "expected 10 bytes, found 9"),
    (
        image(),
        Seen(FULL, 10),
        Verdict.UNVERIFIABLE,
        f"expected sha256 {GOOD.value}, nothing was hashed; 10 bytes as expected",
    ),
    (
        image(),
        Seen(FULL, 10, Digest("md5", "aa" * 16)),
        Verdict.UNVERIFIABLE,
        "expected a digest by sha256, found one by md5; 10 bytes as expected",
    ),
    (image(), Seen(FULL, None, GOOD), Verdict.UNVERIFIABLE, "sha256 as expected, but of no stated number of bytes"),
    (WITH_MD5, Seen(STORED, 10, MD5), Verdict.INTACT, "md5 and 10 bytes as expected"),
    (WITH_MD5, Seen(STORED, 10, GOOD, basis="why"), Verdict.INTACT, "sha256 and 10 bytes as expected; why"),
    (
        WITH_MD5,
        Seen(STORED, 10, Digest("md5", "dd" * 16), basis="why"),
        Verdict.CORRUPT,
        f"expected md5 {MD5.value}, found {'dd' * 16}; 10 bytes as expected; why",
    ),
    (WITH_MD5, Seen(STORED, 9, MD5), Verdict.WRONG_SIZE, "expected 10 bytes, found 9"),
    (image(), Seen(SIZE, 10, basis="why"), Verdict.INTACT, "10 bytes as expected; why"),
    (
        image(),
        Seen(SAMPLE, 10, sampled=4, basis="why"),
        Verdict.INTACT,
        "10 bytes as expected, 4 of them compared; why",
    ),
    (image(), Seen(SAMPLE, 10), Verdict.UNVERIFIABLE, "nothing was compared"),
    (image(), Seen(SAMPLE, None, sampled=4), Verdict.UNVERIFIABLE, "no size to compare"),
    (image(), Seen(SIZE, 10, failure=Verdict.DENIED, error="no entry"), Verdict.DENIED, "no entry"),
    (image(), Seen(FULL, failure=Verdict.STALLED), Verdict.STALLED, "the verification ended as stalled"),
]


@pytest.mark.parametrize(("wanted", "seen", "verdict", "detail"), TABLE, ids=lambda value: str(value)[:60])
def test_table(wanted: Image, seen: Seen, verdict: Verdict, detail: str) -> None:
    """Every verdict, with the words that say what was expected and what was found."""
    assert judge(wanted, PLACE, seen) == (verdict, detail)


@pytest.mark.parametrize("failure", list(Verdict))
def test_failure_passes_through(failure: Verdict) -> None:
    """A failed look is its own verdict, whatever else was seen."""
    assert judge(image(), PLACE, Seen(FULL, 10, GOOD, failure=failure, error="why")) == (failure, "why")


def test_other_image() -> None:
    """The bytes of another image's location say nothing about this image."""
    assert judge(image(), Location("other", "http://x/"), Seen(FULL, 10, GOOD))[0] is Verdict.UNVERIFIABLE


DIGESTS = st.none() | st.sampled_from([GOOD, OTHER, Digest("md5", "aa" * 16)])
SIZES = st.none() | st.integers(0, 3)


@given(
    wanted=st.builds(image, SIZES, DIGESTS),
    seen=st.builds(
        Seen,
        st.sampled_from(Evidence),
        SIZES,
        DIGESTS,
        st.none() | st.text(),
        st.none() | st.sampled_from([one for one in Verdict if one is not Verdict.INTACT]),
        st.integers(0, 2),
    ),
)
def test_intact_means_equal(wanted: Image, seen: Seen) -> None:
    """Never intact unless nothing differs and, for more than `size`, the digest agrees; never damage from a failure."""
    verdict, detail = judge(wanted, PLACE, seen)
    assert judge(wanted, PLACE, seen) == (verdict, detail)
    if verdict is Verdict.INTACT:
        assert seen.failure is None
        assert seen.size is not None
        assert wanted.size in (None, seen.size)
        if seen.evidence is SIZE or (wanted.size == 0 and wanted.digest is None):  # of nothing there is no more to say
            assert wanted.size == seen.size
        elif seen.evidence is SAMPLE:
            assert seen.sampled
        else:
            assert wanted.digest == seen.digest is not None
    if verdict is Verdict.CORRUPT and seen.failure is None:
        assert wanted.digest is not None
        assert seen.digest is not None
        assert wanted.digest.value != seen.digest.value
    if verdict is Verdict.WRONG_SIZE and seen.failure is None:
        assert None not in (wanted.size, seen.size)
        assert wanted.size != seen.size


DATA = bytes(range(251)) * 12_000  # 3 MB
HALF = len(DATA) // 2
IMAGE = Image(ID, "active", len(DATA), Digest("sha512", hashlib.sha512(DATA).hexdigest()))
SOURCES = Sources([http_reader.Reader(Limits(connect=0.5, stall=0.5))])
PATIENT = Sources([http_reader.Reader(Limits(connect=5, stall=20))])

DAMAGE = [
    ({}, FULL, Verdict.INTACT, FULL),
    ({}, SIZE, Verdict.INTACT, SIZE),
    ({}, STORED, Verdict.INTACT, SIZE),  # the copy's own word about itself is no evidence
    ({"etag": '"00"'}, STORED, Verdict.INTACT, SIZE),
    ({"longer": 1}, STORED, Verdict.WRONG_SIZE, SIZE),
    ({"status": 503}, STORED, Verdict.UNREACHABLE, STORED),
    ({}, SAMPLE, Verdict.INTACT, FULL),  # of a small image everything
    ({"flip_at": HALF}, SAMPLE, Verdict.CORRUPT, FULL),
    ({"chunked": True}, FULL, Verdict.INTACT, FULL),
    ({"chunked": True}, SIZE, Verdict.UNVERIFIABLE, SIZE),
    ({"flip_at": 0}, FULL, Verdict.CORRUPT, FULL),
    ({"flip_at": HALF}, FULL, Verdict.CORRUPT, FULL),
    ({"flip_at": len(DATA) - 1}, FULL, Verdict.CORRUPT, FULL),
    ({"flip_at": 0}, SIZE, Verdict.INTACT, SIZE),  # and says that the content was not read
    ({"zeros": True}, FULL, Verdict.CORRUPT, FULL),
    ({"longer": 1}, FULL, Verdict.WRONG_SIZE, SIZE),
    ({"longer": 1, "chunked": True}, FULL, Verdict.WRONG_SIZE, SIZE),
    ({"longer": 1, "no_length": True}, FULL, Verdict.WRONG_SIZE, SIZE),
    ({"no_length": True, "truncate_at": HALF}, FULL, Verdict.WRONG_SIZE, FULL),
    ({"wrong_length": HALF}, FULL, Verdict.WRONG_SIZE, SIZE),
    ({"html": True}, FULL, Verdict.WRONG_SIZE, SIZE),
    ({"html": True}, SIZE, Verdict.WRONG_SIZE, SIZE),
    ({"head_length": 7}, SIZE, Verdict.WRONG_SIZE, SIZE),
    ({"head_length": len(DATA), "status": 500}, FULL, Verdict.UNREACHABLE, FULL),
    ({"truncate_at": HALF}, FULL, Verdict.UNREACHABLE, FULL),
    ({"stall_at": HALF}, FULL, Verdict.STALLED, FULL),
    ({"drip": 0.05}, FULL, Verdict.STALLED, FULL),
    ({"status": 404}, FULL, Verdict.MISSING, FULL),
    ({"status": 404}, SIZE, Verdict.MISSING, SIZE),
    ({"status": 403}, FULL, Verdict.DENIED, FULL),
    ({"status": 429}, SIZE, Verdict.UNREACHABLE, SIZE),
    ({"redirect_to": "http://127.0.0.1/login"}, FULL, Verdict.UNREACHABLE, FULL),
    ({"gzip": True}, FULL, Verdict.UNREACHABLE, FULL),
]


@pytest.mark.parametrize(("faults", "asked", "verdict", "evidence"), DAMAGE, ids=str)
def test_look(
    faulty: FaultyServer, faults: dict[str, Any], asked: Evidence, verdict: Verdict, evidence: Evidence
) -> None:
    """The verdict on a copy with this fault, and that the evidence is never called deeper than it was."""
    result = probe(SOURCES, IMAGE, Location(ID, faulty.put("/x", DATA, **faults)), asked)
    assert (result.verdict, result.evidence) == (verdict, evidence)
    assert result.detail
    assert result.checked_at
    assert 0 < result.seconds < 5


LARGE = bytes(range(253)) * 40_000  # 10 MB: larger than a sample
BIG = Image(ID, "active", len(LARGE), Digest("sha512", hashlib.sha512(LARGE).hexdigest()))


def sampled(faulty: FaultyServer, other: dict[str, Any] | None, **faults: Any) -> Result:
    """A sample of a copy with these faults, held against another copy, with faults of its own, if there is one."""
    here = Location(ID, faulty.put("/x", LARGE, **faults))
    there = None if other is None else Location(ID, faulty.put("/other", LARGE, **other))
    return probe(SOURCES if "stall_at" in faults else PATIENT, BIG, here, SAMPLE, reference=there)


def test_sample(faulty: FaultyServer) -> None:
    """Ranges that are those of an intact copy are intact, by evidence `sample`; no more than they are counted."""
    told: list[int] = []
    here, there = (Location(ID, faulty.put(path, LARGE)) for path in ("/x", "/other"))
    result = probe(PATIENT, BIG, here, SAMPLE, reference=there, progress=told.append)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, SAMPLE)
    assert f"the same as in {there.url}" in result.detail
    assert sum(told) < 2 * len(LARGE)
    assert len(faulty.requests("/x")) == 9  # HEAD and eight ranges


@pytest.mark.parametrize("at", [0, len(LARGE) - 1])
def test_sample_differs(faulty: FaultyServer, at: int) -> None:
    """A difference from an intact copy condemns neither: unverifiable, with the other's name and the way out."""
    result = sampled(faulty, {}, flip_at=at)
    assert (result.verdict, result.evidence) == (Verdict.UNVERIFIABLE, SAMPLE)
    assert f"{faulty.url}/other" in result.detail
    assert "verify both in full" in result.detail


@pytest.mark.parametrize("other", [None, {"status": 503}], ids=str)
def test_sample_without_reference(faulty: FaultyServer, other: dict[str, Any] | None) -> None:
    """Ranges compared with nothing are no evidence of the content, and the detail says that they could be read."""
    result = sampled(faulty, other)
    assert (result.verdict, result.evidence) == (Verdict.INTACT, SIZE)
    assert "could be read; not compared" in result.detail


@pytest.mark.parametrize(
    ("faults", "verdict", "evidence"),
    [
        ({"longer": 1}, Verdict.WRONG_SIZE, SIZE),
        ({"truncate_at": 500_000}, Verdict.UNREACHABLE, SAMPLE),
        ({"stall_at": 500_000}, Verdict.STALLED, SAMPLE),
        ({"status": 404}, Verdict.MISSING, SAMPLE),
        ({"chunked": True, "wrong_content_range": True}, Verdict.UNREACHABLE, SAMPLE),
    ],
    ids=str,
)
def test_sample_fails(faulty: FaultyServer, faults: dict[str, Any], verdict: Verdict, evidence: Evidence) -> None:
    """What cannot be read in part is judged as if it were read in full."""
    result = sampled(faulty, {}, **faults)
    assert (result.verdict, result.evidence) == (verdict, evidence)


@given(size=st.integers(0, 1 << 40), seed=st.text(max_size=5))
def test_ranges(size: int, seed: str) -> None:
    """The first and the last byte are in, no byte twice, no more than the bound, and the same seed gives the same."""
    found = ranges(size, seed)
    assert found == ranges(size, seed)
    assert found[0].start == 0
    assert found[-1].stop == size
    assert all(one.stop <= other.start for one, other in itertools.pairwise(found))
    assert sum(map(len, found)) <= min(size, 8 << 20)
    if size <= 8 << 20:
        assert sum(map(len, found)) == size


def test_reference() -> None:
    """Only another place that was intact in full serves as reference; a durable one before a cached one."""
    target, cached, durable = (
        Location(ID, "file:///a"),
        Location(ID, f"http://h/replicas/{ID}", {"replica_host": "h"}),
        Location(ID, "file:///b"),
    )
    whole = Image(ID, "active", 10, GOOD, (cached, target, durable))

    def last(*good: Location, evidence: Evidence = FULL) -> Any:
        return lambda one: Result(one, Verdict.INTACT, evidence) if one in good else None

    assert reference(whole, target, last(target, cached, durable)) == durable
    assert reference(whole, target, last(target, cached)) == cached
    assert reference(whole, target, last(target)) is None
    assert reference(whole, target, last(durable, evidence=STORED)) is None
    assert reference(whole, target, lambda one: Result(one, Verdict.CORRUPT, FULL)) is None


def test_look_stops(faulty: FaultyServer) -> None:
    """A copy that is longer than it states is not read on after the image's size; the detail says so."""
    url = faulty.put("/x", DATA, longer=200 << 20, chunked=True)
    result = probe(SOURCES, IMAGE, Location(ID, url), FULL)
    assert result.detail == f"expected {len(DATA)} bytes, found {len(DATA) + 1}; or more; reading stopped there"
    assert faulty.sent("/x") < len(DATA) + (32 << 20)  # what the sockets hold


def test_look_reads_nothing_of_a_wrong_length(faulty: FaultyServer) -> None:
    """A copy that states another length is judged without its bytes."""
    told: list[int] = []
    url = faulty.put("/x", DATA, longer=1)
    assert probe(SOURCES, IMAGE, Location(ID, url), FULL, progress=told.append).size == len(DATA) + 1
    assert told == []


def test_look_without_digest(faulty: FaultyServer) -> None:
    """An image with no digest, or with one that this Python cannot compute, is unverifiable though every byte came."""
    for digest in (None, Digest("no-such-hash", "aa")):
        result = probe(SOURCES, Image(ID, "active", len(DATA), digest), Location(ID, faulty.put("/x", DATA)), FULL)
        assert result.verdict is Verdict.UNVERIFIABLE
        assert f"{len(DATA)} bytes as expected" in result.detail


def test_look_md5_only(tmp_path: Path) -> None:
    """A legacy image is held to its md5."""
    (tmp_path / "x").write_bytes(DATA)
    legacy = Image(ID, "active", len(DATA), Digest("md5", hashlib.md5(DATA).hexdigest()))
    sources, location = Sources([file_reader.Reader([tmp_path])]), Location(ID, f"file://{tmp_path}/x")
    assert probe(sources, legacy, location, FULL).verdict is Verdict.INTACT
    (tmp_path / "x").write_bytes(DATA[::-1])
    assert probe(sources, legacy, location, FULL).verdict is Verdict.CORRUPT


def test_look_unsupported_and_unmounted(tmp_path: Path) -> None:
    """A kind that nothing reads is unsupported; a file of an empty root is unreachable, not missing."""
    sources = Sources([file_reader.Reader([tmp_path])])
    assert probe(sources, IMAGE, Location(ID, "rbd://a/b/c/d"), FULL).verdict is Verdict.UNSUPPORTED
    assert probe(sources, IMAGE, Location(ID, f"file://{tmp_path}/x"), FULL).verdict is Verdict.UNREACHABLE


def test_look_tells(faulty: FaultyServer) -> None:
    """Progress and throttle both hear of every byte, chunk by chunk, and a throttle that sleeps slows the look."""
    told: list[int] = []
    slept: list[int] = []

    def throttle(length: int) -> None:
        slept.append(length)
        time.sleep(0.05)

    result = probe(SOURCES, IMAGE, Location(ID, faulty.put("/x", DATA)), FULL, progress=told.append, throttle=throttle)
    assert told == slept
    assert sum(told) == len(DATA)
    assert result.verdict is Verdict.INTACT
    assert result.seconds >= 0.05 * len(slept)


def test_look_leaves_nothing_open(faulty: FaultyServer) -> None:
    """Looks that end early close their connections."""
    sources = Sources([http_reader.Reader(Limits(connect=0.5, stall=0.3))])
    for faults in ({"longer": 1}, {"longer": 1, "chunked": True}, {"stall_at": HALF}, {"truncate_at": HALF}):
        probe(sources, IMAGE, Location(ID, faulty.put("/x", DATA, **faults)), FULL)
    deadline = time.monotonic() + 5
    while faulty.connections() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert faulty.connections() == 0
