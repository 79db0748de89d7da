"""Filter `api`: an image's replicas as a document, and signed URLs wherever Glance shows those of our hosts.

    GET   /v2/images/{id}/replicas    every copy the caller may know of, best first; JSON or Metalink
    POST, DELETE /v2/images/{id}/replicas/{host}    an operator's orders (orders.py)
    GET   /v2/images/{id}             replica URLs in `locations` and `direct_url` come out signed,
    GET   /v2/images/{id}/locations   for callers who may download the image
                                      and go in unsigned by every call (inside_glance/plain_urls.py)

A signature is for one copy on one host: only the exact URL of that image on a living host of ours is ever signed, and
no answer that carries one is to be stored.
"""

import json
import logging
import re
import secrets
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import webob
import webob.exc
from oslo_config import cfg

from glance_replicas.client import choose, document, metalink
from glance_replicas.client.download import arrange
from glance_replicas.ledger.host_registry import HostRegistry
from glance_replicas.ledger.ledger import place_key
from glance_replicas.ledger.prefetch_requests import PrefetchRequests
from glance_replicas.location import replica_url
from glance_replicas.model import IMAGE_ACTIVE, Image, Last, Location, Result, is_image_id
from glance_replicas.removal.last_copy import only_cached

from . import host
from .client_words import Alarm, Refusal
from .inside_glance import plain_urls
from .inside_glance.access import Access
from .inside_glance.facts import image_of
from .orders import CopyOrders

log = logging.getLogger(__name__)

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

JSON = "application/json"
MAX_JSON = 1 << 20  # bytes; larger bodies pass untouched
NOT_STORED = "no-store"  # Cache-Control of what holds signatures (RFC 9111, 5.2.2.5)
MAX_HINT = 255  # characters of a caller's zone, host or seed
_PATH = re.compile(r"/v2/images/([^/]+)(/replicas(?:/[^/]+)?|/locations)?")


def filter_factory(_global_conf: dict[str, str], **_local_conf: str) -> Callable[[App], App]:
    """Paste entry point `egg:glance-replicas#api`. Raises ConfigError, which stops the start."""
    local = host.local_host()
    access = Access()
    orders = CopyOrders(
        settings=local.settings,
        ledger=local.ledger,
        pins=local.pins,
        removals=local.removals,
        requests=PrefetchRequests(local.ledger.database),
        access=access,
    )
    return lambda app: ReplicasApi(
        app,
        hosts=local.host_registry,
        completed=local.catalogue.completed,
        signs=bool(local.settings.signing_keys),
        access=access,
        orders=orders,
    )


class ReplicasApi:
    """One WSGI filter; see the module. `completed` gives an image the copies that Glance's tables do not have."""

    def __init__(
        self,
        app: App,
        *,
        hosts: HostRegistry,
        completed: Callable[[Image], Image],
        signs: bool,
        access: Access,
        orders: CopyOrders,
    ) -> None:
        self._app = app
        self._hosts, self._completed, self._signs = hosts, completed, signs
        self._access, self._orders = access, orders
        self._unsigning = plain_urls.handlers()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer, sign or pass on."""
        self._unsigning.apply(environ)
        match = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        answer: Any = self._app
        if match is not None:
            answer = self._answer(webob.Request(environ), match.group(1), match.group(2))
        return answer(environ, start_response)  # type: ignore[no-any-return]

    def _answer(self, request: webob.Request, image_id: str, what: str | None) -> Any:
        if what is not None and what.startswith("/replicas"):
            host_name = what.removeprefix("/replicas").removeprefix("/")
            try:
                if host_name:
                    return self._orders.answer(request, image_id, host_name)
                return self._replicas(request, image_id)
            except webob.exc.HTTPException as refusal:
                return refusal
            except UnicodeDecodeError:
                return webob.exc.HTTPBadRequest(explanation=Refusal.BAD_QUERY)
        if request.method == "GET" and self._signs:
            return self._signed(request, image_id)
        return self._app

    def _replicas(self, request: webob.Request, image_id: str) -> webob.Response:
        if request.method != "GET":
            raise webob.exc.HTTPMethodNotAllowed(headers={"Allow": "GET"})
        if not is_image_id(image_id):
            raise webob.exc.HTTPNotFound(explanation=Refusal.NO_IMAGE.format(image=image_id))
        found = self._access.image(request.context, image_id)
        image = self._completed(image_of(found))
        made = self._document(image, self._sees_stores(request.context, found), request.GET)
        answer = _answer_of(made, self._hosts.living(), request)
        answer.headers["Cache-Control"] = NOT_STORED
        return answer

    def _sees_stores(self, context: Any, found: Any) -> bool:
        """Whether Glance itself shows this caller every location of the image (OSSN-0065), on one call or the other."""
        rules = self._access.rules(context, found)
        shown = cfg.CONF.show_multiple_locations and rules.check("get_image_location")
        return bool(shown or rules.check("get_locations"))

    def _document(self, image: Image, sees_stores: bool, hints: Mapping[str, str]) -> document.Document:
        hosts = self._hosts.knowing(location.host for location in image.cached)
        states, now = self._hosts.states(image.id), self._hosts.now()
        rows = []
        for location in image.locations:
            known = hosts.get(location.host or "")
            ours = known is not None and location.url == replica_url(known.url, image.id)
            if ours or sees_stores:
                url = self._hosts.sign(location) if image.status == IMAGE_ACTIVE else location.url
                age = known.age_seconds if ours and known and known.heartbeat else None
                rows.append(document.replica(location, url, states.get((image.id, place_key(location))), age, now))
        here = choose.Here(hints.get("host", "")[:MAX_HINT] or None, hints.get("zone", "")[:MAX_HINT] or None)
        seed = hints.get("seed", "")[:MAX_HINT] or secrets.token_hex(8)
        alarm = _alarm(image, states, sees_stores)
        return document.build(image, [choice.location for choice in arrange(rows, here, seed)], alarm)

    def _signed(self, request: webob.Request, image_id: str) -> Any:
        """Glance's answer with our URLs signed; without any, or for callers who may not download, as it is."""
        answer = request.get_response(self._app)
        if not is_image_id(image_id) or not _is_small_json(answer):
            return answer
        if replica_url("", image_id).encode() not in answer.body:
            return answer
        signed = {location.url: self._hosts.sign(location) for location in self._downloadable(request, image_id)}
        text = _replaced(answer.body, {url: new for url, new in signed.items() if new != url})
        if text is not None:
            answer.body = text
            answer.headers["Cache-Control"] = NOT_STORED
        return answer

    def _downloadable(self, request: webob.Request, image_id: str) -> Sequence[Location]:
        """The image's copies on hosts that this caller may read; of what is deactivated hosts serve nobody."""
        try:
            found = self._access.find(request.context, image_id)
        except webob.exc.HTTPException:
            return ()
        if found.status != IMAGE_ACTIVE or not self._access.may_download(request.context, found):
            return ()
        return image_of(found).cached


