"""Probes one location: asks its source, hashes what comes, and has it judged."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from .. import checksum
from ..errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported, WrongAnswer
from ..location import redact
from ..model import Digest, Image, Location, Result, Seen
from ..stores.sources import Sources
from ..verdict import Evidence, Verdict
from .judge import SAMPLE, SAMPLES, comparable, judge, ranges

UNNAMED = "sha256"  # by which copies of an image without a digest are compared

# Every other fault (Unreachable, WrongAnswer) is `unreachable`: an answer that is no copy of anything, such as a
# redirect to a login page or an encoded body, shows nothing about the bytes. A wrong length is not among them.
_VERDICTS: Mapping[type[SourceError], Verdict] = MappingProxyType(
    {
        Absent: Verdict.MISSING,
        Denied: Verdict.DENIED,
        Stalled: Verdict.STALLED,
        Unsupported: Verdict.UNSUPPORTED,
    }
)


def probe(
    sources: Sources,
    image: Image,
    location: Location,
    evidence: Evidence,
    *,
    reference: Location | None = None,
    progress: Callable[[int], None] | None = None,
    throttle: Callable[[int], None] | None = None,
) -> Result:
    """The verdict on one location. Raises no SourceError.

    `reference` is another copy of the image that is known to be intact: what a sample is compared with.
    `progress` is told the length of every chunk read, in bytes; so is `throttle`, which may sleep to keep a rate. The
    result never claims more than was done: it says `size` when a length alone decided, because the place keeps no
    digest to compare, there is no reference, or the copy states a wrong length, and nothing more of it is read then.
    """
    began = time.monotonic()
    tell = _tell(progress, throttle)
    try:
        seen = _seen(sources, image, location, evidence, reference=reference, tell=tell)
    except SourceError as error:
        seen = _failed(sources, location, evidence, error)
    verdict, detail = judge(image, location, seen)
    if verdict is Verdict.INTACT and not location.is_cached and (why := sources.obstacle(location)):
        verdict, detail = Verdict.DENIED, f"intact, but Glance cannot read it: {why}"
    return Result(
        location,
        verdict,
        seen.evidence,
        detail,
        checked_at=datetime.now(UTC),
        seconds=time.monotonic() - began,
        size=seen.size,
        digest=seen.digest if seen.evidence is Evidence.FULL else None,
    )


def _seen(
    sources: Sources,
    image: Image,
    location: Location,
    evidence: Evidence,
    *,
    reference: Location | None,
    tell: Callable[[int], None],
) -> Seen:
    if evidence is Evidence.SIZE:
        return Seen(Evidence.SIZE, sources.size(location))
    if evidence is Evidence.STORED:
        return _ask(sources, image, location)
    if evidence is Evidence.SAMPLE and image.size is not None and image.size > SAMPLES * SAMPLE:
        return _sample(sources, image, location, reference, tell)
    return _read(sources, image, location, tell)


def _failed(sources: Sources, location: Location, evidence: Evidence, error: SourceError) -> Seen:
    """What a fault means. An object that its place cannot deliver may have lost a part, which the place can tell."""
    if isinstance(error, Unreachable) and evidence in (Evidence.SAMPLE, Evidence.FULL):
        try:
            damage = sources.damage(location)
        except SourceError:
            damage = None
        if damage:
            return Seen(Evidence.STORED, error=damage, failure=Verdict.CORRUPT)
    return Seen(evidence, error=str(error), failure=_VERDICTS.get(type(error), Verdict.UNREACHABLE))


def _ask(sources: Sources, image: Image, location: Location) -> Seen:
    """What the place says of the object; of `size` only when it has no digest that the image has as well."""
    stored = sources.stored(location)
    if stored.damage:
        return Seen(Evidence.STORED, stored.size, error=stored.damage, failure=Verdict.CORRUPT)
    fitting = [digest for digest in stored.digests if comparable(image, digest.algorithm)]
    if fitting:
        return Seen(Evidence.STORED, stored.size, fitting[0], basis=stored.basis)
    return Seen(Evidence.SIZE, stored.size, basis=stored.basis)


def _sample(
    sources: Sources, image: Image, location: Location, reference: Location | None, tell: Callable[[int], None]
) -> Seen:
    """Ranges of a large image, those of today, held against the same ranges of the reference."""
    size = sources.size(location)
    if size not in (None, image.size) or image.size is None:
        return Seen(Evidence.SIZE, size)
    wanted = ranges(image.size, f"{image.id} {datetime.now(UTC):%Y-%m-%d}")
    pieces = [_range(sources, location, part, tell) for part in wanted]
    length = sum(map(len, wanted))
    done = f"{len(wanted)} ranges, {length} bytes, could be read"
    if reference is None:
        return Seen(Evidence.SIZE, size, basis=f"{done}; not compared: no other copy was intact in full")
    other = redact(reference.url)
    try:
        others = [_range(sources, reference, part, tell) for part in wanted]
    except SourceError as error:
        return Seen(Evidence.SIZE, size, basis=f"{done}; not compared: {error}")
    for part, mine, its in zip(wanted, pieces, others, strict=True):
        if mine != its:
            where = f"bytes {part.start}-{part.stop - 1} are not those of {other}"
            text = f"{where}; verify both in full to see which is wrong"
            return Seen(Evidence.SAMPLE, size, error=text, failure=Verdict.UNVERIFIABLE)
    return Seen(Evidence.SAMPLE, size, sampled=length, basis=f"the same as in {other}")


def _range(sources: Sources, location: Location, wanted: range, tell: Callable[[int], None]) -> bytes:
    """The digest of these bytes. Raises WrongAnswer when the object ends before them."""
    running, left = checksum.start("sha256"), len(wanted)
    with sources.open(location, wanted.start) as body:
        for chunk in body:
            tell(len(chunk))
            running.update(memoryview(chunk)[:left])
            left -= min(left, len(chunk))
            if not left:
                return bytes.fromhex(running.hexdigest())
    raise WrongAnswer(f"{redact(location.url)}: ends {left} bytes before byte {wanted.stop}")


def _read(sources: Sources, image: Image, location: Location, tell: Callable[[int], None]) -> Seen:
    """Every byte, hashed; where the image has no digest, to hold its copies against each other."""
    running, length = _hash(image), 0
    with sources.open(location) as body:
        if image.size is not None and body.size not in (None, image.size):
            return Seen(Evidence.SIZE, body.size)
        for chunk in body:
            length += len(chunk)
            tell(len(chunk))
            if image.size is not None and length > image.size:
                return Seen(Evidence.SIZE, image.size + 1, error="or more; reading stopped there")
            if running:
                running.update(chunk)
    algorithm = image.digest.algorithm if image.digest else UNNAMED
    return Seen(Evidence.FULL, length, Digest(algorithm, running.hexdigest()) if running else None)


def _hash(image: Image) -> checksum.Hash | None:
    try:
        return checksum.start(image.digest.algorithm if image.digest else UNNAMED)
    except ValueError:  # unknown to this Python; `judge` says that nothing was hashed
        return None


def _tell(*listeners: Callable[[int], None] | None) -> Callable[[int], None]:
    def tell(length: int) -> None:
        for listener in listeners:
            if listener:
                listener(length)

    return tell
