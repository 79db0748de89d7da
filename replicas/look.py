"""One look at one location: ask its source, hash what comes, and have it judged."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from . import checksum
from .errors import Absent, Denied, SourceError, Stalled, Unsupported
from .model import Digest, Evidence, Image, Location, Result, Seen, Verdict
from .sources import Sources
from .verify import judge

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


def look(
    sources: Sources,
    image: Image,
    location: Location,
    evidence: Evidence,
    *,
    progress: Callable[[int], None] | None = None,
    throttle: Callable[[int], None] | None = None,
) -> Result:
    """The verdict on one location, with evidence `size`, or `full` for everything deeper. Raises no SourceError.

    `progress` is told the length of every chunk read, in bytes; so is `throttle`, which may sleep to keep a rate. The
    result says `size` when a length alone decided, whatever was asked for: nothing is read of a copy that states a
    wrong length, and reading stops as soon as a copy proves longer than the image.
    """
    began = time.monotonic()
    try:
        if evidence is Evidence.SIZE:
            seen = Seen(Evidence.SIZE, sources.size(location))
        else:
            seen = _read(sources, image, location, _tell(progress, throttle))
    except SourceError as error:
        seen = Seen(_shown(evidence), error=str(error), failure=_VERDICTS.get(type(error), Verdict.UNREACHABLE))
    verdict, detail = judge(image, location, seen)
    return Result(
        location,
        verdict,
        seen.evidence,
        detail,
        checked_at=datetime.now(UTC),
        seconds=time.monotonic() - began,
        size=seen.size,
    )


def _read(sources: Sources, image: Image, location: Location, tell: Callable[[int], None]) -> Seen:
    """Every byte, hashed if there is anything to compare the hash with."""
    running, length = _hash(image), 0
    with sources.open(location) as body:
        if image.size is not None and body.size not in (None, image.size):
            return Seen(Evidence.SIZE, body.size)
        for chunk in body:
            length += len(chunk)
            tell(len(chunk))
            if image.size is not None and length > image.size:
                return Seen(Evidence.SIZE, image.size + 1, error="or more, it was not read any further")
            if running:
                running.update(chunk)
    digest = Digest(image.digest.algorithm, running.hexdigest()) if image.digest and running else None
    return Seen(Evidence.FULL, length, digest)


def _hash(image: Image) -> checksum.Hash | None:
    if image.digest is None:
        return None
    try:
        return checksum.start(image.digest.algorithm)
    except ValueError:  # unknown to this Python; `judge` says that nothing was hashed
        return None


def _shown(evidence: Evidence) -> Evidence:
    return Evidence.SIZE if evidence is Evidence.SIZE else Evidence.FULL


def _tell(*listeners: Callable[[int], None] | None) -> Callable[[int], None]:
    def tell(length: int) -> None:
        for listener in listeners:
            if listener:
                listener(length)

    return tell
