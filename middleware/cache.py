"""Filter `cache`: image downloads come from local disk, and what passes through stays there as a replica.

    GET /v2/images/{id}/file   authorise -> hit | follow | fill, else Glance itself
    DELETE of an image, removal of a location: kept from leaving rows or images behind that nothing backs (guard.py)

Whatever goes wrong on our side, the request goes on to Glance as if we were not there.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import webob
from glance import notifier
from glance.api import policy
from glance.api.common import image_send_notification

from glance_replicas.cache import Copy
from glance_replicas.errors import Corrupt, ReplicaError
from glance_replicas.fill import Follower, read, start_or_join
from glance_replicas.janitor import Janitor
from glance_replicas.keeper import Keeper
from glance_replicas.model import Image
from glance_replicas.relay import guarded

from . import host, serve
from .access import Access
from .facts import image_of, image_path
from .guard import Guard

log = logging.getLogger(__name__)

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def filter_factory(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[App], App]:
    """Paste entry point `egg:glance-replicas#cache`. Raises ConfigError, which stops the start."""
    keeper = host.keeper()
    keeper.cache.prepare()
    if keeper.own_url("") is None:
        log.warning("cached copies will not be registered: %s", keeper.why_unregistered())
    if keeper.settings.janitor:
        Janitor(keeper).start()
    return lambda app: CacheFilter(app, keeper)


class CacheFilter:
    """One WSGI filter; see the module."""

    def __init__(self, app: App, keeper: Keeper) -> None:
        self._app = app
        self._keeper = keeper
        self._access = Access()
        self._guard = Guard(app, keeper, self._access)
        self._notifier = notifier.Notifier()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve, guard or pass on."""
        request = webob.Request(environ)
        found = image_path(request.path_info)
        if request.method == "GET" and found is not None and found[1]:
            answer = self._download(request, found[0])
            return answer(environ, start_response) if answer else self._app(environ, start_response)
        if request.method in ("DELETE", "PATCH"):
            return self._guard(environ, start_response)
        return self._app(environ, start_response)

    def _download(self, request: webob.Request, image_id: str) -> Any:
        """A response, or None: Glance answers alone."""
        if request.GET.get("prefer") or "Content-Range" in request.headers or not serve.is_single_range(request):
            return None
        try:
            found = self._access.image(request.context, image_id)
        except webob.exc.HTTPException as refusal:
            return refusal
        image = image_of(found)
        if image.status != "active" or image.digest is None or not image.size:
            return None
        try:
            return self._from_cache(request, image, found)
        except ReplicaError as error:
            log.warning("image %s: served without cache: %s", image_id, error)
            return self._passed(request, image, str(error))

    def _from_cache(self, request: webob.Request, image: Image, found: Any) -> Any:
        copy = self._keeper.cache.open(image.id)
        if copy is not None and copy.entry.size != image.size:
            copy.close()
            log.error("image %s: cached file has %d bytes, not %d; set aside", image.id, copy.entry.size, image.size)
            self._keeper.cache.set_aside(image.id)
            copy = None
        if copy is not None and not copy.entry.verified:
            return self._adopted(request, image, found, copy)
        plan = self._keeper.plan(image)
        if copy is not None:
            return self._followed(request, image, found, Follower(self._keeper.cache, plan, copy.detach()), "hit")
        follower = start_or_join(self._keeper.cache, plan)
        if not follower.wait():
            follower.close()
            return self._passed(request, image, "the fill gave nothing")
        how = "fwd=uri-miss; collapsed" if follower.collapsed else "fwd=uri-miss; stored"
        return self._followed(request, image, found, follower, how)

    def _followed(self, request: webob.Request, image: Image, found: Any, follower: Follower, how: str) -> Any:
        def closed(sent: int, expected: int) -> None:
            follower.close()
            self._notify(request, found, sent, expected)

        return serve.response(request, image, follower.read, closed, self._status(how))

    def _adopted(self, request: webob.Request, image: Image, found: Any, copy: Copy) -> Any:
        """A file the stock cache left: verified on its way to this client; ranges go to Glance until then."""
        if "Range" in request.headers:
            copy.close()
            return None

        def whole(_start: int, _stop: int) -> Iterator[bytes]:
            try:
                yield from guarded(read(copy.fd, 0, image.size or 0), _digest(image), image.size or 0)
            except Corrupt:
                self._keeper.cache.set_aside(image.id)
                raise
            self._keeper.cache.mark_verified(image.id, copy)
            self._keeper.register(image)

        def closed(sent: int, expected: int) -> None:
            copy.close()
            self._notify(request, found, sent, expected)

        return serve.response(request, image, whole, closed, self._status("hit; detail=adopted"))

    def _passed(self, request: webob.Request, image: Image, why: str) -> Any:
        """Glance's own answer, except that a whole body with the wrong digest is broken off before its end."""
        answer = request.get_response(self._app)
        if answer.status_int == 200 and answer.content_length == image.size and image.digest is not None:
            chunks, close = answer.app_iter, getattr(answer.app_iter, "close", None)
            answer.app_iter = _Closing(guarded(iter(chunks), image.digest, image.size or 0), close)
            answer.content_length = image.size
            if image.checksum:
                answer.headers["Content-MD5"] = image.checksum  # setting app_iter drops it (WebOb bug 86)
            answer.headers["Cache-Status"] = self._status(f"fwd=bypass; detail={_quoted(why)}")
        return answer

    def _notify(self, request: webob.Request, found: Any, sent: int, expected: int) -> None:
        """`image.send`, as Glance's own cache filter sends it on a hit."""
        image_send_notification(sent, expected, policy.ImageTarget(found), request, self._notifier)

    def _status(self, how: str) -> str:
        return f"{_quoted(self._keeper.settings.host_name)}; {how}"


class _Closing:
    """An iterator that closes what it was made from."""

    def __init__(self, chunks: Iterator[bytes], close: Callable[[], None] | None) -> None:
        self._chunks = chunks
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        getattr(self._chunks, "close", lambda: None)()
        if self._close is not None:
            self._close()


def _digest(image: Image) -> Any:
    return image.digest


def _quoted(text: str) -> str:
    """An sf-string (RFC 8941 section 3.3.3)."""
    plain = "".join(one for one in text if " " <= one <= "~").replace("\\", "").replace('"', "'")
    return f'"{plain[:200]}"'
