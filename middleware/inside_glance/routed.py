"""What Glance is about to do, after Glance itself has routed and read the request.

One action has many spellings: `DELETE`, `GET` or `POST` with `?_method=DELETE` (Routes honours it), a form field of
that name, `%0A` or a slash after the id, an id in capitals on MariaDB, a chunked body that uWSGI hands out through a
function of its own, two media types of JSON patch. A filter that reads method, path or body for itself sees only some
of them. Here a handler is called between Glance's deserialiser and Glance's controller, with the arguments that the
controller is about to get:

    handlers = routed.Handlers()
    handlers.on(ImagesController, "delete", self._delete)  # a fault of ours: Glance answers
    handlers.on(CacheController, "queue_image_from_api", self._queue, closed=True)  # a fault of ours: 503

    def _delete(self, call: Routed) -> Any:
        image_id = call.arguments["image_id"]  # as routed; the database may spell it otherwise
        result = call.proceed()  # what Glance does: its result, or its exception
        return result  # goes to Glance's serialiser of this action

    def __call__(self, environ, start_response):  # the filter
        handlers.apply(environ)
        return self._app(environ, start_response)

Rules
1. A request that no filter gave handlers (`apply`) is Glance's alone; so is an action without a handler.
2. A handler runs once for each action. It returns what the controller would (its serialiser writes the answer), or
   raises any `webob.exc` answer, one with status 200 and a body of its own too.
3. `proceed` runs Glance's action at most once, however often it is called. Its exceptions are Glance's answers: let
   them pass. Glance's own checks (policy, protection, positions) are inside the action; raise before `proceed` only
   what may come before them.
4. A fault in a handler is never a 500. It is logged with its traceback. If Glance's action was run, its outcome is the
   answer; if not, Glance runs it, or with `closed` nothing is done and the answer is 503.
5. `call.request` is Glance's request and `call.request.context` the caller. Do not read its body: see `arguments`.

What Glance's action decides deep inside, after its own checks, or in a task with no request at all, is the removal of a
location: `around_removals(around)` has `around(image_id, location)` entered before Glance takes a location, bytes and
row, out of a store, whatever led to that (a store's copy deleted, a PATCH, an import that cleans up, an image deleted).
Raising there keeps it; False from `with` makes Glance believe it gone. `image_id` is as the database spells it.

Private names of Glance 33.0.0 in use, all of them here: `glance.common.wsgi.Resource.dispatch(obj, action, request,
**arguments)`, called for deserialiser, controller and serialiser in turn, and `Resource.controller`;
`glance.common.store_utils.delete_image_location_from_backend` and `safe_delete_from_backend(context, image_id,
location)`, which everybody calls as attributes of that module, the first one calling the second.
"""

import functools
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import webob.exc
from glance.common import store_utils, wsgi

from glance_replicas.errors import ConfigError

from ..client_words import Refusal

log = logging.getLogger(__name__)

_KEY = "glance_replicas.handlers"  # in environ; no header of a client can have this name
_installing = threading.Lock()
_REMOVALS = ("delete_image_location_from_backend", "safe_delete_from_backend")

Around = Callable[[str, Mapping[str, Any]], AbstractContextManager[bool]]


class Routed:
    """One action of Glance, routed and deserialised, not yet done."""

    def __init__(self, action: str, request: Any, arguments: Mapping[str, Any], do: Callable[[], Any]) -> None:
        self.action = action
        self.request = request
        self.arguments = arguments
        self._do = do
        self._result: Any = None
        self.began = False  # whether Glance's action was run
        self.failure: BaseException | None = None  # what it raised

    def proceed(self) -> Any:
        """What Glance's controller returns; raises what it raises."""
        if self.failure is not None:
            raise self.failure
        if not self.began:
            self.began = True
            try:
                self._result = self._do()
            except BaseException as error:
                self.failure = error
                raise
        return self._result


@dataclass(frozen=True)
class _Handler:
    answer: Callable[[Routed], Any]
    closed: bool


