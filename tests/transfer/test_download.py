"""The client's download against servers that go wrong: the file is the image, or there is no file and one clear error.

Cases that cannot happen here: a name with `../` in a document (a document names no file, the caller does), a stale
partial file answered 416 (nothing is resumed from an earlier run; 416 from a short source is tested), a proxy's corrupt
copy that `no-cache` would heal (no proxy is used, and what Glance itself serves is verified by its own filter).
"""

import hashlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from services import eventually
from services.web.faulty import FaultyServer

from glance_replicas.client.document import Document, Replica
from glance_replicas.client.download import GLANCE, MOST_SOURCES, DownloadReport, NoneIntact, OutOfReach, fetch
from glance_replicas.client.download_file import TargetError
from glance_replicas.errors import ConfigError, Refused, ReplicaError, Unreachable
from glance_replicas.model import Digest
from glance_replicas.stores.body import Body, Limits
from glance_replicas.stores.http.reader import Reader

IMAGE = "11111111-2222-4333-8444-555555555555"
DATA = random.Random(7).randbytes(3_000_017)
SHA = hashlib.sha512(DATA).hexdigest()
HALF = len(DATA) // 2
QUICK = Limits(connect=1.0, stall=1.0)


def document(*urls: str, size: int | None = len(DATA), sha: str | None = SHA) -> Document:
    rows = tuple(Replica(url, "cached", False, f"h{n}", priority=n) for n, url in enumerate(urls, 1))
    return Document(IMAGE, size=size, os_hash_algo="sha512" if sha else None, os_hash_value=sha, replicas=rows)


def put(server: FaultyServer, name: str, data: bytes = DATA, **faults: Any) -> str:
    return server.put(f"/{name}", data, **faults)


def good(target: Path) -> bool:
    return target.read_bytes() == DATA


def starts(report: DownloadReport) -> list[tuple[str, int]]:
    """Host and first byte of each attempt."""
    return [(at.source.split(" ")[0], at.start) for at in report.attempts]


def test_best_source_only(faulty: FaultyServer, target: Path) -> None:
    """When the first source is good nobody else is asked, and the report says where the bytes came from."""
    seen: list[tuple[int, int | None, str]] = []
    report = fetch(document(put(faulty, "a"), put(faulty, "b")), target, progress=lambda *numbers: seen.append(numbers))
    assert good(target)
    assert (faulty.reads("/a"), faulty.reads("/b")) == (1, 0)
    assert (report.size, report.digest, report.guilty) == (len(DATA), Digest("sha512", SHA), ())
    assert report.sources == (f"h1 ({faulty.url}/a)",)
    assert seen[-1] == (len(DATA), len(DATA), report.sources[0])


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_other_digests(faulty: FaultyServer, target: Path, algorithm: str) -> None:
    """An image with md5 only, and one with another multihash, are verified as well, right and wrong."""
    value = hashlib.new(algorithm, DATA).hexdigest()
    fields = {"checksum": value} if algorithm == "md5" else {"os_hash_algo": algorithm, "os_hash_value": value}
    plain = document(put(faulty, "a"), sha=None)
    assert fetch(replace(plain, **fields), target).digest == Digest(algorithm, value)
    target.unlink()
    put(faulty, "a", flip_at=5)
    with pytest.raises(NoneIntact):
        fetch(replace(plain, **fields), target)


@pytest.mark.parametrize(
    "faults",
    [
        {"truncate_at": HALF},
        {"reset_at": HALF},
        {"stall_at": HALF},
        {"truncate_at": HALF, "chunked": True},
        {"truncate_at": HALF, "no_length": True},
        {"truncate_at": len(DATA) - 1},
    ],
)
def test_next_source_continues(faulty: FaultyServer, target: Path, faults: dict[str, Any]) -> None:
    """A source that breaks midway, however it does: the next one goes on at that very byte."""
    report = fetch(document(put(faulty, "a", **faults), put(faulty, "b")), target, limits=QUICK)
    assert good(target)
    edge = report.attempts[0].end
    assert starts(report) == [("h1", 0), ("h2", edge)]
    assert 0 < edge <= next(iter(faults.values())), "of what was sent before a reset, some may be lost"
    assert faulty.requests("/b")[0].range == f"bytes={edge}-"
    assert faulty.sent("/b") == len(DATA) - edge
    assert report.guilty == ()


@pytest.mark.parametrize(
    "faults",
    [
        {"status": 404},
        {"status": 403},
        {"status": 500},
        {"status": 503, "retry_after": 9},
        {"stall_before_headers": True},
        {"html": True},
        {"gzip": True},
        {"redirect_to": "/b"},
        {"wrong_length": 5},
        {"longer": 9},
    ],
)
def test_useless_source_is_passed_over(faulty: FaultyServer, target: Path, faults: dict[str, Any]) -> None:
    """A source that refuses, redirects, encodes or has another length gives not one byte of the file."""
    report = fetch(document(put(faulty, "a", **faults), put(faulty, "b")), target, limits=QUICK)
    assert good(target)
    assert starts(report) == [("h1", 0), ("h2", 0)]
    assert report.attempts[0].error
    assert faulty.reads("/b") == 1, "the redirect was not followed"


