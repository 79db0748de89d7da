"""Every kind of place x every fault: the verdict is the right one, each time, and docs/faults.md is the table of it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import ROOT
from support.places import matrix
from support.places.attached import cinder_backend
from support.places.blocks import rbd_backend
from support.places.matrix import DATA, Backend
from support.worlds.scenes import settle

from glance_replicas.model import Digest, Image, Location
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs" / "faults.md"
WRITE = "WRITE_FAULTS"  # environment: write the document instead of comparing it
SIZE, STORED, FULL = Evidence.SIZE, Evidence.STORED, Evidence.FULL
BACKENDS = {**matrix.BACKENDS, "RBD": rbd_backend, "Cinder": cinder_backend}
SERVERS = {
    "Swift": "swift",
    "S3 (radosgw)": "gateway",
    "S3": "swift",
    "RBD": "ceph",
    "Cinder": "cinder",
}  # their fixtures
LARGE = ("Swift DLO", "Swift SLO")
PARTS = (*LARGE, "RBD", "Cinder")
DIGEST = ("Swift", "S3", "S3 (radosgw)")  # these keep a digest of the content
CHANGED = bytes([DATA[0] ^ 0xFF])
SEGMENT = len(DATA) // 5 + 1

CONTENT: dict[str, bytes | None] = {
    "absent": None,
    "empty": b"",
    "truncated": DATA[:-1],
    "longer": DATA + b"\0",
    "one byte flipped": DATA[:-1] + bytes([DATA[-1] ^ 1]),
    "same size, other content": DATA[::-1],
    "all zeros": bytes(len(DATA)),
}
WIRE: dict[str, str | int] = {
    "401": 401,
    "403": 403,
    "404": 404,
    "404 for everything": 404,
    "429": 429,
    "500": 500,
    "503": 503,
    "reset": "reset",
    "hang": "hang",
    "hang in the middle": "stall",
    "slow drip": "drip",
    "redirect to a login page": "redirect",
    "login page with status 200": "login",
    "gzip on the wire": "gzip",
    "HEAD says 200, GET says 500": "head lies",
}
SPOKEN = ("403", "404 for everything", "reset", "hang", "hang in the middle", "slow drip")  # also without HTTP
OTHER = ["one byte flipped on the store's disk", "one segment gone", "one segment replaced", "expired credential"]
FAULTS = [*CONTENT, *OTHER[:3], *WIRE, OTHER[3]]


@dataclass(frozen=True)
class Right:
    """The right verdicts: by full, by size, by stored where the place keeps a digest; `but` for some places."""

    full: str
    size: str
    stored: str
    but: dict[str, tuple[str, str, str]] = field(default_factory=dict)


def same(verdict: str, **but: tuple[str, str, str]) -> Right:
    return Right(verdict, verdict, verdict, {name.replace("_", " "): value for name, value in but.items()})


OK, ASKED = "intact (size)", "intact (stored)"
HIDDEN = Right("corrupt", OK, "corrupt")  # from a length
SLOW = ("stalled", OK, "stalled")
SHUT = ("stalled", OK, OK)
ZEROS = ("corrupt", OK, OK)
NONE = "none"
RIGHT = {
    NONE: Right("intact (full)", OK, ASKED),
    "absent": same("missing"),
    # A host serves no file of another length than the image's: it answers 404.
    **{name: same("wrong_size", cached=("missing",) * 3) for name in ("empty", "truncated", "longer")},
    **dict.fromkeys(("one byte flipped", "same size, other content", "all zeros"), HIDDEN),
    # Swift checks a segment while it sends it, breaks off, and takes it away.
    # An OSD does not give out what it knows to be wrong; it waits for another copy, and here there is none.
    OTHER[0]: Right(
        "corrupt",
        OK,
        ASKED,
        {**dict.fromkeys(LARGE, ("corrupt", OK, OK)), "S3 (radosgw)": ("stalled", OK, ASKED), "RBD": SHUT},
    ),
    # The length of a DLO is that of the segments there are; an SLO has a manifest. RBD reads zeros where nothing is.
    OTHER[1]: same("", Swift_DLO=("wrong_size",) * 3, Swift_SLO=("corrupt", OK, "corrupt"), RBD=ZEROS, Cinder=ZEROS),
    OTHER[2]: same("", Swift_DLO=("corrupt", OK, OK), Swift_SLO=("corrupt", OK, "corrupt"), RBD=ZEROS, Cinder=ZEROS),
    "401": same("denied"),
    "403": same("denied"),
    "404": same("missing"),
    "404 for everything": same("unreachable", http=("missing",) * 3, cached=("missing",) * 3),
    "429": same("unreachable"),
    "500": same("unreachable"),
    "503": same("unreachable"),
    # librados connects again and again.
    "reset": same("unreachable", RBD=("stalled",) * 3),
    "hang": same("stalled"),
    # The manifest of an SLO is read as well.
    **dict.fromkeys(("hang in the middle", "slow drip"), Right("stalled", OK, ASKED, {"Swift SLO": SLOW})),
    "redirect to a login page": same("unreachable"),
    "login page with status 200": same("unreachable", http=("wrong_size",) * 3, cached=("wrong_size",) * 3),
    # Only the answers of the API come over HTTP.
    "gzip on the wire": same("unreachable", Cinder=("intact (full)", OK, OK)),
    "HEAD says 200, GET says 500": Right("unreachable", OK, ASKED, {"Swift SLO": ("unreachable", OK, "unreachable")}),
    OTHER[3]: same("denied"),
}


CINDER = {
    OTHER[0]: "its volumes are images of RBD: see there",
    "HEAD says 200, GET says 500": "it is not asked by HEAD",
}


def impossible(name: str, fault: str) -> str | None:
    """Why a place cannot have a fault."""
    if name == "file" and (fault in WIRE or fault == OTHER[3]):
        return "a file has no network and no credential"
    if name == "http" and fault == OTHER[3]:
        return "its URL has no credential; see 401 and 403"
    if fault == OTHER[0] and name in ("file", "http", "cached"):
        return "its disk is the store's: see one byte flipped"
    if fault in OTHER[1:3] and name not in PARTS:
        return "it has no segments"
    if name == "RBD" and fault in WIRE and fault not in SPOKEN:
        return "it does not speak HTTP"
    return CINDER.get(fault) if name == "Cinder" else None


def right(name: str, fault: str) -> tuple[str, str, str]:
    """The right verdicts by full, size and stored."""
    row = RIGHT[fault]
    return row.but.get(name) or (row.full, row.size, row.stored if name in DIGEST else row.size)


@pytest.fixture(scope="module", params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Backend]]:
    """Every kind of place in turn."""
    folder = tmp_path_factory.mktemp("place")
    server = next((server for prefix, server in SERVERS.items() if request.param.startswith(prefix)), None)
    more = [request.getfixturevalue(server)] if server else []
    with BACKENDS[request.param](folder, *more) as made:
        yield request.param, made


def image_of(one: Location) -> Image:
    md5, sha512 = hashlib.md5(DATA).hexdigest(), hashlib.sha512(DATA).hexdigest()
    return Image(one.image_id, "active", len(DATA), Digest("sha512", sha512), checksum=md5)


def verdict(place: tuple[str, Backend], fault: str, one: Location, evidence: Evidence) -> str:
    """What a look says, and by which evidence if it is good."""
    name, backend = place
    sources = backend.patient
    if right(name, fault)[[FULL, SIZE, STORED].index(evidence)] == "stalled":
        sources = backend.hasty
    if fault == OTHER[3] and fault not in backend.own:
        assert backend.expired is not None
        sources, one = backend.expired(one)
    result = probe(sources, image_of(one), one, evidence)
    assert result.detail
    return f"intact ({result.evidence})" if result.verdict is Verdict.INTACT else str(result.verdict)


@contextmanager
def prepared(backend: Backend, fault: str) -> Iterator[tuple[Backend, Location]]:
    """The place with this fault."""
    if fault in backend.own:
        with backend.own[fault](backend) as made:
            yield made
        return
    try:
        yield backend, prepare(backend, fault)
    finally:
        if backend.proxy:
            backend.proxy.order(None)


def prepare(backend: Backend, fault: str) -> Location:
    """The object, with this fault or behind it."""
    if fault in CONTENT:
        return backend.hold(CONTENT[fault])
    if fault == OTHER[0]:
        assert backend.rot is not None
        return backend.rot()
    if fault in OTHER[1:3]:
        assert backend.part is not None
        return backend.part(None if fault == OTHER[1] else bytes(SEGMENT))
    one = backend.hold(DATA)
    if fault in WIRE:
        assert backend.proxy is not None
        assert probe(backend.patient, image_of(one), one, SIZE).verdict is Verdict.INTACT  # and has its token now
        backend.proxy.order(WIRE[fault], "" if fault == "404 for everything" else backend.path(one))
    return one


@pytest.mark.parametrize("fault", FAULTS)
def test_verdict(place: tuple[str, Backend], fault: str) -> None:
    """The verdict on this place with this fault is right by every evidence, and a good one never claims too much."""
    name, backend = place
    if impossible(name, fault):
        return
    with prepared(backend, fault) as (there, one):
        size, stored, full = (verdict((name, there), fault, one, evidence) for evidence in (SIZE, STORED, FULL))
        if name in LARGE and fault == OTHER[0]:  # a moment after the look that found it
            settle(lambda: verdict((name, there), fault, one, FULL) == "corrupt")
            full = "corrupt"
    assert (full, size, stored) == right(name, fault)


def test_no_fault(place: tuple[str, Backend]) -> None:
    """The same places without a fault are intact: what the matrix finds is the fault."""
    name, backend = place
    one = backend.hold(DATA)
    found = [verdict(place, NONE, one, evidence) for evidence in (FULL, SIZE, STORED)]
    assert tuple(found) == right(name, NONE)


def table(number: int) -> str:
    """The verdicts by one evidence, as Markdown."""
    lines = [["fault", *BACKENDS], ["---"] * (len(BACKENDS) + 1)]
    for fault in FAULTS:
        cells = ["-" if impossible(name, fault) else right(name, fault)[number] for name in BACKENDS]
        lines.append([fault, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TEXT = """# Faults and verdicts

