"""Which location may go: a proof that the image keeps enough, or a refusal. Rules only, no I/O.

What counts as kept is a *place*, not a row: two names of one copy are one copy. A place counts when it is durable, one
fresh verification of our own read all its bytes, and nobody's says anything but intact. What others have recorded since
can only hold a removal back, whenever their clocks say that it was. Anything not known does not count, and not knowing
about the target is never a reason to remove it. Why the target is to go is the `causes`' part.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from ..location import object_of, place, redact
from ..model import Digest, Image, Location, Result
from ..verdict import Evidence, Verdict
from .causes import DAMAGED, Cause, Doubt, Identity, proves_intact

__all__ = ["DAMAGED", "Proof", "Refusal", "removable"]

MAX_AGE_SECONDS = 300.0  # between the last verification of a copy and the removal that relies on it
CLOCK_SLACK_SECONDS = 2.0  # a verification further in the future than this was not timed by our clock


@dataclass(frozen=True)
class ProofLocation:
    """One location as a proof names it; the URL is redacted."""

    url: str
    store: str | None
    verdict: str
    evidence: str
    checked_at: str  # ISO 8601, UTC
    digest: str  # ALGORITHM:HEX


@dataclass(frozen=True)
class Proof:
    """Why one location may go: what goes, for which reason, and the durable copies that stay."""

    image_id: str
    target: str  # redacted URL
    reason: str
    keeps: tuple[ProofLocation, ...]
    min_durable: int
    cause: str  # the name of what condemned it

    def as_dict(self) -> dict[str, Any]:
        """The proof as JSON can hold it, for the ledger."""
        return asdict(self)

    def __str__(self) -> str:
        names = ", ".join(f"{copy.store or copy.url} ({copy.verdict}, {copy.evidence})" for copy in self.keeps)
        return f"keeps {len(self.keeps)} intact durable {'copy' if len(self.keeps) == 1 else 'copies'}: {names}"


@dataclass(frozen=True)
class Refusal:
    """Why one location stays. `unknown`: for want of an answer, rather than because of one."""

    image_id: str
    target: str  # redacted URL
    reason: str
    unknown: bool = False


def removable(
    image: Image,
    target: Location,
    results: Iterable[Result],
    *,
    now: datetime,
    judged: Digest | None,
    cause: Cause,
    others: Iterable[Result] = (),
    min_durable: int = 1,
    max_age_seconds: float = MAX_AGE_SECONDS,
    identity: Identity = place,
) -> Proof | Refusal:
    """A Proof that `target` may go from `image`, as the catalogue has it now, or a Refusal that says why not.

    `results` are one round of verification, `judged` the digest that they were judged by, `others` what has been
    recorded since it began. `identity` names the copy behind a location; the caller may know more than the
    URL says (two paths of one file).
    """

    def refuse(reason: str, unknown: bool = False) -> Refusal:
        return Refusal(image.id, redact(target.url), reason, unknown)

    ours = [result for result in results if _is_fresh(result, now, max_age_seconds)]
    known = [*ours, *others]
    if not any(location.row == target.row and location.url == target.url for location in image.locations):
        return refuse("the location is no longer in the catalogue")
    if image.digest is None:
        return refuse("the image has no digest, so that no copy of it can be proven intact")
    if image.digest != judged:
        return refuse("the image changed after its copies were verified; run the command again", unknown=True)
    of_target = [result for result in known if identity(result.location) == identity(target)]
    condemned = cause.judge(image, target, of_target, identity)
    if isinstance(condemned, Doubt):
        return refuse(condemned.reason, condemned.unknown)
    kept, needed = _kept(image, ours, known, identity), max(1, min_durable)
    if len(kept) < needed:
        return refuse(_too_few(image, target, len(kept), needed), _is_undecided(image, known))
    keeps = tuple(_copy(result, image.digest) for result in kept)
    return Proof(image.id, redact(target.url), condemned, keeps, needed, cause.name)


def _is_fresh(result: Result, now: datetime, max_age_seconds: float) -> bool:
    if result.checked_at is None:
        return False
    age = now - result.checked_at
    return -timedelta(seconds=CLOCK_SLACK_SECONDS) <= age <= timedelta(seconds=max_age_seconds)


def _kept(image: Image, ours: list[Result], known: list[Result], identity: Identity) -> list[Result]:
    """For each durable place that certainly is intact our verification that read every byte.

    The target's own place is one of them only when another row goes on naming it: else every verification condemns it,
    or it is volatile.
    """
    of_place: Mapping[Hashable, list[Result]] = {identity(location): [] for location in image.locations}
    for result in ours:
        of_place.get(identity(result.location), []).append(result)
    doubted = {identity(location) for location in image.cached}
    doubted |= {identity(result.location) for result in known if result.verdict is not Verdict.INTACT}
    proofs = {
        object_of(copy): next(result for result in found if result.evidence is Evidence.FULL)
        for copy, found in of_place.items()
        if copy not in doubted and proves_intact(found)
    }
    return list(proofs.values())


def _too_few(image: Image, target: Location, kept: int, needed: int) -> str:
    other = "" if target.is_cached else "other "
    if not [location for location in image.durable if location.row != target.row]:
        return f"the image has no {other}durable copy"
    if not kept:
        return f"no {other}durable copy of the image is proven intact"
    return f"{kept} {other}durable {'copy is' if kept == 1 else 'copies are'} proven intact, {needed} must stay"


def _is_undecided(image: Image, known: list[Result]) -> bool:
    """Whether copies are too few for want of an answer: one of them was not verified, or could not be."""
    of_place = [[result.verdict for result in known if result.location == durable] for durable in image.durable]
    return any(not found or any(verdict.is_unknown for verdict in found) for found in of_place)


def _copy(result: Result, digest: Digest) -> ProofLocation:
    assert result.checked_at is not None  # fresh
    return ProofLocation(
        redact(result.location.url),
        result.location.store,
        str(result.verdict),
        str(result.evidence),
        result.checked_at.isoformat(),
        f"{digest.algorithm}:{digest.value}",
    )