@pytest.mark.parametrize(
    "faults",
    [
        {"wrong_content_range": True},
        {"wrong_content_range": ""},
        {"wrong_content_range": f"bytes {HALF}-{HALF + 9}/*"},
        {"short_range": 1000},
        {"status": 416},
    ],
)
def test_wrong_answer_to_a_range(faulty: FaultyServer, target: Path, faults: dict[str, Any]) -> None:
    """206 for other bytes than asked, without Content-Range, short, or 416: the one after it continues."""
    urls = [put(faulty, "a", truncate_at=HALF), put(faulty, "b", **faults), put(faulty, "c")]
    report = fetch(document(*urls), target)
    assert good(target)
    assert starts(report)[0] == ("h1", 0)
    assert starts(report)[-1][0] == "h3"
    assert report.guilty == ()


def test_range_ignored(faulty: FaultyServer, target: Path) -> None:
    """200 for a Range request: the bytes already there are dropped from the answer."""
    urls = [put(faulty, "a", reset_at=HALF), put(faulty, "b", ignore_range=True, etag='"another"')]
    report = fetch(document(*urls), target)
    assert good(target)
    assert starts(report) == [("h1", 0), ("h2", report.attempts[0].end)]
    assert faulty.sent("/b") == len(DATA)


def test_slow_source_is_left(faulty: FaultyServer, target: Path) -> None:
    """A drip of bytes, never quite stalled, is cut off and the rest comes from the next source."""
    urls = [put(faulty, "a", drip=0.1), put(faulty, "b")]
    began = time.monotonic()
    report = fetch(document(*urls), target, limits=QUICK)
    assert good(target)
    assert time.monotonic() - began < 6
    assert report.sources[1].startswith("h2")


def test_one_source_that_keeps_breaking(faulty: FaultyServer, target: Path) -> None:
    """A single source that breaks off is asked again for the rest, a bounded number of times."""
    url = put(faulty, "a", truncate_at=HALF, fail_times=1)
    assert starts(fetch(document(url), target)) == [("h1", 0), ("h1", HALF)]
    assert good(target)
    target.unlink()
    put(faulty, "a", truncate_at=HALF)
    with pytest.raises(OutOfReach):
        fetch(document(url), target)
    assert faulty.reads("/a") == 2, "the second try made no progress"


def test_more_than_the_image(faulty: FaultyServer, target: Path) -> None:
    """A body of unstated length that goes on after the image's end is cut off there, and is no success by itself."""
    urls = [put(faulty, "a", longer=9, no_length=True), put(faulty, "b")]
    report = fetch(document(*urls), target)
    assert good(target)
    assert "more than the image" in (report.attempts[0].error or "")
    assert report.sources[1:] == (f"h2 ({urls[1]})",)


def test_little_by_little_is_not_for_ever(target: Path) -> None:
    """A source that gives a little and breaks, again and again, is given up after a few tries."""
    asked: list[int] = []

    def little(offset: int) -> Body:
        asked.append(offset)

        def chunks() -> Iterator[bytes]:
            yield DATA[offset : offset + 1000]
            raise Unreachable("broke off")

        return Body(chunks(), len(DATA), lambda: None)

    with pytest.raises(OutOfReach):
        fetch(document(), target, fallback=little)
    assert asked == [0, 1000, 2000]


def test_all_bytes_and_then_an_error(target: Path) -> None:
    """A connection reset after the last byte is no failure: what counts is the digest."""

    def broken(offset: int) -> Body:
        def chunks() -> Iterator[bytes]:
            yield DATA[offset:]
            raise Unreachable("reset after the last byte")

        return Body(chunks(), None, lambda: None)

    report = fetch(document(), target, fallback=broken)
    assert good(target)
    assert report.sources == (GLANCE,)


def test_single_guilty_source(faulty: FaultyServer, target: Path) -> None:
    """Wrong bytes from one source: thrown away, the next source gives the whole, the first is named."""
    for place in (0, HALF, len(DATA) - 1):
        report = fetch(document(put(faulty, "a", flip_at=place), put(faulty, "b")), target)
        assert good(target)
        assert starts(report) == [("h1", 0), ("h2", 0)]
        assert report.guilty == (f"h1 ({faulty.url}/a)",)


