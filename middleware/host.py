"""This host in this process: its parts, shared by all filters, and one janitor, by the configuration that is in force.

One pool of connections to each database, one list of hosts. A process may load one application after another, each
with a configuration of its own (a test suite does): what was made for the earlier one ends then.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from oslo_config import cfg

from glance_replicas import settings
from glance_replicas.check import pipeline
from glance_replicas.errors import CacheError, ConfigError
from glance_replicas.host import server_note
from glance_replicas.host.cache_calls import CacheCalls
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor.passes import Janitor
from glance_replicas.ledger.prefetch_requests import PrefetchRequests
from glance_replicas.settings import Settings

from . import trust
from .sending import wsgi
from .sending.parking import Parking

log = logging.getLogger(__name__)

_PARKED = 8  # bodies sent by threads of ours, for each thread of the server
_PEER_STREAMS = 32  # where it is not known how many threads there are

_lock = threading.Lock()


class Running:
    """What one configuration runs in this process."""

    def __init__(self, said: Settings) -> None:
        server = wsgi.server()
        wsgi.check(server)
        for risk in wsgi.risks(server):
            log.warning("%s", risk)
        trust.check(said)
        self.said = said
        self.local_host = LocalHost.assemble(fitted(said, server, wsgi.outside(cfg.CONF)))
        self.janitor = Janitor(self.local_host)
        self.parking = _parking(self.local_host.settings, server)
        self._started = False

    def start(self) -> None:
        """The janitor runs; several cache filters of one configuration share it."""
        with _lock:
            started, self._started = self._started, True
        if not started:
            self._note_server()
            self.janitor.start()

    def _note_server(self) -> None:
        try:
            server_note.write(self.local_host.cache, wsgi.endings(wsgi.server()))
        except CacheError as error:
            log.warning("how this host is run could not be recorded for replica check: %s", error)

    def stop(self) -> None:
        """The janitor ends after the step it is in; requests under way are served on."""
        self.janitor.stop()


_running: Running | None = None


def running() -> Running:
    """This host, by the configuration Glance has read. Raises ConfigError, which stops the start."""
    global _running
    said = settings.read(cfg.CONF)
    with _lock:
        if _running is None or _running.said != said:
            before, _running = _running, Running(said)
            if before is not None:
                before.stop()
        return _running


def local_host() -> LocalHost:
    """The parts of `running`, for a filter to hand on."""
    return running().local_host


def cache_calls(host: LocalHost, wake: Callable[[], None]) -> CacheCalls:
    """What Glance's own cache calls do here; `wake` has the janitor look at once at what is asked."""
    return CacheCalls(
        settings=host.settings,
        cache=host.cache,
        catalogue=host.catalogue,
        hosts=host.host_registry,
        requests=PrefetchRequests(host.ledger.database),
        usage=host.usage,
        eviction=host.eviction,
        own_copies=host.own_copies,
        wake=wake,
    )


def fitted(found: Settings, server: wsgi.Server, filters: tuple[str, ...] | None) -> Settings:
    """The settings with what they leave to the server of this process. Raises ConfigError where it cannot do it."""
    streams = found.max_peer_streams
    if streams is None:
        streams = max(1, server.threads // 2) if server.threads else _PEER_STREAMS
    sendfile, most = _sendfile(found.sendfile, server, filters), found.max_streams
    if most is None:
        threads = server.threads or 0
        most = max(1, threads - threads // 2 - max(1, threads // 8)) if sendfile == "uwsgi" else 0
    return replace(found, sendfile=sendfile, max_peer_streams=streams, max_streams=most)


def _parking(found: Settings, server: wsgi.Server) -> Parking:
    if found.sendfile != "uwsgi" or not found.max_streams:
        return Parking(found.max_streams or 0, 0)
    threads = server.threads or 1
    made = Parking(found.max_streams, _PARKED * threads, max(1, threads // 4))
    made.drain_at_exit()
    return made


def _sendfile(wanted: str, server: wsgi.Server, filters: tuple[str, ...] | None) -> str:
    if wanted not in ("auto", "uwsgi"):
        return wanted
    why_not = wsgi.why_no_sendfile(server, filters)
    if wanted == "uwsgi" and why_not:
        raise ConfigError(
            f"[replicas] sendfile = uwsgi: {why_not}; set it to auto or off, or to x-accel-redirect with nginx in front"
        )
    strange = pipeline.strange(filters or ())
    if not why_not and wanted == "auto" and strange:
        why_not = f"the filter {strange[0]} is not known to leave bodies alone"
    if why_not:
        log.info("files are sent through Python (sendfile = off): %s", why_not)
    return "off" if why_not else "uwsgi"
