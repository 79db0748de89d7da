"""What a host's configuration will lead to: facts in, findings out. Rules only, no I/O.

A rule is a function from `Facts` to findings, named in `RULES`; to add one, write it and name it there.
"""

import enum
import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from . import pipeline
from .model import Host

SHORT_SECRET = 32  # characters
CLOCK_SKEW_SECONDS = 5.0


class Severity(enum.StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # something does not work, or will break
    WARNING = "warning"  # works, with a consequence that the operator should have chosen
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that will bite: which, why, and what to do."""

    severity: Severity
    what: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Store:
    """One enabled store; in a single-store cloud the name is the kind."""

    name: str
    kind: str
    weight: int = 0


@dataclass(frozen=True)
class Facts:
    """What is known of one host. None: not known, or not asked because something before it failed."""

    host_name: str = ""
    host_url: str | None = None
    host_url_resolves: bool | None = None
    stores: tuple[Store, ...] = ()
    pipeline: tuple[str, ...] | None = None  # roles, outermost first
    pipeline_problem: str | None = None
    delayed_delete: bool = False
    show_multiple_locations: bool = False
    image_location_quota: int = 10
    charges_locations: bool = False  # user_storage_quota or unified limits
    secret_lengths: tuple[int, ...] = ()  # of the signing keys, characters
    trusted_networks: bool = False
    cache_dir: str | None = None
    cache_dir_problem: str | None = None
    disk_bytes: int | None = None
    free_bytes: int | None = None
    max_bytes: int = 0
    min_free_bytes: int = 0
    dialect: str = ""  # of Glance's database
    encrypts_locations: bool = False
    catalogue_problem: str | None = None
    ledger_problem: str | None = None
    ledger_is_current: bool | None = None
    clock_skew_seconds: float | None = None  # this host minus the database
    hosts: tuple[Host, ...] = ()
    policy_problems: tuple[str, ...] = ()  # why one of `policies` cannot decide


Findings = Iterator[Finding]
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


def findings(facts: Facts) -> list[Finding]:
    """Every finding of every rule, errors first."""
    found = [one for rule in RULES for one in rule(facts)]
    return sorted(found, key=lambda one: list(Severity).index(one.severity))


def is_clean(found: Iterable[Finding]) -> bool:
    """Whether nothing worse than information was found."""
    return all(one.severity is Severity.INFO for one in found)


def _http_store(facts: Facts) -> Findings:
    http = [one for one in facts.stores if one.kind == "http"]
    if not http:
        yield Finding(
            ERROR,
            "no store of type http is enabled",
            "Glance cannot delete an image that has an http location without one, so that no cached copy is registered",
            "add an http store: enabled_backends = ..., web:http (or, in a single-store cloud, stores = ..., http)",
        )
    heaviest = max((one.weight for one in http), default=None)
    others = [one.weight for one in facts.stores if one.kind != "http"]
    if heaviest is None or not others or heaviest < min(others):
        return
    wins = heaviest > min(others)
    yield Finding(
        WARNING if wins else INFO,
        f"http store {http[0].name} weighs {'more than' if wins else 'as much as'} a durable store",
        "locations are sorted by weight; an http location in front becomes direct_url, and Nova and Cinder cannot "
        "clone from it" + ("" if wins else ", which happens here once a durable copy is written anew"),
        f"keep weight = 0 in [{http[0].name}] and set weight = 1 for every durable store",
    )


def _deletion(facts: Facts) -> Findings:
    if facts.delayed_delete and any(one.kind == "http" for one in facts.stores):
        yield Finding(
            WARNING,
            "delayed_delete is on",
            "the scrubber cannot delete http locations: an image deleted through a host without our cache filter stays "
            "in pending_delete for ever",
            "run the cache filter on every host, or set delayed_delete = False",
        )


def _quotas(facts: Facts) -> Findings:
    needed = len({host.name for host in facts.hosts} | {facts.host_name}) + 1
    if 0 <= facts.image_location_quota < needed:
        yield Finding(
            WARNING,
            f"image_location_quota = {facts.image_location_quota}, and an image may come to {needed} locations",
            "with a copy on every host, adding a location through the API is refused (413)",
            f"set image_location_quota to {needed + 10} or more, or -1",
        )
    if facts.charges_locations:
        yield Finding(
            WARNING,
            "a storage quota is on (user_storage_quota or use_keystone_limits)",
            "Glance charges the owner size x number of locations, cached copies included",
            "leave room in the quotas for a copy on every host, or set user_storage_quota = 0",
        )


def _exposure(facts: Facts) -> Findings:
    if facts.show_multiple_locations:
        yield Finding(
            WARNING,
            "show_multiple_locations is on",
            "everyone who sees an image sees every URL of it, credentials included (OSSN-0065, OSSN-0090)",
            "set show_multiple_locations = False; the replicas call needs it no more",
        )


def _readers(facts: Facts) -> Findings:
    if not facts.secret_lengths and not facts.trusted_networks:
        yield Finding(
            ERROR,
            "neither signing_keys nor trusted_networks is set",
            "nobody may read the cached copies of this host: every request gets 403",
            "on every host, the same line: [replicas] signing_keys = k1:$(openssl rand -hex 32)",
        )
    for number, length in enumerate(facts.secret_lengths, 1):
        if length < SHORT_SECRET:
            yield Finding(
                WARNING,
                f"signing_keys: the secret of entry {number} has {length} characters",
                "who guesses it reads every cached image",
                f"use {SHORT_SECRET} characters or more: openssl rand -hex 32",
            )


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


def _cache_dir(facts: Facts) -> Findings:
    if facts.cache_dir_problem:
        why, remedy = "nothing is cached on this host", "create it, or mount it, owned by the user that runs Glance"
        yield Finding(ERROR, f"image_cache_dir {facts.cache_dir or ''}: {facts.cache_dir_problem}", why, remedy)
    if facts.disk_bytes is not None and facts.max_bytes + facts.min_free_bytes > facts.disk_bytes:
        yield Finding(
            WARNING,
            f"max_bytes + min_free_bytes is more than the {facts.disk_bytes} bytes of the disk",
            "min_free_bytes, not max_bytes, will be what limits the cache",
            "set [replicas] max_bytes below the size of the file system",
        )
    if facts.free_bytes is not None and facts.free_bytes < facts.min_free_bytes:
        yield Finding(
            WARNING,
            f"{facts.free_bytes} bytes are free where min_free_bytes keeps {facts.min_free_bytes}",
            "nothing is cached until there is room; cached files are evicted first",
            "free some space beside the cache, or give the cache a file system of its own",
        )


def _pipeline(facts: Facts) -> Findings:
    if facts.pipeline is None:
        why, remedy = "the order of the filters could not be checked", "name it in [paste_deploy] config_file"
        yield Finding(WARNING, f"paste file: {facts.pipeline_problem or 'not found'}", why, remedy)
        return
    for what, why in pipeline.faults(facts.pipeline):
        yield Finding(ERROR, what, why, f"pipeline: {pipeline.WANTED}")


def _databases(facts: Facts) -> Findings:
    if facts.catalogue_problem:
        why, remedy = "copies are neither registered nor withdrawn", "check [database] connection and the server"
        yield Finding(ERROR, f"Glance's database: {facts.catalogue_problem}", why, remedy)
    elif facts.ledger_problem:
        why, remedy = "no verdict and no heartbeat is recorded; prune refuses to act", "check [replicas] connection"
        yield Finding(ERROR, f"the ledger: {facts.ledger_problem}", why, remedy)
    elif facts.ledger_is_current is False:
        why = "no verdict and no heartbeat is recorded; prune refuses to act"
        yield Finding(ERROR, "the tables of the ledger are missing or old", why, "replica db upgrade")
    if facts.dialect == "sqlite" and len(facts.hosts) > 1:
        why = "SQLite on a shared disk loses or locks the catalogue"
        remedy = "move Glance to PostgreSQL or MariaDB"
        yield Finding(ERROR, f"{len(facts.hosts)} hosts, and Glance's database is SQLite", why, remedy)
    if facts.encrypts_locations:
        why = "a host with another key, or none, can neither read nor write locations"
        remedy = "use the same metadata_encryption_key on every host"
        yield Finding(INFO, "metadata_encryption_key is set", why, remedy)


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


def _policies(facts: Facts) -> Findings:
    for problem in facts.policy_problems:
        why = "it asks for no copies ahead of need; what was asked for before stays"
        yield Finding(ERROR, problem, why, "correct it; replica rules shows what it wants then")


RULES: tuple[Callable[[Facts], Findings], ...] = (
    _http_store,
    _deletion,
    _quotas,
    _exposure,
    _readers,
    _address,
    _cache_dir,
    _pipeline,
    _databases,
    _clock,
    _names,
    _policies,
)
