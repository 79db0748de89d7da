"""The WSGI server that runs this process: which one, how many threads it has, and what of ours goes with it.

Threads and locks of ours do not survive a fork, nor the patching of Eventlet and gevent: both stop the start. The
kernel may send files on uWSGI's connections only where nothing stands between: an allow-list (`why_no_sendfile`).
"""

import functools
import importlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from oslo_config import cfg

from glance_replicas.check import pipeline
from glance_replicas.check.server import CONSEQUENCE, ENDINGS
from glance_replicas.errors import ConfigError

_SOCKETS = {"http-socket", "socket", "uwsgi-socket"}  # HTTP, or uwsgi to a proxy; each closed after one answer
_PLAIN = {"abstract", "chmod", "chown", "map", "setns", "wait-for", "notify", "subscription-notify", "log", "req-log"}
_ROUTERS = {"http", "httprouter", "http-to-https", "https", "https2", "http11", "fastrouter", "rawrouter", "sslrouter"}
_LOOPS = {"async", "gevent", "gevent-monkey-patch", "asyncio", "ugreen", "greenlet", "tornado", "coroae", "fiber"}
_ROUTING = re.compile(r"(.+-)?route(-.+)?")  # rules of uWSGI's internal routing may add transformations
_PACKERS = re.compile("gzip|deflate|compress|brotli|zstd", re.IGNORECASE)  # in the name of a filter


@dataclass(frozen=True)
class Server:
    """What is known of the server; `threads` are those of one process that answer requests, None: not known."""

    kind: str = ""  # uwsgi, gunicorn, or something else
    threads: int | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of uWSGI
    forks_later: str = ""  # what to change where this process has loaded the application only to fork from itself


@functools.cache
def server() -> Server:
    """The one of this process; first asked while the application is loaded."""
    try:
        return _uwsgi(importlib.import_module("uwsgi"))
    except ImportError:
        return _gunicorn(sys._getframe())


def check(found: Server) -> None:
    """Raises ConfigError where our threads and locks cannot work, with the remedy."""
    patched = _patched() or next(iter(sorted(_LOOPS & found.options.keys())), None)
    if patched:
        raise ConfigError(
            f"this process runs on green threads ({patched}), and the threads of glance-replicas would stop it: run "
            "glance.wsgi.api:application with native threads (uWSGI: --threads 16 --enable-threads, without "
            "--gevent and the like; gunicorn: --worker-class gthread)"
        )
    if found.forks_later:
        raise ConfigError(
            "the application is loaded before the worker processes are forked, and neither threads nor locks of "
            f"glance-replicas survive that: {found.forks_later}"
        )


def why_no_sendfile(found: Server, filters: Collection[str] | None) -> str | None:
    """Why bytes must not go past WSGI on the server's own connection; None: they may.

    `filters` are those of the pipeline that stand outside ours; None: not known.
    """
    if found.kind != "uwsgi":
        return "this process is not run by uWSGI"
    wrong = next(_not_plain(found.options), None)
    if wrong:
        return f"uWSGI's option {wrong} is not one that bytes may pass by"
    if filters is None:
        return "the paste file cannot be read, so that it is not known which filters see a body"
    packers = sorted(name for name in filters if _PACKERS.search(name))
    return f"the filter {packers[0]} changes bodies" if packers else None


def outside(conf: cfg.ConfigOpts) -> tuple[str, ...] | None:
    """The filters before our cache, by role or name, as Glance runs them; None when that cannot be told."""
    config = importlib.import_module("glance.common.config")
    try:
        path = config._get_deployment_config_file()
        found = pipeline.roles(Path(path).read_text(), conf.paste_deploy.flavor)
    except (OSError, RuntimeError, ValueError, cfg.Error):
        return None
    return found[: found.index(pipeline.CACHE)] if pipeline.CACHE in found else found


def endings(found: Server) -> dict[str, str]:
    """Options of uWSGI that end a process while it sends or fills, with their values."""
    return {name: ", ".join(found.options[name]) for name in ENDINGS if name in found.options}


def risks(found: Server) -> Iterator[str]:
    """What comes of each of them; one line for the log."""
    for name, value in endings(found).items():
        yield f"uWSGI's {name} = {value} {ENDINGS[name][0]}; {CONSEQUENCE}"


def _not_plain(options: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Options of uWSGI that put something between a body and its client, or are not known not to."""
    for name, values in sorted(options.items()):
        is_socket = name == "socket" or name.endswith("-socket")
        strange = is_socket and name not in _SOCKETS and name.removesuffix("-socket") not in _PLAIN
        other = name in ("protocol", "socket-protocol") and not set(values) <= {"uwsgi", "http"}
        if strange or other or name in _ROUTERS | _LOOPS or _ROUTING.fullmatch(name):
            yield name
    if not _SOCKETS & options.keys():
        yield "(none of http-socket, socket)"


def _uwsgi(module: Any) -> Server:
    options = {_text(name): _texts(value) for name, value in module.opt.items()}
    is_master = bool(module.masterpid()) and module.worker_id() == 0  # it forks its workers when all is loaded
    processes = next((options[name][0] for name in ("processes", "workers", "p") if options.get(name)), "1")
    forks = is_master and ("master" in options or processes != "1")
    remedy = "set lazy-apps = true in uWSGI's configuration" if forks else ""
    threads = next((options[name][0] for name in ("threads",) if options.get(name)), "1")
    return Server("uwsgi", int(threads) if threads.isdigit() else 1, options, remedy)


def _gunicorn(frame: FrameType | None) -> Server:
    """Gunicorn says nothing of itself to an application, except to the frames that load it."""
    worker: Any = None
    while frame is not None:
        where, owner = frame.f_globals.get("__name__", ""), frame.f_locals.get("self")
        if where == "gunicorn.arbiter" and frame.f_code.co_name == "setup":
            return Server("gunicorn", forks_later="leave out gunicorn's option --preload (preload_app)")
        if where.startswith("gunicorn.workers.") and hasattr(owner, "cfg"):
            worker = owner
        frame = frame.f_back
    return Server() if worker is None else Server("gunicorn", worker.cfg.threads)


def _patched() -> str | None:
    """The library that has replaced threads or sockets of this process."""
    eventlet, gevent = sys.modules.get("eventlet.patcher"), sys.modules.get("gevent.monkey")
    if eventlet is not None and (eventlet.is_monkey_patched("thread") or eventlet.is_monkey_patched("socket")):
        return "eventlet"
    if gevent is not None and (gevent.is_module_patched("threading") or gevent.is_module_patched("socket")):
        return "gevent"
    return None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in (value if isinstance(value, list) else [value]))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
