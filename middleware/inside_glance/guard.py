"""What removals must not do: hang on our rows, or take the last copy of an image that lives.

Both are decided where Glance removes a location (`routed.around_removals`), after Glance's own checks: who may not, or
asks for what there is not, has Glance's answer long before. So it holds, in whatever spelling, for a store's copy that
is deleted, for patched locations, for an import that cleans up after itself, and for images that are deleted.

An image is deleted    Our rows go when Glance begins to take its locations away, for delayed delete cannot delete an
                       http location. They are back if Glance fails. A fault of ours: Glance deletes all the same.
A location is removed  409 when the rules say that it stays (`replicas/removal`); why, and what to do, is in the log,
                       for whoever may remove a location need not be an operator. They are asked, and the row
                       withdrawn, under a lock on the image's row, so that of two removals at a time the second sees
                       the first. The row is back if the store keeps the bytes. What cannot be asked, or a fault of
                       ours: 503, and nothing is removed. No download waits for a removal.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import webob.exc
from glance.api.v2.images import ImagesController

from glance_replicas.catalogue.images import Catalogue, LockedImage
from glance_replicas.database import several_writers
from glance_replicas.errors import LastCopy, LedgerError, Refused, ReplicaError
from glance_replicas.host.own_copies import OwnCopies
from glance_replicas.ledger.schema.rows import place_key
from glance_replicas.location import is_ours, place, redact
from glance_replicas.model import IMAGE_ACTIVE, IMAGE_DEACTIVATED, Image, Location
from glance_replicas.removal import last_copy, last_durable
from glance_replicas.removal.known import KnownCopies
from glance_replicas.removal.last_copy import LedgerFacts

from ..client_words import Refusal
from . import routed
from .access import Access
from .facts import image_of
from .routed import Routed

log = logging.getLogger(__name__)

_LOCK_SECONDS = 5.0  # how long a removal waits for others that change the image
_LIVES = (IMAGE_ACTIVE, IMAGE_DEACTIVATED)


@dataclass
class _Request:
    """What one request is about to take away, and what became of it."""

    is_deletion: bool = False  # of the whole image
    going: Sequence[Location] = ()  # all that it removes, where that is more than one location
    image_id: str | None = None  # of the deleted image, as the database spells it
    withdrawn: list[Location] = field(default_factory=list)
    refusal: webob.exc.HTTPException | None = None


_request: ContextVar[_Request | None] = ContextVar("removal", default=None)


class Guard:
    """Answers Glance's removals; `handlers` are to be applied to every request."""

    def __init__(self, catalogue: Catalogue, own_copies: OwnCopies, known: KnownCopies, access: Access) -> None:
        self._catalogue, self._own_copies, self._known = catalogue, own_copies, known
        self._access = access
        self.handlers = routed.Handlers()
        self.handlers.on(ImagesController, "delete", self._delete)
        self.handlers.on(ImagesController, "delete_from_store", self._remove, closed=True)
        self.handlers.on(ImagesController, "update", self._update, closed=True)
        routed.around_removals(self._around)

    def _delete(self, call: Routed) -> Any:
        """Glance's answer, and the file here goes.

        Killed in between: the hosts' janitors register what they still hold of an image that still is.
        """
        request = _Request(is_deletion=True)
        try:
            result = _proceed(call, request)
        except BaseException:
            self._put_back(request.withdrawn)
            raise
        if request.image_id is not None:
            log.info("image %s: deleted, %d replicas withdrawn", request.image_id, len(request.withdrawn))
            self._forget(request.image_id)
        return result

    def _remove(self, call: Routed) -> Any:
        return _proceed(call, _Request())

    def _update(self, call: Routed) -> Any:
        """Glance takes away one location after the other: nothing goes of a request whose last removal is refused."""
        changes = [change for change in call.arguments.get("changes", ()) if change["path"][0] == "locations"]
        if sum(change["op"] == "remove" for change in changes) < 2:
            return _proceed(call, _Request())
        try:
            found = self._access.find(call.request.context, call.arguments["image_id"])
        except webob.exc.HTTPException:
            return call.proceed()  # Glance says it in its own words
        return _proceed(call, _Request(going=_going(image_of(found).locations, changes)))

    @contextmanager
    def _around(self, image_id: str, entry: Mapping[str, Any]) -> Iterator[bool]:
        """Around the removal of one location by Glance, in whatever thread."""
        request = _request.get()
        if request is not None and request.is_deletion:
            yield self._goes_with_image(request, image_id, entry)
            return
        taken, goes = self._take(request or _Request(), image_id, entry)
        try:
            yield goes
        except BaseException:
            self._put_back(taken)
            raise

    def _goes_with_image(self, request: _Request, image_id: str, entry: Mapping[str, Any]) -> bool:
        """Whether Glance is to remove this location of a deleted image; all of ours go before the first."""
        try:
            if request.image_id is None:
                request.image_id = image_id
                image = self._catalogue.image(image_id)
                for location in image.locations if image else ():
                    if is_ours(location) and location.row is not None and self._catalogue.withdraw(location):
                        request.withdrawn.append(location)
        except ReplicaError as error:
            log.warning("image %s: its replicas could not be withdrawn first: %s", image_id, error)
        except Exception:  # outermost edge of a removal: the image is deleted whatever our faults
            log.exception("image %s: its replicas could not be withdrawn first", image_id)
        return all(location.row != entry.get("id") for location in request.withdrawn)

    def _take(self, request: _Request, image_id: str, entry: Mapping[str, Any]) -> tuple[list[Location], bool]:
        """The rows withdrawn for this removal, and whether Glance is to go on. Raises Refused.

        Killed right after: the bytes are in the store without a row, and other durable copies stay.
        """
        try:
            return self._decide(request, image_id, entry)
        except LastCopy as error:
            log.warning("image %s: a removal was refused: %s", image_id, error)
            request.refusal = webob.exc.HTTPConflict(explanation=Refusal.LAST_OF_IMAGE.format(image=image_id))
            raise LastCopy(Refusal.LAST_OF_IMAGE.format(image=image_id)) from error  # Glance may write it into a task
        except Refused:  # there is no such image: nothing of it can be lost
            return [], True
        except ReplicaError as error:
            log.warning("image %s: nothing is removed: %s", image_id, error)
            request.refusal = _not_now(image_id)
            raise Refused(Refusal.NOT_NOW.format(image=image_id)) from error
        except Exception as error:  # outermost edge of a removal: not known to be safe
            log.exception("image %s: nothing is removed", image_id)
            request.refusal = _not_now(image_id)
            raise Refused(Refusal.NOT_NOW.format(image=image_id)) from error

    def _decide(self, request: _Request, image_id: str, entry: Mapping[str, Any]) -> tuple[list[Location], bool]:
        known = self._ask(image_id)

        def work(locked: LockedImage) -> tuple[list[Location], str | None]:  # more than once, where others are first
            image = locked.image
            target = _target(image, entry)
            if image.status not in _LIVES or target is None:
                return [], None
            why = _why_kept(image, target, request.going, known)
            if target.row != entry.get("id"):  # an upload that is thrown away, to where a copy of the image is
                return [], why
            if why is not None:
                raise LastCopy(why)
            taken = [target] if locked.withdraw(target) else []
            locked.keep([location for location in image.durable if location.row not in _rows([target, *request.going])])
            return taken, None

        taken, why = self._catalogue.decide(image_id, work, wait_seconds=_LOCK_SECONDS)
        if why is not None:
            log.warning("image %s: bytes that Glance would throw away stay in their store: %s", image_id, why)
        return taken, why is None

    def _ask(self, image_id: str) -> LedgerFacts:
        """What the ledger knows of the image's copies. Raises LedgerError: what it knows may decide."""
        try:
            with several_writers.causal_reads():
                return self._known.of([image_id])
        except LedgerError as error:
            raise LedgerError(f"it is not known which copies are intact: {error}") from error

    def _forget(self, image_id: str) -> None:
        try:
            self._own_copies.remove_deleted(image_id)
        except ReplicaError as error:
            log.warning("image %s: its file is left to the janitor: %s", image_id, error)

    def _put_back(self, rows: Sequence[Location]) -> None:
        """Killed in between: a host registers its copy again, and an audit finds the file of a store."""
        for row in rows:
            try:
                self._catalogue.put_back(row)
            except ReplicaError as error:
                log.error("image %s: %s is no longer registered: %s", row.image_id, redact(row.url), error)


