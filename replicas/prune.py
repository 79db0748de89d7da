"""Which location may go: a proof that the image keeps enough, or a refusal. Rules only, no I/O.

What counts as kept is a *place*, not a row: two names of one copy are one copy. A place counts when it is durable, when
every fresh look at it read all bytes and found them intact, and when it is not the place that goes. Anything not known
does not count, and not knowing about the target is never a reason to remove it.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from . import location
from .model import Digest, Evidence, Image, Location, Result, Verdict

MAX_AGE_SECONDS = 300.0  # between the last look at a copy and the removal that relies on it
CLOCK_SLACK_SECONDS = 2.0  # a look further in the future than this was not timed by our clock
DAMAGED = tuple(verdict for verdict in Verdict if verdict.is_damage)
Identity = Callable[[Location], Hashable]


@dataclass(frozen=True)
class Copy:
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
    keeps: tuple[Copy, ...]
    min_durable: int

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
    states: Iterable[Verdict] | None = DAMAGED,
    min_durable: int = 1,
    max_age_seconds: float = MAX_AGE_SECONDS,
    identity: Identity = location.place,
) -> Proof | Refusal:
    """A Proof that `target` may go from `image`, as the catalogue has it now, or a Refusal that says why not.

    `judged` is the digest that the results were judged by. `states` are the verdicts that condemn the target; None: a
    cached replica that goes by the operator's order, whatever its state. `identity` names the copy behind a location;
    the caller may know more than the URL says (two paths of one file).
    """

    def refuse(reason: str, unknown: bool = False) -> Refusal:
        return Refusal(image.id, location.redact(target.url), reason, unknown)

    fresh = [one for one in results if _is_fresh(one, now, max_age_seconds)]
    if not any(one.row == target.row and one.url == target.url for one in image.locations):
        return refuse("the location is no longer in the catalogue")
    if image.digest is None:
        return refuse("the image has no digest, so that no copy of it can be proven intact")
    if image.digest != judged:
        return refuse("the image changed after its copies were looked at; run the command again", unknown=True)
    condemned = _by_order(target) if states is None else _by_state(_of(target, fresh, identity), frozenset(states))
    if isinstance(condemned, Refusal):
        return refuse(condemned.reason, condemned.unknown)
    kept = _kept(image, fresh, identity)
    if len(kept) < max(1, min_durable):
        return refuse(_too_few(image, target, len(kept), max(1, min_durable)), _is_undecided(image, target, fresh))
    keeps = tuple(_copy(result, image.digest) for result in kept)
    return Proof(image.id, location.redact(target.url), condemned, keeps, max(1, min_durable))


def _is_fresh(result: Result, now: datetime, max_age_seconds: float) -> bool:
    if result.checked_at is None:
        return False
    age = now - result.checked_at
    return -timedelta(seconds=CLOCK_SLACK_SECONDS) <= age <= timedelta(seconds=max_age_seconds)


def _of(target: Location, results: Iterable[Result], identity: Identity) -> list[Result]:
    """The results about the copy behind this location, under whatever name."""
    wanted = identity(target)
    return [one for one in results if identity(one.location) == wanted]


def _by_order(target: Location) -> str | Refusal:
    if location.is_ours(target):
        return "cached copy, removed by order"
    return Refusal("", "", "it is no cached replica of ours: only those go without being damaged")


def _by_state(looks: list[Result], states: frozenset[Verdict]) -> str | Refusal:
    """The verdict that condemns a copy: every fresh look agrees on it, and looked deep enough to say so."""
    verdicts = {one.verdict for one in looks}
    if len(verdicts) != 1:
        reason = "its state is not known" if not verdicts else f"looks disagree: {', '.join(sorted(verdicts))}"
        return Refusal("", "", reason, unknown=True)
    verdict = verdicts.pop()
    if verdict.is_unknown:
        return Refusal("", "", f"its state is not known ({verdict}): {looks[0].detail}".rstrip(": "), unknown=True)
    if verdict not in states or not verdict.is_damage:
        return Refusal("", "", f"it is {verdict}")
    if verdict is Verdict.CORRUPT and looks[0].evidence not in (Evidence.STORED, Evidence.FULL):
        return Refusal("", "", f"it is corrupt by evidence {looks[0].evidence} only", unknown=True)
    if verdict is Verdict.WRONG_SIZE and location.scheme(looks[0].location.url) in ("http", "https"):
        # A login page or an error page with status 200 looks just like it.
        return Refusal("", "", "a wrong size from a web server may be another page, not a bad copy", unknown=True)
    return f"{verdict}, evidence {looks[0].evidence}" + (f": {looks[0].detail}" if looks[0].detail else "")


def _kept(image: Image, fresh: list[Result], identity: Identity) -> list[Result]:
    """One result for each durable place that certainly is intact.

    The target's own place is never one of them: every look at it condemns it, or it is volatile.
    """
    looks: Mapping[Hashable, list[Result]] = {identity(one): [] for one in image.locations}
    for result in fresh:
        looks.get(identity(result.location), []).append(result)
    volatile = {identity(one) for one in image.locations if _is_volatile(one)}
    proofs = (_proof(found) for place, found in looks.items() if place not in volatile)
    return [one for one in proofs if one is not None]


def _is_volatile(one: Location) -> bool:
    """Whether the copy is on a host: by its metadata, or by its URL when a user registered that by hand."""
    return one.is_cached or urlsplit(one.url).path.endswith(f"/replicas/{one.image_id}")


def _proof(looks: list[Result]) -> Result | None:
    """The look that read every byte, when no fresh look at the same copy says anything but intact."""
    if any(one.verdict is not Verdict.INTACT for one in looks):
        return None
    return next((one for one in looks if one.evidence is Evidence.FULL), None)


def _too_few(image: Image, target: Location, kept: int, needed: int) -> str:
    other = "" if target.is_cached else "other "
    if not [one for one in image.durable if one.row != target.row]:
        return f"the image has no {other}durable copy"
    if not kept:
        return f"no {other}durable copy of the image is proven intact"
    return f"{kept} {other}durable {'copy is' if kept == 1 else 'copies are'} proven intact, {needed} must stay"


def _is_undecided(image: Image, target: Location, fresh: list[Result]) -> bool:
    """Whether copies are too few for want of an answer: one of them was not looked at, or could not be."""
    others = [one for one in image.durable if one.row != target.row]
    looks = [[one.verdict for one in fresh if one.location == other] for other in others]
    return any(not found or any(one.is_unknown for one in found) for found in looks)


def _copy(result: Result, digest: Digest) -> Copy:
    assert result.checked_at is not None  # fresh
    return Copy(
        location.redact(result.location.url),
        result.location.store,
        str(result.verdict),
        str(result.evidence),
        result.checked_at.isoformat(),
        f"{digest.algorithm}:{digest.value}",
    )
