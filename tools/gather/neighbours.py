"""Gathers for `replica check` what of this host is another's as well: directory, URL, names of stores, files."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from oslo_config import cfg

from glance_replicas.cache import Cache
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.check import Facts
from glance_replicas.errors import CacheError, CatalogueError, LedgerError, ReplicaError
from glance_replicas.host import mark, server_note, store_names, user
from glance_replicas.host.mark import Mark
from glance_replicas.host.standing import rival
from glance_replicas.ledger.host_registry import is_alive, silent_after_seconds
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import Settings
from glance_replicas.stores import configured
from glance_replicas.stores.file.options import file_roots
from glance_replicas.stores.file.reader import below
from glance_replicas.verdict import Verdict
from glance_replicas.verify.store_loss import Losses

_ROWS = 100  # of each host that are looked at
_NEWEST = 1000  # rows of all stores and hosts in which files of this host's stores are looked for


def shared(facts: Facts, settings: Settings, conf: cfg.ConfigOpts) -> dict[str, Any]:
    """The facts that these are; what could not be asked is none, and is said elsewhere."""
    own = Mark(settings.host_name, settings.host_url, mark.machine())
    there = _mark(settings)
    if there is not None and there.is_of(own):
        own, there = replace(own, before=there.names_before(own)), None
    other = rival(own, facts.hosts, partial(is_alive, settings=settings)) if own.url else None
    return {
        "directory_owner": there.host if there and there.age_seconds < silent_after_seconds(settings) else None,
        "url_owner": other.name if other else None,
        **_directory(settings),
        "other_store_ids": tuple(sorted(set(_store_ids(facts, settings)))),
        "other_http_stores": tuple(_http_stores(facts, settings)),
        "absent_files": tuple(_absent_files(settings, conf)),
    }


def _directory(settings: Settings) -> dict[str, Any]:
    """Files that are another user's or could not be read; and what the server that uses it has written down there."""
    try:
        cache = Cache(settings.cache_dir) if settings.cache_dir else None
        if cache is None:
            return {}
        faulty = ((entry.image_id, entry.fault) for entry in cache.complete.entries() if entry.fault)
        return {
            "closed_files": tuple(user.closed(cache)),
            "cache_user": cache.user().name,
            "withheld_files": tuple(sorted(faulty)),
            "server_endings": server_note.read(cache),
        }
    except CacheError:
        return {}


def _mark(settings: Settings) -> Mark | None:
    try:
        return mark.read(Cache(settings.cache_dir)) if settings.cache_dir else None
    except CacheError:
        return None


def _store_ids(facts: Facts, settings: Settings) -> Iterator[tuple[str, str]]:
    """Hosts, and ids in their registrations that are no store's here: Glance writes its own over it at each GET."""
    if not settings.multi_store:
        return
    known = {store.name for store in facts.stores}
    catalogue = Catalogue(settings.database, settings.encryption_key)
    try:
        for host in facts.hosts:
            for row in itertools.islice(catalogue.of_host(host.name), _ROWS):
                if row.store is not None and row.store not in known:
                    yield host.name, row.store
    except CatalogueError:
        return
    finally:
        catalogue.close()


def _http_stores(facts: Facts, settings: Settings) -> Iterator[tuple[str, str]]:
    """Other living hosts, and what each calls its http store; none where the ledger does not know."""
    ledger = Ledger(settings.ledger)
    try:
        names = store_names.told(ledger.database) if facts.hosts and settings.multi_store else {}
    except LedgerError:
        return
    finally:
        ledger.close()
    for host in facts.hosts:
        if host.name in names and host.name != settings.host_name and is_alive(host, settings):
            yield host.name, names[host.name]


def _absent_files(settings: Settings, conf: cfg.ConfigOpts) -> Iterator[tuple[str, int, int]]:
    """File stores of which half of the newest files are not in the folder here: another host wrote them elsewhere.

    The rows are what hosts that share a folder agree on; a mark in it would say no more, and nothing of old folders.
    """
    named = [
        (root, store.id or store.kind)
        for store in configured.stores(conf)
        if store.kind == "file"
        for root in file_roots(conf, store.id)
    ]
    catalogue, losses = Catalogue(settings.database, settings.encryption_key), Losses()
    try:
        for row in catalogue.newest(_NEWEST) if named else ():
            for root, store in named:
                if row.url.startswith("file:") and (there := _is_there(root, row.url)) is not None:
                    losses.add(store, Verdict.INTACT if there else Verdict.MISSING)
    except CatalogueError:
        return
    finally:
        catalogue.close()
    for store in sorted(losses.at_fault()):
        yield store, losses.missing[store], losses.seen[store]


def _is_there(root: Path, url: str) -> bool | None:
    """Whether a file of this folder is in it; None: it is of another, or may not be looked for."""
    try:
        folder, steps = below([root], url)
        os.lstat(folder.joinpath(*steps))
    except FileNotFoundError:
        return False
    except (ReplicaError, OSError):
        return None
    return True
