"""The WSGI server of a process: where the kernel may send past it, what follows its threads, what stops the start."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.glance.site import APPLICATION, GlanceHost, GlanceSite

from glance_replicas.errors import ConfigError
from glance_replicas.middleware.host import fitted
from glance_replicas.middleware.sending.wsgi import Server, risks, why_no_sendfile
from glance_replicas.settings import Settings

SETTINGS = Settings("here", None, Path("/nowhere"), "sqlite://", "sqlite://")
PLAIN = {"http-socket": ("127.0.0.2:9292",), "threads": ("16",), "lazy-apps": ("True",), "socket-timeout": ("60",)}
OUTSIDE = ("cors", "replica-server", "http_proxy_to_wsgi", "authtoken", "context", "replica-api")


def server(**options: str) -> Server:
    """uWSGI with these options beside the usual ones; an empty one is left out."""
    named = {name.replace("_", "-"): (value,) for name, value in options.items()}
    return Server("uwsgi", 16, {name: value for name, value in (PLAIN | named).items() if value != ("",)})


def sendfile(found: Server, filters: tuple[str, ...] | None = OUTSIDE) -> str:
    """What `sendfile = auto` comes to."""
    return fitted(SETTINGS, found, filters).sendfile


def test_sendfile_is_automatic() -> None:
    """With http-socket, or the uwsgi protocol behind a proxy, the kernel sends; elsewhere Python does."""
    assert sendfile(server()) == "uwsgi"
    assert sendfile(server(http_socket="", socket="/run/glance.sock", chmod_socket="660")) == "uwsgi"
    assert sendfile(server(http_socket="", uwsgi_socket=":3031", protocol="uwsgi")) == "uwsgi"
    assert sendfile(Server("gunicorn", 16)) == "off"
    assert sendfile(Server()) == "off"


BETWEEN = [
    *("https-socket", "http11-socket", "fastcgi-socket", "scgi-socket", "puwsgi-socket", "suwsgi-socket"),
    *("raw-socket", "shared-socket", "http", "https", "http-to-https", "fastrouter", "route", "route-run"),
    *("final-route", "response-route-if", "async", "gevent", "ugreen"),
]


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between(name: str) -> None:
    """TLS, routers, other protocols, internal routing and loops: auto leaves the kernel out, uwsgi stops the start."""
    found = Server("uwsgi", 16, PLAIN | {name: ("x",)})
    assert sendfile(found) == "off"
    with pytest.raises(ConfigError, match=f"option {name} "):
        fitted(Settings(**{**vars(SETTINGS), "sendfile": "uwsgi"}), found, OUTSIDE)


@given(st.from_regex(r"[a-z0-9]{1,12}-socket", fullmatch=True))
def test_a_socket_that_is_not_known(name: str) -> None:
    """It is an allow-list: a kind of socket nobody here has heard of is not taken for a plain one."""
    known = {"http-socket", "uwsgi-socket"}
    plain = {f"{one}-socket" for one in ("abstract", "chmod", "chown", "map", "setns", "notify", "log")}
    assert (why_no_sendfile(Server("uwsgi", 1, PLAIN | {name: ("x",)}), OUTSIDE) is None) == (name in known | plain)


def test_filters_that_change_bodies() -> None:
    """A filter that packs bodies rules the kernel out; one that nobody knows does so unless the operator says uwsgi."""
    wanted = Settings(**{**vars(SETTINGS), "sendfile": "uwsgi"})
    assert sendfile(server(), (*OUTSIDE, "gzipper")) == "off"
    with pytest.raises(ConfigError, match="gzipper changes bodies"):
        fitted(wanted, server(), (*OUTSIDE, "gzipper"))
    assert sendfile(server(), (*OUTSIDE, "ours")) == "off"
    assert fitted(wanted, server(), (*OUTSIDE, "ours")).sendfile == "uwsgi"
    assert sendfile(server(), None) == "off"


def test_streams_follow_the_threads() -> None:
    """Half of the threads send bodies of per-host URLs, however few there are, unless the operator says how many."""
    assert [fitted(SETTINGS, Server("uwsgi", n, PLAIN), OUTSIDE).max_peer_streams for n in (1, 2, 16)] == [1, 1, 8]
    assert fitted(SETTINGS, Server(), OUTSIDE).max_peer_streams == 32
    said = Settings(**{**vars(SETTINGS), "max_peer_streams": 0})
    assert fitted(said, server(), OUTSIDE).max_peer_streams == 0


def test_options_that_end_a_process() -> None:
    """What kills or retires workers is named at the start, each with its consequence; the usual options are not."""
    assert not list(risks(server()))
    named = [one.split()[1] for one in risks(server(harakiri="60", max_worker_lifetime="3600", max_requests="100"))]
    assert named == ["harakiri", "max-worker-lifetime", "max-requests"]


def refused(host: GlanceHost, command: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the log says of a start that fails."""
    monkeypatch.setattr(host, "command", lambda: command)
    with pytest.raises(RuntimeError):
        host.start()
    return host.log()


def test_forks_after_loading_stop_the_start(site: GlanceSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """uWSGI without lazy-apps and gunicorn with --preload do not start, and the log says what to change."""
    made = site.add_host("127.0.0.2", start=False)
    forking = [word for word in made.command() if word != "--lazy-apps"]
    assert "set lazy-apps = true" in refused(made, forking, monkeypatch)
    other = site.add_host("127.0.0.3", server="gunicorn", start=False)
    assert "leave out gunicorn's option --preload" in refused(other, [*other.command(), "--preload"], monkeypatch)


def test_green_threads_stop_the_start(site: GlanceSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application patched by Eventlet does not start, and the log says how to run it."""
    made = site.add_host("127.0.0.2", start=False)
    (made.folder / "patched.py").write_text(
        "import eventlet\neventlet.monkey_patch()\nfrom glance.wsgi.api import application\n"
    )
    words = ["patched:application" if word == APPLICATION else word for word in made.command()]
    log = refused(made, [*words, "--pythonpath", made.folder], monkeypatch)
    assert "green threads (eventlet)" in log
    assert "--worker-class gthread" in log