def test_the_guilty_one_of_a_mixed_file(faulty: FaultyServer, target: Path) -> None:
    """Right size, wrong bytes in the second of three contributions: that source is named, the others acquitted."""
    a = put(faulty, "a", truncate_at=1_000_000)
    b = put(faulty, "b", flip_at=1_500_000, truncate_at=2_000_000)
    c = put(faulty, "c")
    report = fetch(document(a, b, c), target)
    assert good(target)
    assert report.guilty == (f"h2 ({faulty.url}/b)",)
    assert report.suspects == ()
    assert starts(report)[:3] == [("h1", 0), ("h2", 1_000_000), ("h3", 2_000_000)]


def test_mixed_file_nobody_can_replace(faulty: FaultyServer, target: Path) -> None:
    """No source has the whole: no file, and those who had a part in the bad one are suspects, named in the error."""
    urls = [put(faulty, "a", truncate_at=HALF), put(faulty, "b", flip_at=len(DATA) - 1)]
    with pytest.raises(NoneIntact) as caught:
        fetch(document(*urls), target)
    assert not target.exists()
    assert caught.value.report.guilty == (f"h2 ({faulty.url}/b)",), "alone it had the whole, and it was wrong"
    assert caught.value.report.suspects == (f"h1 ({faulty.url}/a)",)
    assert "wrong bytes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_replica_bad_glance_good(faulty: FaultyServer, target: Path) -> None:
    """All replicas give wrong bytes or none: Glance's own download is the last source, and verified too."""
    urls = [put(faulty, "a", zeros=True), put(faulty, "b", status=404), "http://127.0.0.1:1/c"]
    glance = put(faulty, "glance")
    report = fetch(document(*urls), target, fallback=lambda offset: Reader(QUICK).open(glance, offset))
    assert good(target)
    assert report.guilty == (f"h1 ({faulty.url}/a)",)
    assert report.attempts[-1].source == GLANCE
    put(faulty, "glance", flip_at=1)
    with pytest.raises(NoneIntact, match=GLANCE):
        fetch(document(*urls), target, fallback=lambda offset: Reader(QUICK).open(glance, offset))


def test_nothing_left_after_failure(faulty: FaultyServer, target: Path) -> None:
    """Wrong bytes never take the place of an earlier good file of that name."""
    target.write_bytes(b"an earlier image")
    with pytest.raises(NoneIntact):
        fetch(document(put(faulty, "a", flip_at=3)), target)
    with pytest.raises(OutOfReach):
        fetch(document(put(faulty, "a", status=500)), target)
    assert target.read_bytes() == b"an earlier image"


@pytest.mark.parametrize("refreshed", [True, False])
def test_signature_runs_out(faulty: FaultyServer, target: Path, refreshed: bool) -> None:
    """403 midway: a new document, asked for once, brings the source back at its offset; else the next continues."""
    url = put(faulty, "a", rate=50_000_000, truncate_at=HALF)
    asked: list[int] = []

    def expire(*_: object) -> None:
        if not asked:
            faulty.change("/a", status=403, truncate_at=HALF)

    def refresh() -> Document:
        asked.append(1)
        if not refreshed:
            raise ReplicaError("the cloud is gone")
        faulty.change("/a")
        return document(url + "?sig=new")

    other = put(faulty, "b", status=500 if refreshed else None)
    report = fetch(document(url + "?sig=old", other), target, refresh=refresh, progress=expire)
    assert good(target)
    assert asked == ([1] if refreshed else [])
    if refreshed:
        assert [request.target for request in faulty.requests("/a")] == ["/a?sig=old", "/a?sig=old", "/a?sig=new"]
    assert not any("sig=" in source for source in report.sources)


def test_every_signature_has_run_out(faulty: FaultyServer, target: Path) -> None:
    """Two sources refuse for good: the new document is asked for once and not for ever, then Glance serves."""
    urls = [put(faulty, name, status=403) for name in ("a", "b")]
    asked: list[int] = []

    def refresh() -> Document:
        asked.append(1)
        return document(*[f"{url}?sig={len(asked)}" for url in urls])

    glance = put(faulty, "glance")
    fetch(document(*urls), target, refresh=refresh, fallback=lambda offset: Reader().open(glance, offset))
    assert good(target)
    assert asked == [1]
    assert (faulty.reads("/a"), faulty.reads("/b")) == (2, 1)


@pytest.mark.parametrize("known", [True, False])
def test_size_unknown(faulty: FaultyServer, target: Path, known: bool) -> None:
    """An image of unknown size ends where its body ends, and a body cut short is not taken for its end."""
    urls = [put(faulty, "a", truncate_at=HALF), put(faulty, "b", no_length=not known)]
    fetch(document(*urls, size=None), target)
    assert good(target)


