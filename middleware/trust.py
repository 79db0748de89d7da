"""Whom `trusted_networks` covers: clients in those networks, never a host of ours, and never this machine itself.

A host reads URLs that users name: Glance's http store and its imports follow a redirect from the user's server to a
per-host URL, and call from the host's own address. Hosts read each other by signatures.
"""

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from glance_replicas.errors import ConfigError
from glance_replicas.model import Host
from glance_replicas.networks import Address, address, is_too_wide
from glance_replicas.settings import Settings

log = logging.getLogger(__name__)

_KEEP_SECONDS = 60.0  # how long the addresses of a name are good for


def check(settings: Settings) -> None:
    """Raises ConfigError for a network that would let everybody in."""
    for network in settings.trusted_networks:
        if is_too_wide(network):
            raise ConfigError(
                f"[replicas] trusted_networks = {network} trusts everybody with every cached image, private ones too; "
                "name the networks of the clients, or use signing_keys alone"
            )


class Trust:
    """Thread-safe. `hosts` gives the hosts of the ledger by name."""

    def __init__(self, settings: Settings, hosts: Callable[[], Mapping[str, Host]]) -> None:
        self._settings = settings
        self._hosts = hosts
        self._addresses: dict[str, tuple[float, frozenset[Address]]] = {}  # of a name, until when

    def covers(self, peer: str) -> bool:
        """Whether a client may read without a signature, by the address of the socket's other end."""
        found = address(peer)
        if found is None or not any(found in network for network in self._settings.trusted_networks):
            return False
        return not (_is_own(found) or self._is_host(found))

    def _is_host(self, found: Address) -> bool:
        """Whether it is the address of a host, or may be: the hosts, or the address of one, are not known."""
        hosts = self._hosts().values()
        if not any(host.heartbeat for host in hosts):  # the ledger was never read: this host alone, made up by itself
            return True
        return any(self._is_at(host, found) for host in hosts)

    def _is_at(self, host: Host, found: Address) -> bool:
        name = urlsplit(host.url).hostname or ""
        literal = address(name)
        known = {literal} if literal else self._resolved(name)
        if not known and host.age_seconds < self._settings.dead_after_seconds:
            log.warning(
                "trusted_networks: no client is trusted while the address of host %s (%s) is not known", host.name, name
            )
            return True
        return found in known

    def _resolved(self, name: str) -> frozenset[Address]:
        """The addresses of a name, the last ones known when it cannot be looked up."""
        until, known = self._addresses.get(name, (0.0, frozenset()))
        if time.monotonic() >= until:
            known = _look_up(name) or known
            self._addresses[name] = (time.monotonic() + _KEEP_SECONDS, known)
        return known


def _look_up(name: str) -> frozenset[Address]:
    try:
        rows: Iterable[str] = [str(row[4][0]) for row in socket.getaddrinfo(name, None)]
    except OSError:
        return frozenset()
    return frozenset(found for row in rows if (found := address(row)))


def _is_own(found: Address) -> bool:
    """Whether it is an address of this machine: a packet to it would leave from it. Nothing is sent."""
    if found.is_loopback or found.is_unspecified:
        return True
    family = socket.AF_INET6 if found.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(found), 9))
            return address(str(probe.getsockname()[0])) == found
    except OSError:  # no socket to be had, no way there: not somebody to trust
        return True
