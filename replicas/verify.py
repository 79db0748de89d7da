"""The rule that makes a verdict of what one look at a location brought home. No I/O.

Intact means: nothing that was looked at differs from the image, and enough was looked at for the evidence claimed. With
`size` that is the length alone; with anything deeper every byte's digest. What was not compared is `unverifiable`.
"""

from . import checksum
from .model import Evidence, Image, Location, Seen, Verdict


def judge(image: Image, location: Location, seen: Seen) -> tuple[Verdict, str]:
    """The verdict, and one line that says what was expected and what was found. Total and deterministic."""
    if location.image_id != image.id:
        return Verdict.UNVERIFIABLE, f"the location is of image {location.image_id}, not of {image.id}"
    if seen.failure is not None:
        return seen.failure, seen.error or f"the look ended as {seen.failure}"
    if image.size is not None and seen.size is not None and seen.size != image.size:
        more = f"; {seen.error}" if seen.error else ""
        return Verdict.WRONG_SIZE, f"expected {image.size} bytes, found {seen.size}{more}"
    if seen.evidence is Evidence.SIZE:
        return _by_size(image, seen)
    return _by_digest(image, seen)


def _by_size(image: Image, seen: Seen) -> tuple[Verdict, str]:
    if image.size is None:
        return Verdict.UNVERIFIABLE, "the image has no size to compare with"
    if seen.size is None:
        return Verdict.UNVERIFIABLE, f"expected {image.size} bytes, the place does not say how many it has"
    return Verdict.INTACT, f"{image.size} bytes as expected; the content was not read"


def _by_digest(image: Image, seen: Seen) -> tuple[Verdict, str]:
    """With the size known to be right, or not known."""
    wanted, found = image.digest, seen.digest
    size = f"{seen.size} bytes" + ("" if image.size is None else " as expected") if seen.size is not None else "no size"
    if wanted is None:
        return Verdict.UNVERIFIABLE, f"the image has no digest to compare with; {size}"
    if found is None:
        return Verdict.UNVERIFIABLE, f"expected {wanted.algorithm} {wanted.value}, nothing was hashed; {size}"
    if found.algorithm != wanted.algorithm:
        return Verdict.UNVERIFIABLE, f"expected a digest by {wanted.algorithm}, found one by {found.algorithm}; {size}"
    if not checksum.agrees(wanted, found.value):
        return Verdict.CORRUPT, f"expected {wanted.algorithm} {wanted.value}, found {found.value}; {size}"
    if seen.size is None:
        return Verdict.UNVERIFIABLE, f"{wanted.algorithm} as expected, but of no stated number of bytes"
    return Verdict.INTACT, f"{wanted.algorithm} and {size}" + ("" if image.size is not None else "; none to compare")