What `replica verify` says of every kind of place with every fault. `tests/verify/places/test_fault_matrix.py` makes
each of them on a real server: a folder, nginx, a host of ours, Swift, Swift as an S3 server, Ceph (16.2, one monitor,
one OSD) as an S3 server and for RBD images as glance_store writes them, and Cinder with volumes on that Ceph; faults
of the wire in a proxy in front, or in Ceph itself. It writes this page, and fails when a verdict is another one.
`intact (size)` is `intact` by evidence `size`: the length is right, no more.

## --evidence full

{full}

## --evidence size

{size}

## --evidence stored

{stored}

## Why

{why}

`-` is what cannot be:

{reasons}
"""


def document() -> str:
    """The whole page."""
    found: dict[str, list[str]] = {}
    for fault in FAULTS:
        for name in BACKENDS:
            if reason := impossible(name, fault):
                found.setdefault(reason, []).append(name)
    reasons = "\n".join(f"- {', '.join(dict.fromkeys(names))}: {reason}." for reason, names in found.items())
    return TEXT.format(full=table(0), size=table(1), stored=table(2), why=WHY, reasons=reasons)


WHY = """\
- What only shows in the content is not seen by a length. `stored` sees it where the place computed a digest when the
  bytes were written; not what happened to the bytes on its disk since.
