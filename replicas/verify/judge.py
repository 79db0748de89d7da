"""The rule that makes a verdict of what one verification of a location brought home. No I/O.

Intact means: nothing that was read differs from the image, and enough was read for the evidence claimed: with
`size` the length alone; with `stored` the digest that the place keeps; with `sample` ranges that are those of a copy
known to be intact; with `full` every byte's digest. What was not compared is `unverifiable`.
"""

import random
from collections.abc import Callable, Hashable, Iterator

from .. import checksum
from ..location import place
from ..model import Digest, Image, Location, Result, Seen
from ..verdict import Evidence, Verdict

NO_DIGEST = "the image has no digest to compare with"
SAMPLES = 8  # ranges of a sample
SAMPLE = 1 << 20  # bytes of each


def judge(image: Image, location: Location, seen: Seen) -> tuple[Verdict, str]:
    """The verdict, and one line that says what was expected and what was found. Total and deterministic."""
    if location.image_id != image.id:
        return Verdict.UNVERIFIABLE, f"the location is of image {location.image_id}, not of {image.id}"
    if seen.failure is not None:
        return seen.failure, seen.error or f"the verification ended as {seen.failure}"
    if image.size is not None and seen.size is not None and seen.size != image.size:
        more = f"; {seen.error}" if seen.error else ""
        return Verdict.WRONG_SIZE, f"expected {image.size} bytes, found {seen.size}{more}"
    if seen.evidence is Evidence.SIZE or (image.size == 0 and image.digest is None):
        return _by_size(image, seen)
    if seen.evidence is Evidence.SAMPLE:
        return _by_sample(image, seen)
    return _by_digest(image, seen)


def comparable(image: Image, algorithm: str) -> Digest | None:
    """The digest of this algorithm that the image must have, if Glance keeps one: the multihash, or its md5 beside."""
    if image.digest is not None and image.digest.algorithm == algorithm:
        return image.digest
    return checksum.expected(None, None, image.checksum) if algorithm == "md5" else None


def ranges(size: int, seed: str) -> list[range]:
    """The bytes of a sample, in order: the first, the last, others by the seed; everything of a small image.

    `SAMPLES` ranges of `SAMPLE` bytes at most; none overlap.
    """
    blocks = -(-size // SAMPLE)
    inner = range(1, max(blocks - 1, 1))
    chosen = {0, blocks - 1, *random.Random(seed).sample(inner, min(SAMPLES - 2, len(inner)))}  # noqa: S311
    return [range(number * SAMPLE, min((number + 1) * SAMPLE, size)) for number in sorted(chosen) if number >= 0]


def reference(
    image: Image,
    target: Location,
    read: Callable[[Location], Result | None],
    identity: Callable[[Location], Hashable] = place,
) -> Location | None:
    """Another copy to hold a sample against: one that was intact when `read` in full, a durable one if there is.

    A location of the same `identity` as the target's is no other copy.
    """
    for location in _by_trust(image):
        last = read(location)
        intact = last is not None and last.verdict is Verdict.INTACT and last.evidence is Evidence.FULL
        if intact and identity(location) != identity(target):
            return location
    return None


def _by_trust(image: Image) -> Iterator[Location]:
    yield from image.durable
    yield from image.cached


def _by_size(image: Image, seen: Seen) -> tuple[Verdict, str]:
    if image.size is None:
        return Verdict.UNVERIFIABLE, "the image has no size to compare with"
    if seen.size is None:
        return Verdict.UNVERIFIABLE, f"expected {image.size} bytes, the place does not say how many it has"
    if image.digest is None and image.size:  # no verification at all can say that its bytes are right
        return Verdict.UNVERIFIABLE, f"{NO_DIGEST}; {image.size} bytes as expected; {seen.basis or 'nothing was read'}"
    return Verdict.INTACT, f"{image.size} bytes as expected; {seen.basis or 'the content was not read'}"


def _by_sample(image: Image, seen: Seen) -> tuple[Verdict, str]:
    """With the size known to be right, or not known. A difference is a failure: it does not say which copy is wrong."""
    if not seen.sampled:
        return Verdict.UNVERIFIABLE, "nothing was compared"
    if image.size is None or seen.size is None:
        return Verdict.UNVERIFIABLE, "no size to compare"
    return Verdict.INTACT, f"{image.size} bytes as expected, {seen.sampled} of them compared; {seen.basis}"


def _by_digest(image: Image, seen: Seen) -> tuple[Verdict, str]:
    """With the size known to be right, or not known."""
    found = seen.digest
    wanted = (comparable(image, found.algorithm) if found else None) or image.digest
    size = f"{seen.size} bytes" + ("" if image.size is None else " as expected") if seen.size is not None else "no size"
    size += f"; {seen.basis}" if seen.basis else ""
    if wanted is None:
        read = f"; {found.algorithm} {found.value}" if found else ""
        return Verdict.UNVERIFIABLE, f"{NO_DIGEST}{read}; {size}"
    if found is None:
        return Verdict.UNVERIFIABLE, f"expected {wanted.algorithm} {wanted.value}, nothing was hashed; {size}"
    if found.algorithm != wanted.algorithm:
        return Verdict.UNVERIFIABLE, f"expected a digest by {wanted.algorithm}, found one by {found.algorithm}; {size}"
    if not checksum.agrees(wanted, found.value):
        return Verdict.CORRUPT, f"expected {wanted.algorithm} {wanted.value}, found {found.value}; {size}"
    if seen.size is None:
        return Verdict.UNVERIFIABLE, f"{wanted.algorithm} as expected, but of no stated number of bytes"
    return Verdict.INTACT, f"{wanted.algorithm} and {size}" + ("" if image.size is not None else "; none to compare")
