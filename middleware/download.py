"""One download of an image: a hit, a follower of a fill, a file of the stock cache, or Glance itself under guard."""

import functools
import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import webob
from glance import notifier
from glance.api import policy
from glance.api.common import image_send_notification

from glance_replicas.bounded_wait import Begun
from glance_replicas.cache import OpenFile
from glance_replicas.cache.eviction import NoRoom
from glance_replicas.errors import CacheError, ClientLeft, SourceError
from glance_replicas.model import Image
from glance_replicas.transfer import byte_range
from glance_replicas.transfer.failover_stream import guarded
from glance_replicas.transfer.fill_limits import FillLimits, TooManyFills
from glance_replicas.transfer.follow import Follower, start_or_join
from glance_replicas.transfer.plan import Plan

from . import unread
from .client_words import Bypass, bypass
from .inside_glance import whole
from .sending import connection, direct, serve
from .sending.parking import Parking, Spot
from .sending.streams import StreamSlot
from .serving import Serving

log = logging.getLogger(__name__)

_END_SECONDS = 1.0  # at most, for fsync and rename behind the last byte

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Download:
    """What one request gets. `found` is Glance's own image, `image` the same as our fact."""

    def __init__(
        self,
        *,
        request: webob.Request,
        image: Image,
        found: Any,
        serving: Serving,
        fill_limits: FillLimits,
        app: App,
        parking: Parking,
    ) -> None:
        self._request = request
        self._image = image
        self._found = found
        self._serving, self._fill_limits = serving, fill_limits
        self._app = app
        self._parking = parking
        self._client = connection.of(request)
        self._has_left = self._client.has_left if self._client else None
        self._at_once = False
        self._place: StreamSlot | Spot | None = None

    def answer(self) -> webob.Response | None:
        """From the cache; None: Glance answers alone. Raises ReplicaError before anything is sent."""
        self._place = self._parking.place()
        if self._place is None:
            log.warning("image %s: answered 503: max_streams downloads are running, and as many beyond", self._image.id)
            return webob.exc.HTTPServiceUnavailable(headers={"Retry-After": "2"})
        return self._answer()

    def _answer(self) -> webob.Response | None:
        span = serve.span(self._request, self._image)
        if span is None:
            return serve.without_body(self._request, self._image, self._status("hit"))
        project = self._request.context.project_id or ""
        plan = self._fill_limits.limited(self._serving.fill_setup.plan(self._image), project)
        copy = self._serving.own_copies.open(self._image)
        if copy is None:
            return self._missed(plan) if span == (0, plan.size) else self._part(plan, *span)
        if copy.entry.is_file_of(self._image):
            follower = Follower(self._serving.cache, plan, copy.detach(), urgent=False, has_left=self._has_left)
            return self._response(follower.read, follower.close, "hit", follower)
        if span != (0, plan.size):
            copy.close()
            return self._part(plan, *span)
        return self._unread(plan, copy)

    def _missed(self, plan: Plan) -> webob.Response:
        """The whole image, followed while it is filled.

        A client that sends nothing more is answered at once, by which it tells whether it has left (`Connection`).
        """
        try:
            follower = start_or_join(self._serving.cache, plan, self._has_left)
        except (TooManyFills, NoRoom) as error:
            return self._uncached(plan, error)
        try:
            with self._patience() as seconds:
                has_ended = self._client.has_ended if self._client else None
                came = follower.wait(0, seconds, has_ended) or (seconds is not None and follower.is_growing())
        except ClientLeft:
            came = self._at_once = True
        if not came:
            follower.close()
            log.warning("image %s: served without cache: its fill gave nothing", plan.image.id)
            return self.passed(Bypass.NO_SOURCE)
        return self._filling(plan, follower)

    def _uncached(self, plan: Plan, why: CacheError) -> webob.Response:
        """As `passed`, without Glance: it would decide and find the image once more, and wait for a silent source.

        A thread that the API needs would wait there; here one of ours does.
        """
        log.warning("image %s: served without cache: %s", plan.image.id, why)
        how = f"fwd=bypass; detail={serve.quoted(bypass(why))}"
        try:
            return self._from_sources(byte_range.whole_from_sources(plan), how)
        except SourceError as error:
            log.warning("image %s: left to Glance: %s", plan.image.id, error)
            return self.passed(bypass(why))

    def _part(self, plan: Plan, start: int, stop: int) -> webob.Response | None:
        """A part of the image at once, whether it is filled or not. None: no source can; Glance answers alone."""
        if self._serving.settings.fill_on_range:
            self._serving.cache.enqueue(plan.image.id)
        follower = byte_range.follow(self._serving.cache, plan, start, self._has_left)
        if follower is not None:
            return self._filling(plan, follower)
        try:
            return self._from_sources(byte_range.from_sources(plan, start, stop), "fwd=uri-miss")
        except SourceError as error:
            log.warning("image %s: bytes %d to %d are left to Glance: %s", plan.image.id, start, stop, error)
            return None

    def _from_sources(self, given: Generator[bytes], how: str) -> webob.Response:
        """What is not kept, once its first bytes are there or are waited for elsewhere. Raises SourceError."""
        chunks: Iterable[bytes]
        with self._patience() as seconds:
            if seconds is None:
                chunks = itertools.chain([next(given)], given)
            else:
                chunks = begun = Begun(given)
                begun.wait(seconds)
        return self._response(lambda _start, _stop: iter(chunks), getattr(chunks, "close", given.close), how)

    def _patience(self) -> AbstractContextManager[float | None]:
        """For how many seconds the first byte may be waited for here; None: for as long as it takes."""
        return self._place.patience() if isinstance(self._place, Spot) else nullcontext()

    def passed(self, why: Bypass) -> webob.Response:
        """Glance's own answer, except that a whole body with the wrong digest is broken off before its end."""
        self._request.environ[whole.GUARDED] = True
        image, answer = self._image, self._request.get_response(self._app)
        if answer.status_int != 200 or image.digest is None or not image.size or answer.content_length != image.size:
            return answer
        given = answer.app_iter
        body = guarded(iter(given), image.digest, image.size)

        def closed(sent: int, expected: int) -> None:
            for stream in (body, given):
                getattr(stream, "close", _nothing)()
            self._let_go()
            self._serving.usage_count.served(image.id, sent, hit=False)

        answer.app_iter = serve.Body(lambda _start, _stop: body, 0, image.size, closed, self._way())
        answer.content_length = image.size
        if image.checksum:
            answer.headers["Content-MD5"] = image.checksum  # setting app_iter drops it (WebOb bug 86)
        answer.headers["Cache-Status"] = self._status(f"fwd=bypass; detail={serve.quoted(why)}")
        return answer

    def _filling(self, plan: Plan, follower: Follower) -> webob.Response:
        reading = self._serving.statistics.follow(plan.image.id)

        def close() -> None:
            follower.close()
            reading.close()

        def read(start: int, stop: int) -> Iterator[bytes]:
            """The client has its last byte before this ends: what it asks for next finds the copy in its place."""
            yield from follower.read(start, stop)
            if stop == plan.size:
                follower.wait_for_end(_END_SECONDS)

        how = f"fwd=uri-miss; {'collapsed' if follower.collapsed else 'stored'}"
        detail = serve.progress(reading.number, follower.length(), plan.size)
        return self._response(read, close, f"{how}; detail={detail}", follower)

    def _unread(self, plan: Plan, copy: OpenFile) -> webob.Response:
        def body(_start: int, _stop: int) -> Iterator[bytes]:
            return unread.whole(self._serving, plan, copy, goes_on=True)

        return self._response(body, copy.close, "hit; detail=adopted")

    def _response(
        self, reader: serve.Read, close: Callable[[], None], how: str, follower: Follower | None = None
    ) -> webob.Response:
        way, caller = self._way(follower), _Caller(self._request)

        def closed(sent: int, expected: int) -> None:
            close()
            self._let_go()
            self._serving.usage_count.served(self._image.id, sent, hit=how.startswith("hit"))
            # `image.send`, as Glance's own cache filter sends it on a hit.
            target = policy.ImageTarget(self._found)
            image_send_notification(sent, expected, target, caller, _notifier())

        return serve.response(self._request, self._image, reader, closed, self._status(how), way)

    def _way(self, follower: Follower | None = None) -> serve.Way:
        send = direct.sender(self._serving.settings, follower, self._client) if follower else None
        spot = self._place if isinstance(self._place, Spot) else None
        what = f"image {self._image.id}"
        return serve.Way(send, self._client, spot, what, self._at_once)

    def _let_go(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.free()

    def _status(self, how: str) -> str:
        return f"{serve.quoted(self._serving.settings.host_name)}; {how}"


class _Caller:
    """What a notification says of a request. uWSGI empties the request itself before a parked body has been sent."""

    def __init__(self, request: webob.Request) -> None:
        self.context, self.remote_addr = request.context, request.remote_addr


@functools.cache
def _notifier() -> Any:
    return notifier.Notifier()


def _nothing() -> None:
    pass