- A host serves no file of another length than the image's, so that it is `missing` there.
- Swift checks a segment of a large object while it sends it, and breaks off. Then each segment is asked for, and one
  that is gone or is not as listed is damage (evidence `stored`); the first verification of a segment that rotted may
  come too early for that and be `unreachable`. A DLO is made of whatever segments there are, so that another one of the
  same size shows by its bytes alone.
- A 404 counts as `missing` when the server is the one it should be: Swift has to answer for the container as well, S3
  for the bucket, Cinder for its list of volumes, and to an administrator, and the URL to name the S3 server asked.
- A web server that sends a login page with status 200 cannot be told from a copy of another size: `replica prune`
  removes nothing for a `wrong_size` over http. Answers of Swift and S3 bear their marks; a page without is no answer.
- A token of Swift that ran out is renewed unseen; an expired credential is a key that is no longer taken, or a
  signature out of date.
- For RBD these are: 403 a client whose capabilities leave the pool out; "404 for everything" a pool that is no more;
  a reset daemons that are gone, to which librados connects again and again; a hang daemons that are stopped; a slow
  drip an image with a limit of 1000 bytes per second. Segments are the objects of an image, and read as zeros when they
  are gone.
- A byte flipped on the disk of an OSD fails its checksum: the OSD takes another OSD's copy and repairs its own. Here
  there is none, so that it waits for one, and the read with it, by RBD or by S3.
- For Cinder faults of the wire are those of its API; the bytes come from Ceph, so that a hang in the middle and a slow
  drip are the OSD's and the image's. A volume's length is what Cinder's metadata say.
- An image that is not found in another cluster than the one its URL names is not `missing`."""


def test_document() -> None:
    """docs/faults.md is this matrix."""
    if os.environ.get(WRITE):
        DOCUMENT.write_text(document())
    again = f"{WRITE}=1 pytest {Path(__file__).relative_to(ROOT)} -k document writes it anew"
    assert DOCUMENT.read_text() == document(), f"{DOCUMENT.name} is not what the matrix says; {again}"