class Handlers:
    """One filter's handlers, by controller and action."""

    def __init__(self) -> None:
        _install()
        self._found: dict[tuple[type, str], _Handler] = {}

    def on(self, controller: type, action: str, answer: Callable[[Routed], Any], *, closed: bool = False) -> None:
        """`answer` is called in place of this action; `closed`: a fault in it is answered 503, not by Glance.

        An action that this Glance does not have needs no handler: nobody can ask for it.
        """
        if hasattr(controller, action):
            self._found[controller, action] = _Handler(answer, closed)
        else:
            log.info("Glance has no %s.%s here: nothing to handle", controller.__name__, action)

    def apply(self, environ: dict[str, Any]) -> None:
        """These handlers hold for this request. Of several for one action `proceed` of the latest calls the next."""
        environ[_KEY] = (self, *environ.get(_KEY, ()))

    def find(self, controller: object, action: str) -> _Handler | None:
        """The handler of an action, those of base classes too."""
        kinds = ((kind, action) for kind in type(controller).__mro__)
        return next((self._found[kind] for kind in kinds if kind in self._found), None)


class _Removals:
    """Who is asked before Glance removes a location, and whether this thread has asked already."""

    around: Around | None = None
    inside = threading.local()


def around_removals(around: Around) -> None:
    """From now on `around` is asked, in place of whoever was before it. See the module. Raises ConfigError."""
    with _installing:
        for name in _REMOVALS:
            original = _private(store_utils, name)
            if not hasattr(original, _KEY):
                setattr(store_utils, name, _asking(original))
        _Removals.around = around


def _asking(original: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, asking first."""

    @functools.wraps(original)
    def remove(context: Any, image_id: str, location: Mapping[str, Any]) -> Any:
        inside = _Removals.inside
        if _Removals.around is None or getattr(inside, "yes", False):
            return original(context, image_id, location)
        inside.yes = True
        try:
            with _Removals.around(image_id, location) as goes:
                return original(context, image_id, location) if goes else None
        finally:
            inside.yes = False

    setattr(remove, _KEY, True)
    return remove


def _install() -> None:
    """Glance's dispatcher asks for handlers first; once for each process. Raises ConfigError."""
    with _installing:
        original = _private(wsgi.Resource, "dispatch")
        if hasattr(original, _KEY):
            return

        @functools.wraps(original)
        def dispatch(self: Any, obj: Any, action: str, *args: Any, **kwargs: Any) -> Any:
            do = functools.partial(original, self, obj, action, *args, **kwargs)
            for handler in _found(self, obj, action, args):
                do = functools.partial(_answer, handler, Routed(action, args[0], kwargs, do))
            return do()

        setattr(dispatch, _KEY, True)
        wsgi.Resource.dispatch = dispatch


def _private(owner: Any, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(owner, name, None)
    if found is None:
        raise ConfigError(
            f"this release of Glance has no {owner.__name__}.{name}: the last copies of images could not be guarded; "
            "use a release that docs/install.md lists, or take replica-cache and replica-api out of the pipeline"
        )
    return found


def _found(resource: Any, obj: Any, action: str, args: tuple[Any, ...]) -> list[_Handler]:
    """Who answers, the innermost first, if it is a controller's turn and this request has handlers."""
    if obj is not resource.controller or not args:
        return []
    tables = getattr(args[0], "environ", {}).get(_KEY, ())
    return [found for table in reversed(tables) if (found := table.find(obj, action)) is not None]


def _answer(handler: _Handler, call: Routed) -> Any:
    """What the handler answers; what comes in its place when it is at fault."""
    try:
        return handler.answer(call)
    except webob.exc.HTTPException:
        raise
    except Exception as error:
        if call.began:
            if call.failure is not error:
                log.exception("%s: Glance has finished it, and the follow-up in glance-replicas failed", call.action)
            return call.proceed()
        log.exception("%s: an internal error of glance-replicas", call.action)
        if handler.closed:
            raise webob.exc.HTTPServiceUnavailable(explanation=Refusal.FAULT) from error
        return call.proceed()
