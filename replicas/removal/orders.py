"""Removals of cached copies that somebody orders: noted, decided, handed to the host, and decided again by it.

Every removal of a cached copy by order goes this way, whoever gives it: the API, the cache API, a janitor that carries
out what it finds in the ledger. A removal is written down before it is decided, so that of two orders given at the same
time on two hosts at least one sees the other; and a host decides once more when it is about to remove the file. What
cannot be asked is refused.

    orders = RemovalOrders(catalogue, ledger, settings)
    try:
        number = orders.order(copy, reason="asked for through the API", who="user u1")
    except LastCopy as error:  # 409 with the reason and the next command

Killed after the note: it is void after some minutes, nobody acts on it. Killed after it was handed over: the host does
the rest.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..database import several_writers
from ..errors import LastCopy, LedgerError
from ..ledger.host_registry import silent_after_seconds
from ..ledger.ledger import Ledger, Withdrawal
from ..ledger.schema.rows import place_key
from ..model import Location
from .known import KnownCopies
from .last_copy import Key, why_kept

if TYPE_CHECKING:
    from ..catalogue.images import Catalogue
    from ..settings import Settings

log = logging.getLogger(__name__)


class RemovalOrders:
    """Every method raises CatalogueError or LedgerError when it cannot be known what may go: then nothing goes."""

    def __init__(self, catalogue: "Catalogue", ledger: Ledger, settings: "Settings") -> None:
        self._catalogue, self._ledger = catalogue, ledger
        self._known = KnownCopies(ledger.database, silent_after_seconds(settings))

    def order(self, copy: Location, *, reason: str, who: str, forced: str | None = None) -> int:
        """The host of this cached copy is asked to remove it; the number of the removal in the ledger.

        Raises LastCopy when it is the last intact copy that is known of, unless `forced` says why it may go all the
        same: whoever passes that has made sure that an admin said so. It is recorded, with what it overruled.
        """
        line = self._ledger.request_withdrawal(copy, reason=reason, who=who, row_only=True)
        try:
            why = self._why_kept((copy.image_id, place_key(copy)), line)
            if why is not None and forced is None:
                raise LastCopy(f"{why}. {next_step(copy.image_id)}")
        except BaseException as error:
            with suppress(LedgerError):
                self._ledger.refuse_withdrawal(line, str(error))
            raise
        proof: dict[str, Any] | None = None
        if forced is not None:
            proof = {"forced": True, "who": who, "why": forced, "overruled": why}
            log.warning("image %s: removal from host %s forced by %s: %s", copy.image_id, copy.host, who, forced)
        self._ledger.hand_over(line, proof)
        return line

    def is_refused(self, request: Withdrawal, verified_at: float | None = None) -> bool:
        """Whether a host must not do what it was asked for after all; the ledger says why, and the request is closed.

        `verified_at`: when the host itself read the file last and found it right, in seconds since the epoch; a
        verdict of before then is of another file.
        """
        if (request.proof or {}).get("forced"):
            return False
        why = self._why_kept((request.image_id, request.place), request.id, verified_at)
        if why is not None:
            log.warning("image %s: not removed as asked by %s: %s", request.image_id, request.who, why)
            self._ledger.refuse_withdrawal(request.id, why)
        return why is not None

    def expendable(self, rows: Iterable[Location]) -> Iterator[Location]:
        """Of these rows, whose hosts or files cannot be had, those that may go: not those of a last intact copy."""
        found = list(rows)
        with several_writers.causal_reads():
            images = {image.id: image for image in self._catalogue.images({location.image_id for location in found})}
            known = self._known.of({location.image_id for location in found})
        for location in found:
            if (
                why := why_kept(images.get(location.image_id), (location.image_id, place_key(location)), known)
            ) is None:
                yield location
            else:
                log.warning("image %s: row of host %s stays: %s", location.image_id, location.host, why)

    def _why_kept(self, key: Key, line: int, verified_at: float | None = None) -> str | None:
        with several_writers.causal_reads():
            known, image = self._known.of([key[0]], but=line), self._catalogue.image(key[0])
        last = known.lasts.get(key)
        if last is not None and verified_at is not None and last.full_checked_at is not None:
            is_older = last.full_checked_at.timestamp() < verified_at
            known = known.without(key) if is_older else known
        return why_kept(image, key, known)


def next_step(image_id: str) -> str:
    """What puts the image back into a store."""
    return f"Put it back into a store first: replica repair {image_id} --yes, or with --to-store STORE"