def _proceed(call: Routed, request: _Request) -> Any:
    """What Glance answers; our refusal where there was one, whatever Glance made of it."""
    token = _request.set(request)
    try:
        return call.proceed()
    except Exception as error:
        if request.refusal is not None:
            raise request.refusal from error
        raise
    finally:
        _request.reset(token)


def _not_now(image_id: str) -> webob.exc.HTTPException:
    return webob.exc.HTTPServiceUnavailable(explanation=Refusal.NOT_NOW.format(image=image_id))


def _target(image: Image, entry: Mapping[str, Any]) -> Location | None:
    """The active row that Glance is about to remove, or another one with its bytes; None: no location of the image."""
    wanted = Location(image.id, str(entry.get("url", "")), {}, entry.get("id"))
    same = [location for location in image.locations if location.row == wanted.row]
    wanted_place = place(wanted)
    return next(iter(same), None) or next(
        (location for location in image.locations if place(location) == wanted_place), None
    )


def _why_kept(image: Image, target: Location, going: Sequence[Location], known: LedgerFacts) -> str | None:
    """The rule for a copy on a host, or the one for a copy in a store."""

    def key(location: Location) -> tuple[str, str]:
        return location.image_id, place_key(location)

    if target.is_cached:  # of what stays in Glance's table: a file without a row there is not found by Glance
        image = replace(image, locations=tuple(location for location in image.locations if location.row is not None))
        known = replace(known, going=known.going | {key(location) for location in going})
        why = last_copy.why_kept(image, key(target), known)
        return f"Not removed: {why}. Repair the image first: replica repair {image.id} --yes" if why else None
    return last_durable.why_kept(
        image, target, going, lambda location: last_copy.is_damaged(known.lasts.get(key(location)))
    )


def _rows(found: Sequence[Location]) -> set[int | None]:
    return {location.row for location in found}


def _going(rows: Sequence[Location], changes: Sequence[Mapping[str, Any]]) -> list[Location]:
    """Which of these locations a patch takes away; positions as `ImagesController._get_locations_op_pos` counts."""
    left: list[Location | None] = list(rows)
    gone: list[Location] = []
    for change in changes:
        if change["op"] == "replace" or len(change["path"]) != 2:
            continue
        text, adds = change["path"][1], change["op"] == "add"
        position = int(text) if text.isdecimal() else len(left) if adds else len(left) - 1
        if adds:
            left.insert(position, None)
        elif position < len(left) and (row := left.pop(position)) is not None:
            gone.append(row)
    return gone