def _alarm(image: Image, states: Mapping[tuple[str, str], Result], sees_stores: bool) -> str | None:
    """That the image has cached copies only; what to do about it is told to who sees its stores."""
    known = {
        key: Last(result.verdict, result.evidence, result.checked_at)
        for key, result in states.items()
        if result.checked_at
    }
    if not only_cached(image, known):
        return None
    return Alarm.FOR_OPERATORS.format(image=image.id) if sees_stores else Alarm.FOR_ALL


def _answer_of(made: document.Document, living: Container[str | None], request: webob.Request) -> webob.Response:
    """JSON, or Metalink for those who ask for it; what is to be read at once names copies on living hosts only."""
    kept = tuple(replica for replica in made.replicas if replica.durable or replica.host in living)
    at_once = replace(made, replicas=kept)
    offers = [offer for offer, _ in request.accept.acceptable_offers([JSON, metalink.MEDIA_TYPE])]
    if made.size == 0 and not at_once.readable and metalink.MEDIA_TYPE in offers:  # a file in it must have a URL
        offers.remove(metalink.MEDIA_TYPE)
        if not offers:
            raise webob.exc.HTTPNotAcceptable(
                explanation=Refusal.EMPTY.format(image=made.image_id), body_template="${explanation}"
            )
    if offers and offers[0] == metalink.MEDIA_TYPE:
        answer = webob.Response(content_type=metalink.MEDIA_TYPE, body=metalink.dump(at_once))
    else:
        answer = webob.Response(content_type=JSON, text=document.dump(made))
    for link in metalink.links(at_once):
        answer.headers.add("Link", link)
    answer.headers["Vary"] = "Accept"
    return answer


def _is_small_json(answer: webob.Response) -> bool:
    """A whole JSON body of moderate size: what we can change without holding up anything."""
    length = answer.content_length
    plain = answer.content_type == JSON and not answer.content_encoding
    return answer.status_int == 200 and plain and length is not None and 0 < length <= MAX_JSON


def _replaced(body: bytes, signed: Mapping[str, str]) -> bytes | None:
    """The JSON body with these URLs replaced where Glance shows locations, every other byte as Glance wrote it.

    None: there is none of them.
    """
    try:
        value = json.loads(body)
    except ValueError:
        return None
    as_is = [style for style in (False, True) if json.dumps(value, ensure_ascii=style).encode() == body]
    found = [(container, key) for container, key in _places(value) if container[key] in signed]
    for container, key in found:
        container[key] = signed[container[key]]
    if not found:
        return None
    return json.dumps(value, ensure_ascii=as_is[0] if as_is else False).encode()


def _places(value: Any) -> list[tuple[dict[str, Any], str]]:
    """Where a URL stands in Glance's answers: (object, key)."""
    found = []
    if isinstance(value, dict) and isinstance(value.get("direct_url"), str):
        found.append((value, "direct_url"))
    rows = value.get("locations") if isinstance(value, dict) else value
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("url"), str):
            found.append((row, "url"))
    return found
