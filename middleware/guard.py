"""What removals must not do: hang on our rows, or leave an image with cached replicas only.

DELETE /v2/images/{id}            our rows go first (delayed delete cannot delete an http location: GLANCE.md)
DELETE /v2/stores/{store}/{id}    409 when it would take the last durable copy
PATCH  /v2/images/{id}            the same for `remove` and `replace` of locations
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import webob

from glance_replicas import location
from glance_replicas.errors import ReplicaError
from glance_replicas.keeper import Keeper
from glance_replicas.model import Image, Location, is_image_id

from .access import Access
from .client_words import Refusal
from .facts import image_of, image_path

log = logging.getLogger(__name__)

_STORE_PATH = re.compile(r"/v2/stores/([^/]+)/([^/]+)")
_POSITION = re.compile(r"/?locations/(\d+|-)")
_MAX_PATCH = 1 << 20  # bytes; a longer body cannot be a list of locations that Glance would take

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Guard:
    """Stands before Glance on DELETE and PATCH."""

    def __init__(self, app: App, keeper: Keeper, access: Access) -> None:
        self._app = app
        self._keeper = keeper
        self._access = access

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Refuse with 409, or let Glance answer."""
        request = webob.Request(environ)
        path = environ.get("PATH_INFO", "")
        found = image_path(path)
        answer = None
        if request.method == "DELETE" and found is not None and not found[1]:
            answer = self._delete(request, found[0])
        elif request.method == "DELETE" and (match := _STORE_PATH.fullmatch(path)):
            answer = self._delete_from_store(request, *match.groups())
        elif request.method == "PATCH" and found is not None and not found[1]:
            answer = self._patch(request, found[0])
        return answer(environ, start_response) if answer else self._app(environ, start_response)

    def _delete(self, request: webob.Request, image_id: str) -> Any:
        """Glance's answer, our rows withdrawn before and put back if Glance refused.

        Killed in between: the hosts' janitors register what they still hold of an image that still is.
        """
        found = self._find(request, image_id)
        if found is None or found.protected or not self._access.rules(request.context, found).check("delete_image"):
            return None
        rows = [one for one in image_of(found).cached if location.is_ours(one)]
        try:
            withdrawn = [one for one in rows if self._keeper.catalogue.withdraw(one)]
        except ReplicaError as error:
            log.warning("image %s: its replicas could not be withdrawn first: %s", image_id, error)
            return None
        answer = request.get_response(self._app)
        if answer.status_int < 300:
            log.info("image %s: deleted, %d replicas withdrawn", image_id, len(withdrawn))
            self._forget(image_id)
        else:
            self._put_back(withdrawn)
        return answer

    def _delete_from_store(self, request: webob.Request, store: str, image_id: str) -> Any:
        found = self._find(request, image_id) if is_image_id(image_id) else None
        if found is None:
            return None
        image = image_of(found)
        gone = next((one for one in image.locations if one.store == store), None)
        return self._refusal(image, [one for one in image.locations if one is not gone])

    def _patch(self, request: webob.Request, image_id: str) -> Any:
        changes = _changes(request)
        if not changes:
            return None
        found = self._find(request, image_id)
        if found is None:
            return None
        image = image_of(found)
        left = list(image.locations)
        for operation, path, value in changes:
            left = _applied(left, operation, path, value)
        return self._refusal(image, left)

    def _refusal(self, image: Image, left: Sequence[Location]) -> Any:
        """409 when durable copies would become none while cached ones stay."""
        if not image.durable or not left or any(not one.is_cached for one in left):
            return None
        return webob.exc.HTTPConflict(explanation=Refusal.LAST_DURABLE.format(image=image.id))

    def _find(self, request: webob.Request, image_id: str) -> Any:
        try:
            return self._access.find(request.context, image_id)
        except webob.exc.HTTPException:
            return None  # Glance says it in its own words

    def _forget(self, image_id: str) -> None:
        try:
            self._keeper.cache.remove(image_id)
        except ReplicaError as error:
            log.warning("image %s: its file is left to the janitor: %s", image_id, error)

    def _put_back(self, rows: Sequence[Location]) -> None:
        for one in rows:
            try:
                self._keeper.catalogue.add(one.image_id, one.url, one.metadata)
            except ReplicaError as error:
                log.warning("image %s: replica on %s left to its janitor: %s", one.image_id, one.host, error)


def _changes(request: webob.Request) -> list[tuple[str, str, Any]]:
    """(operation, path, value) of a JSON patch that touch locations, in either of Glance's two media types."""
    if (request.content_length or 0) > _MAX_PATCH:
        return []
    try:
        operations = json.loads(request.body)
    except (ValueError, RecursionError):
        return []
    found = []
    for one in operations if isinstance(operations, list) else ():
        if not isinstance(one, dict):
            continue
        operation = one.get("op") or next((name for name in ("add", "replace", "remove") if name in one), "")
        path = str(one.get("path") if "op" in one else one.get(operation, ""))
        if path.lstrip("/").split("/")[0] == "locations":
            found.append((str(operation), path, one.get("value")))
    return found


def _applied(rows: list[Location], operation: str, path: str, value: Any) -> list[Location]:
    """The locations after one operation; those added count as durable, being the user's own."""
    match = _POSITION.fullmatch(path)
    if operation == "remove" and match and match.group(1) != "-":
        position = int(match.group(1))
        return rows[:position] + rows[position + 1 :]
    if operation == "replace" and isinstance(value, list):
        urls = [one.get("url") for one in value if isinstance(one, dict)]
        return [next((row for row in rows if row.url == url), Location("", str(url))) for url in urls]
    return rows
