"""An operator's orders about the copy of one image on one host, given to any host.

    POST   /v2/images/{id}/replicas/{host}   fetch it: 202 and the request; JSON body {"priority": "high", "pin": true}
    DELETE /v2/images/{id}/replicas/{host}   end that, and remove the copy: 202; 409 when it is the last intact one
    DELETE ...?force=true&reason=TEXT        remove it even so: admins only, and recorded with the reason

Both are lines in the ledger that the host meant finds within seconds. Who may: Glance's own policies of its cache API,
`cache_image` and `cache_delete`; who may force: whoever Glance takes for an admin (`context_is_admin`).
"""

import json
import logging
from typing import Any

import webob
import webob.exc
from glance.api.v2 import policy

from glance_replicas.errors import CatalogueError, LastCopy, LedgerError
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.ledger.pins import Pins
from glance_replicas.ledger.prefetch_requests import PRIORITIES, PrefetchRequests
from glance_replicas.location import replica_url
from glance_replicas.model import HOST_KEY, IMAGE_ACTIVE, Host, Image, Location, is_image_id
from glance_replicas.removal.orders import RemovalOrders
from glance_replicas.settings import Settings

from .client_words import Refusal
from .inside_glance.access import Access
from .inside_glance.facts import image_of

log = logging.getLogger(__name__)

_MAX_BODY = 4096  # bytes
_NAMES = {number: name for name, number in PRIORITIES.items()}


class CopyOrders:
    """Answers the two calls."""

    def __init__(
        self,
        *,
        settings: Settings,
        ledger: Ledger,
        pins: Pins,
        removals: RemovalOrders,
        requests: PrefetchRequests,
        access: Access,
    ) -> None:
        self._settings, self._ledger, self._pins = settings, ledger, pins
        self._removals, self._copies, self._access = removals, requests, access

    def answer(self, request: webob.Request, image_id: str, host: str) -> webob.Response:
        """202; raises HTTPException: not found, forbidden, not as it is, bad request, ledger away."""
        calls = {"POST": (self._fetch, "cache_image"), "DELETE": (self._remove, "cache_delete")}
        if request.method not in calls:
            raise webob.exc.HTTPMethodNotAllowed(headers={"Allow": ", ".join(calls)})
        if not is_image_id(image_id):
            raise webob.exc.HTTPNotFound(explanation=Refusal.NO_IMAGE.format(image=image_id))
        call, rule = calls[request.method]
        found = self._access.find(request.context, image_id)
        policy.CacheImageAPIPolicy(
            request.context, image=found, policy_str=rule, enforcer=self._access.enforcer
        ).manage_image_cache()
        try:
            value = call(request, image_of(found), self._known(host))
        except LastCopy as error:
            log.warning("image %s: the order for host %s was refused: %s", image_id, host, error)
            raise webob.exc.HTTPConflict(explanation=Refusal.LAST_COPY.format(image=image_id)) from error
        except (LedgerError, CatalogueError) as error:
            log.warning("image %s: the order for host %s was not taken: %s", image_id, host, error)
            raise webob.exc.HTTPServiceUnavailable(explanation=Refusal.NO_LEDGER) from error
        return webob.Response(status=202, content_type="application/json", text=json.dumps(value))

    def _fetch(self, request: webob.Request, image: Image, host: Host) -> dict[str, Any]:
        priority, pin = _wishes(request)
        if image.status != IMAGE_ACTIVE or image.digest is None or not image.size:
            raise webob.exc.HTTPConflict(explanation=Refusal.NOT_COPIED)
        if host.age_seconds > self._settings.dead_after_seconds:
            raise webob.exc.HTTPConflict(explanation=Refusal.HOST_DEAD.format(host=host.name))
        if pin:
            self._pins.add([image.id], [host.name], _who(request))
        self._copies.request([image.id], [host.name], who=_who(request), priority=priority, pin=pin)
        row = self._copies.list([image.id], [host.name])[0]
        return {
            "image_id": row.image_id,
            "host": row.host,
            "state": str(row.state),
            "priority": _NAMES.get(row.priority, row.priority),
            "pin": row.pin,
            "bytes": row.bytes,
            "size": row.size,
            "age_seconds": row.age_seconds,
        }

    def _remove(self, request: webob.Request, image: Image, host: Host) -> dict[str, Any]:
        forced = _forced(request)
        copy = Location(image.id, replica_url(host.url, image.id), {HOST_KEY: host.name})
        self._removals.order(copy, reason="asked for through the API", who=_who(request), forced=forced)
        cancelled = self._copies.cancel([image.id], [host.name])
        return {"image_id": image.id, "host": host.name, "state": "removing", "cancelled": cancelled}

    def _known(self, name: str) -> Host:
        hosts = {host.name: host for host in self._ledger.hosts()}
        if name not in hosts:
            raise webob.exc.HTTPNotFound(explanation=Refusal.NO_HOST.format(host=name))
        return hosts[name]


def _wishes(request: webob.Request) -> tuple[int, bool]:
    """Priority and pin. Raises HTTPBadRequest, HTTPRequestEntityTooLarge.

    HTTPLengthRequired, too: uWSGI gives a body in chunks to nobody who reads it as others, and no wish is passed over.
    """
    if "Transfer-Encoding" in request.headers and "uwsgi.version" in request.environ:
        raise webob.exc.HTTPLengthRequired(explanation=Refusal.NO_LENGTH)
    body = request.body_file.read(_MAX_BODY + 1)
    if len(body) > _MAX_BODY:
        raise webob.exc.HTTPRequestEntityTooLarge(explanation=Refusal.TOO_LONG)
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or not value.keys() <= {"priority", "pin"}:
        raise webob.exc.HTTPBadRequest(explanation=Refusal.NO_WISHES)
    priority, pin = value.get("priority", "normal"), value.get("pin", False)
    if not isinstance(priority, str) or priority not in PRIORITIES or not isinstance(pin, bool):
        raise webob.exc.HTTPBadRequest(explanation=Refusal.BAD_WISHES)
    return PRIORITIES[priority], pin


def _forced(request: webob.Request) -> str | None:
    """Why a last intact copy is to go all the same; None: it is not. Raises HTTPBadRequest, HTTPForbidden."""
    force, reason = (request.GET.get(name, "") for name in ("force", "reason"))
    if force.lower() in ("", "0", "false", "no"):
        return None
    if force.lower() not in ("1", "true", "yes"):
        raise webob.exc.HTTPBadRequest(explanation=Refusal.BAD_FORCE)
    if not request.context.is_admin:
        raise webob.exc.HTTPForbidden(explanation=Refusal.FORCE_IS_FOR_ADMINS)
    if not reason.strip():
        raise webob.exc.HTTPBadRequest(explanation=Refusal.FORCE_NEEDS_REASON)
    return str(reason)


def _who(request: webob.Request) -> str:
    return f"user {request.context.user_id} of project {request.context.project_id}"
