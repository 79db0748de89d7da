"""Filter and application `server`: `GET` and `HEAD /replicas/{image_id}`, one host's own copy of an image.

Lets in whoever holds a signature or calls from a trusted network, nobody else, and says nothing to others about what
is here. Serves complete, verified files, and fills in progress to those who follow them. `GET /replicas/` lists the
complete files to audits, which sign it.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import webob

from glance_replicas import signing
from glance_replicas.cache import OpenFile
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.errors import ClientLeft, ReplicaError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.ledger.host_registry import HostRegistry
from glance_replicas.location import replica_path
from glance_replicas.model import IMAGE_ACTIVE, IMAGE_DEACTIVATED, Image
from glance_replicas.stores.hosts import remote
from glance_replicas.stores.sources import BACKGROUND
from glance_replicas.transfer.follow import Follower, partial_or_complete

from . import host, unread
from .client_words import Refusal
from .sending import connection, direct, serve
from .sending.streams import Streams, StreamSlot
from .serving import Serving
from .trust import Trust

log = logging.getLogger(__name__)

_BUSY_SECONDS = "2"  # a peer goes to the next source at once, a client comes again
_AHEAD_SECONDS = 2.0  # a range waits so long for a fill to come to it

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def filter_factory(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[App], App]:
    """Paste entry point `egg:glance-replicas#server`. Raises ConfigError, which stops the start."""
    local = host.local_host()
    return lambda app: assembled(local, app)


def app_factory(_global_conf: dict[str, str], **_local_conf: str) -> App:
    """The same as an application of its own, for another port."""
    return assembled(host.local_host(), webob.exc.HTTPNotFound())


def assembled(local: LocalHost, app: App) -> "ReplicaServer":
    """The filter of this host, before `app`."""
    return ReplicaServer(Serving.of(local), local.catalogue, local.host_registry, app)


class ReplicaServer:
    """One WSGI filter; see the module."""

    def __init__(self, serving: Serving, catalogue: Catalogue, hosts: HostRegistry, app: App) -> None:
        self._serving, self._catalogue = serving, catalogue
        self._app = app
        self._trust = Trust(serving.settings, hosts.all)
        self._streams = Streams(serving.settings.max_peer_streams or 0)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a replica, or pass on what is none of ours."""
        path = environ.get("PATH_INFO", "")
        if path != "/replicas" and not path.startswith("/replicas/"):
            return self._app(environ, start_response)
        request = webob.Request(environ)
        answer: App = self._answer(request, path)
        return answer(environ, start_response)

    def _answer(self, request: webob.Request, path: str) -> Any:
        if request.method not in ("GET", "HEAD"):
            return webob.exc.HTTPMethodNotAllowed(headers={"Allow": "GET, HEAD"})
        if path == remote.PATH and request.method == "GET":
            return self._listed(request, path)
        image_id = replica_path(path)
        if image_id is None:
            return webob.exc.HTTPNotFound()
        if not (self._is_signed(request, path) or self._is_trusted(request)):
            return webob.exc.HTTPForbidden(explanation=Refusal.NOT_SIGNED)
        try:
            return self._serve(request, image_id)
        except ReplicaError as error:
            log.warning("image %s: cannot be served now: %s", image_id, error)
            return webob.exc.HTTPServiceUnavailable(headers={"Retry-After": "5"})

    def _listed(self, request: webob.Request, path: str) -> Any:
        """What is here, all of it or an error. A trusted network is enough only where nobody can sign."""
        has_keys = bool(self._serving.settings.signing_keys)
        if not (self._is_signed(request, path) or (self._is_trusted(request) and not has_keys)):
            return webob.exc.HTTPForbidden(explanation=Refusal.LIST_NOT_SIGNED)
        try:
            body = remote.written(self._serving.cache.complete.entries())
        except ReplicaError as error:
            log.warning("the directory cannot be listed now: %s", error)
            return webob.exc.HTTPServiceUnavailable(headers={"Retry-After": "5"})
        return webob.Response(body=body, content_type="text/plain", charset="utf-8")

    def _serve(self, request: webob.Request, image_id: str) -> Any:
        image = self._catalogue.image(image_id, listed=True)
        if image is None or image.status != IMAGE_ACTIVE or image.digest is None or not image.size:
            deactivated = image is not None and image.status == IMAGE_DEACTIVATED
            return webob.exc.HTTPForbidden() if deactivated else webob.exc.HTTPNotFound()
        copy = self._serving.own_copies.open(image)
        if copy is not None and copy.entry.is_file_of(image):
            if self._serving.settings.sendfile == "x-accel-redirect":
                copy.close()
                return self._sent_by_nginx(image)
            return self._streamed(request, image, copy.detach(), filling=False)
        if copy is not None:
            return self._unread(request, image, copy)
        fd = partial_or_complete(self._serving.cache, image)
        return webob.exc.HTTPNotFound() if fd is None else self._streamed(request, image, fd, filling=True)

    def _unread(self, request: webob.Request, image: Image, copy: OpenFile) -> Any:
        """All of a file that nobody has read yet, read on its way; for a part of it, elsewhere is better."""
        status, span = (
            f"{serve.quoted(self._serving.settings.host_name)}; hit; detail=adopted",
            serve.span(request, image),
        )
        if request.method == "HEAD" or span is None:
            copy.close()
            return serve.without_body(request, image, status)
        place = self._streams.take() if span == (0, image.size) else None
        if place is None:
            copy.close()
            return _busy()
        plan = self._serving.fill_setup.plan(image)

        def closed(sent: int, expected: int) -> None:
            copy.close()
            place.free()
            self._serving.usage_count.served(image.id, sent, hit=True, is_use=_is_use(request))

        return serve.response(request, image, lambda *_: unread.whole(self._serving, plan, copy), closed, status)

    def _streamed(self, request: webob.Request, image: Image, fd: int, *, filling: bool) -> Any:
        """The bytes behind `fd`, which is closed; refused when this process sends enough already."""
        span = serve.span(request, image)
        if request.method == "HEAD" or span is None:  # what is known already; nothing is waited for, nobody hurried
            os.close(fd)
            status = f"{serve.quoted(self._serving.settings.host_name)}; hit{'; detail=filling' if filling else ''}"
            return serve.without_body(request, image, status)
        place = self._streams.take()
        if place is None:
            os.close(fd)
            log.info("image %s: answered 503: max_peer_streams reads are running", image.id)
            return _busy()
        return self._followed(request, image, fd, place, span[0], filling=filling)

    def _followed(
        self, request: webob.Request, image: Image, fd: int, place: StreamSlot, first: int, *, filling: bool
    ) -> Any:
        """A range whose `first` byte is far ahead of the fill is not waited for: the caller has other sources."""
        urgent = filling and _is_use(request)
        plan, client = self._serving.fill_setup.plan(image), connection.of(request)
        has_left = client.has_left if client else None
        follower = Follower(self._serving.cache, plan, fd, takes_over=False, urgent=urgent, has_left=has_left)
        at_once = False
        try:
            has_ended = client.has_ended if client and not first else None
            came = follower.wait(first, _AHEAD_SECONDS if first else None, has_ended)
        except ClientLeft:  # or it sends nothing more; answered at once it tells which (`Connection`)
            came = at_once = not first
        if not came:
            follower.close()
            place.free()
            return _busy() if first else webob.exc.HTTPNotFound()
        reading = self._serving.statistics.follow(image.id) if filling else None

        def closed(sent: int, expected: int) -> None:
            follower.close()
            place.free()
            if reading is not None:
                reading.close()
            self._serving.usage_count.served(image.id, sent, hit=not filling, is_use=_is_use(request))

        status = f"{serve.quoted(self._serving.settings.host_name)}; hit"
        if reading is not None:
            status += f"; detail={serve.progress(reading.number, follower.length(), plan.size)}"
        way = serve.Way(direct.sender(self._serving.settings, follower, client), at_once=at_once)
        return serve.response(request, image, follower.read, closed, status, way)

    def _sent_by_nginx(self, image: Image) -> Any:
        """Headers only; nginx sends the file, with ranges and conditions of its own."""
        answer = webob.Response(content_type="application/octet-stream", charset=None)
        serve.describe(answer, image, f"{serve.quoted(self._serving.settings.host_name)}; hit")
        answer.headers["X-Accel-Redirect"] = self._serving.settings.sendfile_prefix + image.id
        return answer

    def _is_signed(self, request: webob.Request, path: str) -> bool:
        query = parse_qs(request.query_string, keep_blank_values=True, max_num_fields=10) if _sane(request) else {}
        settings = self._serving.settings
        return signing.verify(request.method, f"{settings.host_url}{path}", query, settings.signing_keys)

    def _is_trusted(self, request: webob.Request) -> bool:
        """By the socket's peer: this filter stands before the one that believes forwarded addresses."""
        return self._trust.covers(request.environ.get("REMOTE_ADDR", ""))


def _busy() -> Any:
    return webob.exc.HTTPServiceUnavailable(headers={"Retry-After": _BUSY_SECONDS})


def _is_use(request: webob.Request) -> bool:
    """Whether somebody waits for the bytes: no copy ahead of need, no verification."""
    return bool(request.headers.get("Priority") != BACKGROUND["Priority"])


def _sane(request: webob.Request) -> bool:
    return len(request.query_string) < 1000 and request.query_string.count("&") < 10
