"""The last intact copy of an image that the ledger knows of is not removed, whoever asks. Rule only, no I/O.

1. While a durable copy is not known to be damaged, every cached copy may go.
2. Where every durable location was found damaged, or there is none, a cached copy goes only while another cached copy
   stays that is known to be intact, on a host that lives, and that nobody is about to remove.
3. A cached copy that was read in full and found wrong is no intact copy: it may go.
4. Of an image that is deleted, every copy goes.

A verification that brought no verdict changes nothing: what was known before it still holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..ledger.schema.rows import place_key
from ..location import is_replica_of
from ..model import IMAGE_ACTIVE, IMAGE_DEACTIVATED, Image, Last, Location
from ..verdict import Verdict

Key = tuple[str, str]  # image id and `place_key`
_KEEPS = (IMAGE_ACTIVE, IMAGE_DEACTIVATED)


@dataclass(frozen=True)
class LedgerFacts:
    """What the ledger says of some images, all of it as of one moment."""

    lasts: Mapping[Key, Last]
    going: frozenset[Key] = frozenset()  # copies that somebody else is about to remove
    living: Mapping[str, str] = field(default_factory=dict)  # hosts that were heard of not long ago, and their URLs

    def without(self, key: Key) -> "LedgerFacts":
        """The same without what was seen of one place."""
        return replace(self, lasts={known: last for known, last in self.lasts.items() if known != key})


def is_damaged(last: Last | None) -> bool:
    """Whether the last verification of a place that brought a verdict found it damaged."""
    if last is None:
        return False
    hidden = last.verdict.is_unknown and last.full_verdict is not None and last.full_verdict.is_damage
    return hidden or last.standing.is_damage


def has_durable(image: Image, lasts: Mapping[Key, Last]) -> bool:
    """Whether the image has a durable location that is not known to be damaged."""
    return any(not is_damaged(lasts.get((image.id, place_key(location)))) for location in image.durable)


def has_store(image: Image) -> bool:
    """Whether any location of the image is in a store."""
    return bool(image.durable)


def only_cached(image: Image, lasts: Mapping[Key, Last]) -> bool:
    """Whether no durable copy is known to be good while a cached one may be: the worst state short of loss."""
    maybe = [location for location in image.locations if not is_damaged(lasts.get((image.id, place_key(location))))]
    return bool(maybe) and not has_durable(image, lasts)


def why_kept(image: Image | None, key: Key, known: LedgerFacts) -> str | None:
    """Why a cached copy must stay; None: for all that the ledger knows, it may go. `image` as the catalogue has it."""
    if image is None or image.status not in _KEEPS or has_durable(image, known.lasts):
        return None
    if _is_wrong(known.lasts.get(key)) or any(_stays(location, key, known) for location in image.cached):
        return None
    return f"it is the last intact copy of image {image.id} that is known of: {state_of_stores(image)}"


def state_of_stores(image: Image) -> str:
    """Why an image without a good durable copy has none, in words."""
    return "every durable copy is damaged" if has_store(image) else "it has no durable copy"


def _is_wrong(last: Last | None) -> bool:
    """Read in full and found wrong. Less proves nothing of a file on a host: another web server may have answered."""
    return last is not None and last.full_verdict is Verdict.CORRUPT


def _stays(location: Location, going: Key, known: LedgerFacts) -> bool:
    """Whether this cached copy is another one, known to be intact, and not about to go."""
    key = location.image_id, place_key(location)
    last = known.lasts.get(key)
    intact = last is not None and last.full_verdict is Verdict.INTACT and last.standing is Verdict.INTACT
    host = location.host or ""
    url = known.living.get(host)  # a row may name any host: what counts is at that host's own URL
    is_there = url is not None and is_replica_of(location, host, url)
    return intact and is_there and key != going and key not in known.going
