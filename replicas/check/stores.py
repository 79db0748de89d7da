"""The stores of a host: what Glance needs to bear http locations, and what their number costs."""

from ..stores.kinds import REMEDY
from .facts import Facts
from .finding import ERROR, INFO, WARNING, Finding, Findings


def _http_store(facts: Facts) -> Findings:
    http = [store for store in facts.stores if store.kind == "http"]
    if not http:
        yield Finding(
            ERROR,
            "no store of type http is enabled",
            "Glance cannot delete an image that has an http location without one, so that no cached copy is registered",
            "add an http store: enabled_backends = ..., web:http (or, in a single-store cloud, stores = ..., http)",
        )
    heaviest = max((store.weight for store in http), default=None)
    others = [store.weight for store in facts.stores if store.kind != "http"]
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
    if facts.delayed_delete and any(store.kind == "http" for store in facts.stores):
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


def _store_ids(facts: Facts) -> Findings:
    own = [store.name for store in facts.stores if store.kind == "http"]
    found = {host: f"registrations of host {host} name the store {store}" for host, store in facts.other_store_ids}
    for host, store in facts.other_http_stores:
        if store not in own:
            found.setdefault(host, f"host {host} calls its http store {store}")
    names = dict((*facts.other_http_stores, *facts.other_store_ids))
    for host, what in found.items() if own else ():
        yield Finding(
            ERROR,
            f"{what}, and the http store is called {own[0]} here",
            "Glance writes the id of the host that answers into every http location, at each GET of the image: the two "
            "undo each other's for ever, and each time the whole list of locations is saved",
            f"give the http store one id on all hosts in enabled_backends: {names[host]}, or {own[0]}",
        )


def _unshared(facts: Facts) -> Findings:
    for store, absent, looked in facts.absent_files:
        yield Finding(
            ERROR,
            f"{absent} of the {looked} newest files of store {store} are not in its folder on this host",
            "a file store's folder must be the same on all hosts: what another host wrote cannot be downloaded here, "
            "and counts as missing for the programs that run here",
            "mount the same folder on every host; then run: replica verify --all --store " + store,
        )


def _kinds(facts: Facts) -> Findings:
    for problem in facts.kind_problems:
        why = "glance-api does not start with it; replica verify, repair, prune and audit end with this error"
        yield Finding(ERROR, problem.removesuffix(f"; {REMEDY}"), why, REMEDY)


RULES = (_kinds, _http_store, _deletion, _quotas, _store_ids, _unshared)
