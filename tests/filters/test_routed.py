"""The seam through which our code sees Glance's routed action: Glance's own router and dispatcher, no server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import webob
import webob.exc
from glance.common import wsgi

from glance_replicas.middleware.inside_glance.routed import Handlers, Routed

SPELLINGS = [  # and whether Glance takes it for a delete
    ("DELETE", "/things/a", "", True),
    ("GET", "/things/a?_method=DELETE", "", True),
    ("POST", "/things/a?_method=delete", "", True),
    ("DELETE", "/things/a%0A", "", True),
    ("DELETE", "/things/a/", "", False),  # Routes knows no such path
    ("POST", "/things/a", "_method=DELETE", False),  # the action is found, but its body is no JSON
    ("DELETE", "/things/a/b", "", False),
]


class Things:
    """A controller as Glance has them; it notes what it was asked for."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any]] = []

    def show(self, _request: Any, name: str) -> Any:
        self.done.append(("show", name))
        return {"shown": name}

    def update(self, _request: Any, name: str, body: Any) -> Any:
        self.done.append(("update", body))
        return {"name": name}

    def delete(self, _request: Any, name: str) -> Any:
        self.done.append(("delete", name))
        if name.startswith("kept"):
            raise webob.exc.HTTPForbidden(explanation="kept")
        return {"deleted": name}


@pytest.fixture
def things() -> Things:
    return Things()


@pytest.fixture
def ask(things: Things) -> Callable[..., webob.Response]:
    """A request through Glance's router, with these handlers or without any."""
    mapper = wsgi.APIMapper()
    resource = wsgi.Resource(things)
    for method, action in (("GET", "show"), ("PATCH", "update"), ("DELETE", "delete")):
        mapper.connect("/things/{name}", controller=resource, action=action, conditions={"method": [method]})
    router = wsgi.Router(mapper)

    def ask(handlers: Handlers | None, method: str, path: str, body: str = "") -> webob.Response:
        request = webob.Request.blank(path, method=method, body=body.encode())
        if body.startswith("_method"):
            request.content_type = "application/x-www-form-urlencoded"
        if handlers is not None:
            handlers.apply(request.environ)
        return request.get_response(router)

    return ask


@pytest.mark.parametrize(("method", "path", "body", "is_delete"), SPELLINGS)
def test_every_spelling_is_one_action(
    things: Things, ask: Any, *, method: str, path: str, body: str, is_delete: bool
) -> None:
    """What Glance takes for a delete, and nothing else, reaches the handler of delete, with Glance's arguments."""
    seen: list[str] = []
    handlers = Handlers()

    def refuse(call: Routed) -> Any:
        seen.append(call.arguments["name"].strip())
        raise webob.exc.HTTPConflict(explanation="no")

    handlers.on(Things, "delete", refuse)
    plain = ask(None, method, path, body).status_int
    assert bool(things.done) is is_delete
    things.done.clear()
    assert ask(handlers, method, path, body).status_int == (409 if is_delete else plain)
    assert seen == (["a"] if is_delete else [])
    assert things.done == []


def test_what_was_parsed_is_what_the_handler_sees(things: Things, ask: Any) -> None:
    """A body is read once, by Glance; the handler has it among the arguments, and so has the action after it."""
    handlers, seen = Handlers(), []
    handlers.on(Things, "update", lambda call: (seen.append(call.arguments["body"]), call.proceed())[1])
    assert ask(handlers, "PATCH", "/things/a", json.dumps({"x": [1]})).json == {"name": "a"}
    assert seen == [{"x": [1]}]
    assert things.done == [("update", {"x": [1]})]


def test_others_requests_and_other_actions_are_glances(things: Things, ask: Any) -> None:
    """A request no filter gave handlers, and an action without one, go by as if there were no seam."""
    handlers, absent = Handlers(), Handlers()
    handlers.on(Things, "delete", lambda _: {"handled": True})
    absent.on(Things, "no_such_action", lambda _: {"handled": True})
    assert ask(None, "DELETE", "/things/a").json == {"deleted": "a"}
    assert ask(handlers, "GET", "/things/a").json == {"shown": "a"}
    assert ask(handlers, "DELETE", "/things/a").json == {"handled": True}
    assert ask(absent, "DELETE", "/things/a").json == {"deleted": "a"}


def test_two_filters_each_have_their_actions(ask: Any) -> None:
    """Handlers of two filters hold for one request."""
    one, other = Handlers(), Handlers()
    one.on(Things, "delete", lambda _: {"by": "one"})
    other.on(Things, "show", lambda _: {"by": "other"})

    class Both(Handlers):
        def apply(self, environ: dict[str, Any]) -> None:
            one.apply(environ)
            other.apply(environ)

    assert ask(Both(), "DELETE", "/things/a").json == {"by": "one"}
    assert ask(Both(), "GET", "/things/a").json == {"by": "other"}


def test_an_answer_of_its_own(ask: Any) -> None:
    """A handler may answer with any status and body."""
    handlers = Handlers()

    def own(_call: Routed) -> Any:
        raise webob.exc.HTTPOk(body=b"[]", content_type="application/json")

    handlers.on(Things, "delete", own)
    answer = ask(handlers, "DELETE", "/things/a")
    assert (answer.status_int, answer.body, answer.content_type) == (200, b"[]", "application/json")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize(("name", "glance"), [("a", 200), ("kept", 403)])
def test_a_fault_is_never_a_500(
    things: Things, ask: Any, caplog: Any, *, late: bool, closed: bool, name: str, glance: int
) -> None:
    """A handler that raises is logged; the answer is Glance's, or 503 with nothing done where that was asked for."""
    handlers = Handlers()

    def faulty(call: Routed) -> Any:
        if late:
            try:
                call.proceed()
            except webob.exc.HTTPForbidden:
                pass
        raise ZeroDivisionError

    handlers.on(Things, "delete", faulty, closed=closed)
    refused = closed and not late
    assert ask(handlers, "DELETE", f"/things/{name}").status_int == (503 if refused else glance)
    assert things.done == ([] if refused else [("delete", name)])
    assert "ZeroDivisionError" in caplog.text