def test_empty_image(faulty: FaultyServer, target: Path) -> None:
    """Zero bytes are an image too, and need no source."""
    empty = hashlib.sha512(b"").hexdigest()
    assert fetch(document("http://127.0.0.1:1/", size=0, sha=empty), target).size == 0
    assert target.read_bytes() == b""


def test_no_digest(faulty: FaultyServer, target: Path) -> None:
    """An image nothing can be held against is refused before a byte is read, unless it is asked for as it is."""
    plain = document(put(faulty, "a"), sha=None)
    with pytest.raises(Refused, match="--unverified"):
        fetch(plain, target)
    assert faulty.reads("/a") == 0
    assert fetch(plain, target, unverified=True).digest is None
    assert good(target)


def test_a_digest_of_the_callers_own(faulty: FaultyServer, target: Path) -> None:
    """A digest the caller knows from elsewhere counts, not that of the document."""
    with pytest.raises(NoneIntact):
        fetch(document(put(faulty, "a")), target, digest=Digest("sha256", "0" * 64))


def test_credentials_stay_where_they_belong(faulty: FaultyServer, target: Path) -> None:
    """User and password of one URL go to that host alone: not along a redirect, nor to the next source."""
    with FaultyServer() as other:
        elsewhere = put(other, "x")
        url = put(faulty, "a", redirect_to=elsewhere).replace("://", "://bob:secret@")
        report = fetch(document(url, put(other, "b")), target)
        assert good(target)
        assert faulty.requests("/a")[0].headers["Authorization"].startswith("Basic ")
        assert other.requests("/x") == []
        assert "Authorization" not in other.requests("/b")[0].headers
        assert "secret" not in repr(report)


def test_many_sources(target: Path) -> None:
    """A document of a thousand dead replicas costs a bounded number of attempts and one line of error."""
    with pytest.raises(OutOfReach) as caught:
        fetch(document(*[f"http://127.0.0.1:1/{n}" for n in range(1000)]), target)
    assert len(caught.value.report.attempts) == MOST_SOURCES
    assert len(str(caught.value)) < 2000


def test_no_source_at_all(target: Path) -> None:
    """Nothing a client can read, and no Glance: said in one line."""
    with pytest.raises(OutOfReach, match="no source a client can read"):
        fetch(document("swift://c/o", "file:///etc/passwd"), target)


def test_target_that_is_no_file(tmp_path: Path) -> None:
    """A folder, a device and a folder that is not there are the caller's mistakes, found before anything is read."""
    (tmp_path / "fifo").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "none" / "x", tmp_path / "fifo", Path("/dev/null"), Path("/")):
        with pytest.raises(ConfigError):
            fetch(document("http://127.0.0.1:1/"), path)


def test_long_name(faulty: FaultyServer, tmp_path: Path) -> None:
    """A name as long as the file system allows has room for its hidden part."""
    target = tmp_path / ("é" * 127)
    fetch(document(put(faulty, "a")), target)
    assert good(target)


def test_no_room(faulty: FaultyServer, target: Path) -> None:
    """An image larger than the free space is not begun."""
    with pytest.raises(TargetError, match="free"):
        fetch(document(put(faulty, "a"), size=1 << 60), target)
    assert faulty.reads("/a") == 0


def limited(job: Callable[[], object]) -> int:
    """The exit status of a child whose files end at a megabyte, as on a disk that is full."""

    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            job()
        except TargetError as error:
            sys.exit(7 if "could not be written" in str(error) else 8)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    return process.exitcode if process.exitcode is not None else -1


def test_disk_full(faulty: FaultyServer, target: Path) -> None:
    """The disk is full midway: a clear error, no file, no part of one (the fixture looks), no further source."""
    urls = [put(faulty, "a"), put(faulty, "b")]
    assert limited(lambda: fetch(document(*urls), target)) == 7
    assert not target.exists()
    assert faulty.reads("/b") == 0


def test_two_processes_one_target(faulty: FaultyServer, target: Path) -> None:
    """Two processes fetch to the same name at once, one of them in vain: the good one's file is there."""
    good_one = document(put(faulty, "a", rate=6_000_000))
    bad_one = document(put(faulty, "b", rate=5_000_000, flip_at=9))
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=fetch, args=(one, target)) for one in (good_one, bad_one, good_one)]
    for job in jobs:
        job.start()
    assert eventually(lambda: len(list(target.parent.glob(".image.raw.*.part"))) == 3)
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0, 1, 0]
    assert good(target)


def test_interrupted(faulty: FaultyServer, target: Path) -> None:
    """Ctrl-C midway leaves nothing behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(document(put(faulty, "a")), target, progress=interrupt)
    assert not target.exists()


def test_permissions_follow_the_umask(faulty: FaultyServer, target: Path) -> None:
    """The file has the permissions of any new file, not those of a temporary one."""
    before = os.umask(0o027)
    try:
        fetch(document(put(faulty, "a")), target)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o640
