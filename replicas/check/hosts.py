"""A host among the others: its URL, its name and its clock."""

import ipaddress
from urllib.parse import urlsplit

from .facts import Facts
from .finding import ERROR, WARNING, Finding, Findings

CLOCK_SKEW_SECONDS = 5.0


def _address(facts: Facts) -> Findings:
    remedy = "set [replicas] host_url = http://ADDRESS:PORT, an address of this very host that the others reach"
    if facts.host_url is None:
        yield Finding(
            ERROR,
            "neither host_url nor worker_self_reference_url is set",
            "a cached copy cannot be registered without the URL of its host",
            remedy,
        )
        return
    name = urlsplit(facts.host_url).hostname or ""
    address = _ip(name)
    if name == "localhost" or (address is not None and (address.is_loopback or address.is_unspecified)):
        yield Finding(ERROR, f"host_url {facts.host_url} is a loopback address", "no other host reaches it", remedy)
    elif address is None and "." not in name:
        why = "Glance looks names up with a trailing dot, so that a short name is never found"
        yield Finding(ERROR, f"host_url {facts.host_url} holds a short name", why, remedy)
    elif facts.host_url_resolves is False:
        yield Finding(
            ERROR, f"the name in host_url {facts.host_url} is not known to the DNS", "nobody finds it", remedy
        )


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _clock(facts: Facts) -> Findings:
    skew = facts.clock_skew_seconds
    if skew is not None and abs(skew) > CLOCK_SKEW_SECONDS:
        ahead = "ahead of" if skew > 0 else "behind"
        why = "signed URLs expire early or late, and the ages in reports are wrong"
        yield Finding(WARNING, f"this host is {abs(skew):.0f} s {ahead} the database", why, "run chrony on both")


def _names(facts: Facts) -> Findings:
    for host in facts.hosts:
        if host.name == facts.host_name and facts.host_url and host.url.rstrip("/") != facts.host_url.rstrip("/"):
            yield Finding(
                ERROR,
                f"host_name {host.name} is in the ledger with {host.url}, and host_url here is {facts.host_url}",
                "two hosts of one name withdraw each other's registrations; or this host has moved",
                "give each host a host_name of its own; after a move this goes away with the next heartbeat",
            )


def _shared(facts: Facts) -> Findings:
    if facts.directory_owner is not None:
        yield Finding(
            ERROR,
            f"image_cache_dir {facts.cache_dir or ''} is that of host {facts.directory_owner}",
            "two hosts in one directory remove files under each other's registrations; this one registers none",
            "give each host a directory of its own, on a disk of its own; one that is no longer used is free after "
            "three heartbeats of silence",
        )
    if facts.url_owner is not None:
        yield Finding(
            ERROR,
            f"host_url {facts.host_url} is that of host {facts.url_owner}, which lives",
            "whoever reads a copy of one host may be sent to the other; this one registers none",
            "set [replicas] host_url to an address of this very machine, never of a load balancer",
        )


RULES = (_address, _clock, _names, _shared)
