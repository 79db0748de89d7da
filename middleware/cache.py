"""Filter `cache`: image downloads come from local disk, and what passes through stays there as a replica.

    GET /v2/images/{id}/file   authorise -> hit | follow | fill, else Glance itself
    removals, in any spelling: kept from leaving rows or images behind that nothing backs (guard.py)

Whatever goes wrong on our side, the request goes on to Glance as if we were not there.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import webob

from glance_replicas.errors import CacheError, ReplicaError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.ledger.host_registry import silent_after_seconds
from glance_replicas.model import IMAGE_ACTIVE
from glance_replicas.removal.known import KnownCopies
from glance_replicas.transfer.fill_limits import FillLimits

from . import host
from .client_words import Bypass, bypass
from .download import App, Download
from .inside_glance import glance_cache, whole
from .inside_glance.access import Access
from .inside_glance.facts import image_of, image_path
from .inside_glance.guard import Guard
from .sending import serve
from .sending.parking import Parking
from .serving import Serving

log = logging.getLogger(__name__)

_GLANCES = frozenset({"prefer", "_method"})  # parameters; the latter is of Routes


def filter_factory(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[App], App]:
    """Paste entry point `egg:glance-replicas#cache`. Raises ConfigError, which stops the start."""
    this = host.running()
    local = this.local_host
    try:
        local.cache.prepare()
    except CacheError as error:  # the janitor tries again; until then downloads are Glance's
        log.error("nothing is cached: %s", error)
    if local.registration.own_url("") is None:
        log.warning("cached copies will not be registered: %s", local.registration.why_unregistered())
    this.start()
    glance_cache.take_over(host.cache_calls(local, this.janitor.wake), local.cache)
    return lambda app: assembled(local, this.parking, app)


def assembled(local: LocalHost, parking: Parking, app: App) -> "CacheFilter":
    """The filter of this host, before `app`."""
    access = Access()
    known = KnownCopies(local.ledger.database, silent_after_seconds(local.settings))
    guard = Guard(local.catalogue, local.own_copies, known, access)
    return CacheFilter(
        app=app,
        serving=Serving.of(local),
        fill_limits=local.fill_limits,
        parking=parking,
        access=access,
        guard=guard,
    )


class CacheFilter:
    """One WSGI filter; see the module."""

    def __init__(
        self, *, app: App, serving: Serving, fill_limits: FillLimits, parking: Parking, access: Access, guard: Guard
    ) -> None:
        self._app = app
        self._serving, self._fill_limits, self._parking = serving, fill_limits, parking
        self._access, self._guard = access, guard
        whole.watch(self._guard.handlers)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve, or pass on with the removals guarded."""
        self._guard.handlers.apply(environ)
        request = webob.Request(environ)
        found = image_path(environ.get("PATH_INFO", ""))
        answer: App | None = None
        if request.method == "GET" and found is not None and found[1]:
            answer = self._download(request, found[0])
        return (answer or self._app)(environ, start_response)

    def _download(self, request: webob.Request, image_id: str) -> Any:
        """A response, or None: Glance answers alone."""
        if _is_for_glance(request) or "HTTP_CONTENT_RANGE" in request.environ or not serve.is_single_range(request):
            return None
        try:
            found = self._access.image(request.context, image_id)
        except webob.exc.HTTPException as refusal:
            return refusal
        image = image_of(found)
        if image.status != IMAGE_ACTIVE or image.digest is None or not image.size:
            return None
        download = Download(
            request=request,
            image=image,
            found=found,
            serving=self._serving,
            fill_limits=self._fill_limits,
            app=self._app,
            parking=self._parking,
        )
        try:
            return download.answer()
        except ReplicaError as error:
            log.warning("image %s: served without cache: %s", image_id, error)
            return download.passed(bypass(error))
        except Exception:  # outermost edge of a request: a bug of ours is no reason to fail it either
            log.exception("image %s: served without cache", image_id)
            return download.passed(Bypass.FAULT)


def _is_for_glance(request: webob.Request) -> bool:
    """Whether the query, as Glance reads it, names a store or another method; one that cannot be read it refuses."""
    try:
        return not _GLANCES.isdisjoint(request.GET)
    except UnicodeDecodeError:
        return True
