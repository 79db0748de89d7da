"""The order of the filters in a paste file: which are there, and what is wrong with it."""

import configparser
from collections.abc import Iterator, Sequence

from .facts import Facts
from .finding import ERROR, WARNING, Finding, Findings

SERVER, API, CACHE = "replica-server", "replica-api", "replica-cache"
STOCK_CACHE, STOCK_MANAGE, CONTEXT, PROXY, AUTH = "cache", "cachemanage", "context", "http_proxy_to_wsgi", "authtoken"
WANTED = "cors replica-server http_proxy_to_wsgi versionnegotiation authtoken context replica-api replica-cache rootapp"

# What a section may say in its `use` or `paste.filter_factory` -> what the filter is, whatever its section is called.
_ROLES = {
    "glance-replicas#server": SERVER,
    "glance-replicas#api": API,
    "glance-replicas#cache": CACHE,
    "glance_replicas.middleware.server:": SERVER,
    "glance_replicas.middleware.api:": API,
    "glance_replicas.middleware.cache:": CACHE,
    "glance.api.middleware.cache:": STOCK_CACHE,
    "glance.api.middleware.cache_manage:": STOCK_MANAGE,
    "glance.api.middleware.context:": CONTEXT,
    "HTTPProxyToWSGI": PROXY,
    "keystonemiddleware.auth_token": AUTH,
}
# Filters that leave bodies alone, beside those above; by the names that Glance's own paste file gives them, and others.
_HARMLESS = frozenset(
    (
        *("cors", "versionnegotiation", "osprofiler", "unauthenticated-context", "healthcheck"),
        *("request_id", "catch_errors", "sizelimit", "audit"),
    )
)
_LOSSES = {
    CACHE: "nothing is cached on this host",
    SERVER: "the cached copies of this host are not served",
    API: "replica URLs are not signed, and the replicas call is not answered, on this host",
}
_STOCK = "two caches would share one directory"
_IDLE = "it caches nothing beside replica-cache, and takes the length from every download that passes through it"
_ORDER = (
    (SERVER, PROXY, "trusted_networks would believe an address that the client wrote in a header"),
    (SERVER, AUTH, "signed URLs carry no token: every read of a cached copy would get 401"),
    (CONTEXT, API, "nobody is known before the context filter: every call is refused"),
    (CONTEXT, CACHE, "nobody is known before the context filter: every call is refused"),
    (API, CACHE, "the replicas call belongs before the cache"),
)


def roles(text: str, flavor: str | None) -> tuple[str, ...]:
    """The filters that Glance runs with this flavor, outermost first; unknown ones by the name of their section.

    Reads both forms Glance has had: one composite with a key for each flavor, and a section for each pipeline.
    Raises ValueError with one line when the text is no paste file or has no such flavor.
    """
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # flavors are case-sensitive
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return tuple(_role(parser, name) for name in _pipeline(parser, flavor).split())


def strange(found: Sequence[str]) -> list[str]:
    """Filters that may change bodies for all that is known of them."""
    return [name for name in found if name not in _HARMLESS and name not in _ROLES.values()]


def faults(found: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with this order, and what comes of it."""
    for role, loss in _LOSSES.items():
        if role not in found:
            yield f"filter {role} is not in the pipeline", loss
    if STOCK_CACHE in found:
        yield f"Glance's own filter {STOCK_CACHE} is still in the pipeline", _IDLE if CACHE in found else _STOCK
    if STOCK_MANAGE in found and CACHE not in found:
        yield f"Glance's own filter {STOCK_MANAGE} is still in the pipeline", _STOCK
    for first, second, why in _ORDER:
        if first in found and second in found and found.index(first) > found.index(second):
            yield f"filter {first} comes after {second}", why


def _pipeline(parser: configparser.ConfigParser, flavor: str | None) -> str:
    for name in parser.sections():
        if parser.get(name, "paste.composite_factory", fallback="").endswith(":pipeline_factory"):
            found = parser.get(name, flavor or "default", fallback=None)
            if found is not None:
                return found
    section = "pipeline:glance-api" + (f"-{flavor}" if flavor else "")
    found = parser.get(section, "pipeline", fallback=None)
    if found is None:
        raise ValueError(f"no pipeline for flavor {flavor or 'default'}")
    return found


def _role(parser: configparser.ConfigParser, name: str) -> str:
    section = f"filter:{name}"
    said = " ".join(parser.get(section, key, fallback="") for key in ("use", "paste.filter_factory"))
    return next((role for words, role in _ROLES.items() if words in said), name)


def _order_of_filters(facts: Facts) -> Findings:
    if facts.pipeline is None:
        why, remedy = "the order of the filters could not be checked", "name it in [paste_deploy] config_file"
        yield Finding(WARNING, f"paste file: {facts.pipeline_problem or 'not found'}", why, remedy)
        return
    for what, why in faults(facts.pipeline):
        yield Finding(ERROR, what, why, f"pipeline: {WANTED}")


RULES = (_order_of_filters,)
