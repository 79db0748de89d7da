"""Every kind of store there is: ours, and those of other distributions; loaded when a store of it is enabled.

The name is the one that `enabled_backends` (or `stores` in a single-store cloud) has for it, which is that of
glance_store's driver. One of ours is a line here; any other an entry point of `glance_replicas.stores`. To find those
takes a tenth of a second, so they are looked for only when a store is enabled whose kind is none of ours.
"""

import functools
import importlib.metadata
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint
from typing import TypeVar

from ..errors import ConfigError, ReplicaError
from ..location import scheme
from .contract import Configuration, Kind, Listing, Reader, Store, Writer

GROUP = "glance_replicas.stores"
HTTP = "http"
REMEDY = (
    "install what it needs (pip check); or uninstall it, and Glance's own driver reads these stores; or take them out "
    "of enabled_backends"
)
_OURS = {
    HTTP: "http.kind:Http",
    "file": "file.kind:File",
    "swift": "swift.kind:Swift",
    "s3": "s3.kind:S3",
    "rbd": "drivers.rbd:Rbd",
    "cinder": "drivers.cinder:Cinder",
    "vmware": "drivers.vmware:Vmware",
    "glance.store.rbd.Store": "drivers.rbd:Rbd",  # glance_store's older names of two drivers
    "glance.store.cinder.Store": "drivers.cinder:Cinder",
}

_LEAVES_ALL = Kind()
_theirs: dict[str, Kind] = {}  # those of other distributions that were loaded

T = TypeVar("T")


def readers(config: Configuration) -> list[Reader]:
    """Of all enabled stores."""
    return _made(config, lambda kind, stores: kind.readers(stores, config))


def writers(config: Configuration) -> list[Writer]:
    """Of all enabled stores."""
    return _made(config, lambda kind, stores: kind.writers(stores, config))


def listings(config: Configuration) -> list[Listing]:
    """Of all enabled stores."""
    return _made(config, lambda kind, stores: kind.listings(stores, config))


@functools.cache
def load(name: str) -> Kind:
    """The kind of this name; where nobody registered one, a kind that leaves all to glance_store's driver.

    Raises ConfigError for one that is registered and cannot be loaded.
    """
    entry = _registered(name)
    if entry is None:
        return _LEAVES_ALL
    try:
        kind = entry.load()()
    except Exception as error:  # somebody else's code
        raise _broken(entry, f"cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(kind, Kind):
        raise _broken(entry, f"is no {Kind.__module__}.{Kind.__name__}")
    if name not in _OURS:
        _theirs[name] = kind
    return kind


def of(url: str) -> Kind:
    """The kind of a URL by its scheme: one of ours, or one of another distribution of which a store was enabled."""
    wanted = scheme(url)
    names = sorted(_OURS, key=lambda name: not wanted.startswith(name))  # most schemes begin with it: the rest can wait
    for kind in itertools.chain(map(load, names), list(_theirs.values())):
        if wanted in kind.schemes:
            return kind
    return _LEAVES_ALL


def _made(config: Configuration, make: Callable[[Kind, Sequence[Store]], Iterable[T]]) -> list[T]:
    """What each kind makes of its stores. Raises ConfigError where one fails."""
    found: list[T] = []
    for name, stores in _by_kind(config):
        kind = load(name)
        try:
            found += make(kind, stores)
        except ReplicaError:
            raise
        except Exception as error:
            entry = _registered(name)
            if entry is None or entry.dist is None:
                raise
            raise _broken(entry, f"failed: {type(error).__name__}: {error}") from error
    return found


def _by_kind(config: Configuration) -> Iterator[tuple[str, Sequence[Store]]]:
    """The kinds that are enabled, ours first; and http, as Glance reads such URLs whether a store names it or not."""
    enabled = [store.kind for store in config.stores]
    for name in dict.fromkeys([*(ours for ours in _OURS if ours == HTTP or ours in enabled), *enabled]):
        yield name, [store for store in config.stores if store.kind == name]


def _registered(name: str) -> EntryPoint | None:
    if name in _OURS:
        return EntryPoint(name, f"{__package__}.{_OURS[name]}", GROUP)
    found = list(importlib.metadata.entry_points(group=GROUP, name=name))
    if len(found) > 1:
        several = ", ".join(sorted(map(_shown, found)))
        raise ConfigError(f"store kind {name}: several have this name: {several}; uninstall all but one")
    return found[0] if found else None


def _broken(entry: EntryPoint, problem: str) -> ConfigError:
    return ConfigError(f"store kind {entry.name}: {_shown(entry)} {problem}; {REMEDY}")


def _shown(entry: EntryPoint) -> str:
    owner = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
    return f"entry point {GROUP}: {entry.name} = {entry.value}{owner}"
