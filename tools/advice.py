"""What an operator does next about a location that is not intact."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from glance_replicas.ledger.verify_requests import WITHDRAWN
from glance_replicas.location import described, redact
from glance_replicas.model import Image, Result
from glance_replicas.removal.last_copy import has_store
from glance_replicas.stores import kinds
from glance_replicas.stores.file.access import REMEDY
from glance_replicas.stores.owner import ASK_GLANCE
from glance_replicas.verdict import Evidence, Verdict

from .output.text import short, visible

if TYPE_CHECKING:
    from ..verify.summary import IntactCopies


def problem(image: Image, result: Result) -> str:
    """One line: which image, what is wrong, where."""
    name = f" ({image.name})" if image.name else ""
    detail = result.detail.partition(REMEDY)[0].removeprefix(f"{redact(result.location.url)}: ")
    line = f"image {image.id}{name}: {result.verdict} {described(result.location)}" + (f": {detail}" if detail else "")
    return visible(short(line))


def differing(image: Image, first: Result, other: Result) -> Iterator[str]:
    """Two lines about copies of an image without a digest that are not the same."""
    name = f" ({image.name})" if image.name else ""
    copies = " and ".join(
        f"{described(result.location)} ({result.digest.value})" for result in (first, other) if result.digest
    )
    yield visible(short(f"image {image.id}{name}: copies differ: {copies}; one of them is damaged"))
    yield "    next: keep both; no digest tells which is right: boot the image from each, and upload the good one again"


def only_cached(image: Image) -> str:
    """One line: an image that no store has any more, or that every store has damaged; its copies may vanish."""
    name, what = f" ({image.name})" if image.name else "", "is intact" if has_store(image) else "is left"
    hosts = ", ".join(sorted({location.host or redact(location.url) for location in image.cached}))
    return visible(short(f"image {image.id}{name}: no durable copy {what}: only cached, on {hosts}"))


def put_back(image: Image) -> str:
    """The command for that."""
    if has_store(image):
        return f"replica repair {image.id} --yes"
    return f"replica repair {image.id} --to-store STORE --yes"


def next_step(image: Image, result: Result, good: "IntactCopies") -> str:
    """The command to run next, or what to look after first."""
    if result.verdict.is_damage:
        is_empty = image.size == 0 and not result.location.is_cached
        order = f"replica repair {image.id}, which needs no other copy: the image is empty"
        return order if is_empty else _damaged(image, result, good)
    if result.evidence is Evidence.SAMPLE and result.verdict is Verdict.UNVERIFIABLE:
        return f"replica verify {image.id} --evidence full"
    if ASK_GLANCE in result.detail:
        return f"openstack image show {image.id}, as its owner or an admin; then: replica verify {image.id}"
    again = f"replica verify {image.id}"
    if result.verdict is Verdict.DENIED and REMEDY in result.detail:
        return f"{result.detail.partition(REMEDY)[2]}; then: {again}"
    place = f"host {result.location.host}" if result.location.host else f"store {result.location.store or ''}".strip()
    return result.verdict.next_step.format(place=place, again=again)


def _damaged(image: Image, result: Result, good: "IntactCopies") -> str:
    if WITHDRAWN in result.detail:
        return f"nothing has to be done; to get the copy back: replica copy {image.id} --to {result.location.host}"
    if result.verdict is Verdict.WRONG_SIZE and kinds.of(result.location.url).is_web:
        host = result.location.host
        order = f"; to have it fetched again: replica prune {image.id} --host {host}" if host else ""
        return f"check what the web server sends: a login or error page has another size, too{order}"
    if image.id in good.durable:
        return f"replica repair {image.id}; or, to remove it: replica prune {image.id} --state {result.verdict}"
    if [location for location in image.durable if location.row != result.location.row]:
        return f"keep everything until another durable copy is known to be intact: replica verify {image.id}"
    if image.id in good.cached:
        return f"replica repair {image.id}, from the one {described(good.cached[image.id])}: no durable copy is intact"
    return "no intact copy was seen: keep everything, and restore the image from where it came from"
