"""Copies ahead of need: what the policies wish for on this host becomes requests to itself (`prefetch_requests`).

Nobody coordinates: every host asks for its own share. What is there stays there, whatever the policies wish for;
eviction alone removes it.
"""

import itertools
import logging
import os
import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from stevedore.driver import DriverManager

from ..cache import Cache
from ..cache.eviction import Eviction
from ..catalogue.images import Catalogue
from ..errors import ReplicaError
from ..ledger.host_registry import is_alive
from ..ledger.ledger import Ledger
from ..ledger.pins import Pins
from ..ledger.prefetch_requests import PrefetchRequest, PrefetchRequests
from ..ledger.usage import Usage
from ..model import IMAGE_ACTIVE, Image, Pass, is_image_id
from ..settings import Settings
from .policy import GROUP, Described, Policy, PolicyFactory, Priority, Wish, World

log = logging.getLogger(__name__)

EVERY_SECONDS = 300.0  # unless the rules file changed
AGAIN_SECONDS = 3600.0  # what failed, was cancelled, or came and was evicted, is not asked for again sooner
_BATCH = 500  # images in memory
_DELETED = 100  # so many more of the popular images are looked at, for some may be deleted by now


class PrefetchPlanner:
    """One host's; called by one thread."""

    def __init__(
        self, settings: Settings, cache: Cache, eviction: Eviction, catalogue: Catalogue, ledger: Ledger
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._eviction = eviction
        self._catalogue = catalogue
        self._ledger = ledger
        self._copies = PrefetchRequests(ledger.database)
        self._pins = Pins(ledger.database)
        self._due = 0.0  # by the monotonic clock
        self._seen: object = None  # of the rules file, the last time
        self._policies: dict[str, Policy] = {}

    def run(self, done: Pass) -> None:
        """What the policies wish for, fits, and is not here is asked for; every few minutes.

        Raises LedgerError, CatalogueError or CacheError: not all was asked for, and the next pass begins anew.
        """
        seen = _state_of(self._settings.rules_file)
        if self._settings.can_register and (seen != self._seen or time.monotonic() >= self._due):
            here = {entry.image_id for entry in self._cache.complete.entries()}
            fitting = self._fitting(self._merged(done), here, done)
            self._pin(fitting)
            self._ask(wish for wish in fitting if wish.image_id not in here)
            self._due, self._seen = time.monotonic() + EVERY_SECONDS, seen

    def _merged(self, done: Pass) -> dict[str, Wish]:
        """The wishes of all policies, one for each image: the highest priority, pinned if one of them says so."""
        known = world(self._settings, self._catalogue, self._ledger)
        merged: dict[str, Wish] = {}
        for name in self._settings.policies:
            for wish in self._wishes(name, known, done):
                other = merged.get(wish.image_id, wish)
                first = other if other.priority >= wish.priority else wish
                merged[wish.image_id] = replace(first, pin=other.pin or wish.pin)
        return merged

    def _wishes(self, name: str, known: World, done: Pass) -> Sequence[Wish]:
        """All that one policy wishes for; nothing when it breaks, whatever it had wished for by then."""
        try:
            if name not in self._policies:
                self._policies[name] = load(name, self._settings)
            return list(_sound(self._policies[name].wishes(known), name, done))
        except Exception as error:  # somebody else's code
            problem = f"stocking: policy {name}: {error or type(error).__name__}"
            log.warning("janitor: %s", problem, exc_info=not isinstance(error, ReplicaError))
            done.problems.append(problem)
            return []

    def _fitting(self, wishes: Mapping[str, Wish], here: Container[str], done: Pass) -> list[Wish]:
        """Of the wishes those that fit below the low watermark all together.

        The highest priority first, of the same what is here already: so no copy is asked for that would drive out
        another one that is wished for as much.
        """
        sizes = self._sizes(wishes)
        left, fitting = self._capacity(), []
        for wish in sorted(
            wishes.values(), key=lambda wish: (-wish.priority, wish.image_id not in here, wish.image_id)
        ):
            if sizes.get(wish.image_id, left + 1) <= left:
                left -= sizes[wish.image_id]
                fitting.append(wish)
        if len(fitting) < len(sizes):
            beyond = sum(sizes.values()) - sum(sizes[wish.image_id] for wish in fitting)
            done.problems.append(
                f"stocking: {len(sizes) - len(fitting)} copies that are wished for ({beyond} bytes) do not fit below "
                "the low watermark: raise max_bytes, or wish for less"
            )
        return fitting

    def _sizes(self, image_ids: Collection[str]) -> dict[str, int]:
        """Bytes of those images that this host may hold at all."""
        limits = [limit for limit in (self._settings.max_bytes, self._settings.max_image_bytes) if limit]
        found = filter(_is_verifiable, self._catalogue.images(image_ids, statuses=(IMAGE_ACTIVE,)))
        return {image.id: image.size for image in found if image.size and all(image.size <= most for most in limits)}

    def _capacity(self) -> int:
        """Bytes that may be wished for: the low watermark of `max_bytes`, or of what the file system has for us."""
        disk = self._eviction.used() + self._eviction.free() - self._settings.min_free_bytes
        quota = self._settings.max_bytes * self._settings.low_watermark_percent // 100
        return min(quota, disk) if quota else disk

    def _pin(self, wishes: Iterable[Wish]) -> None:
        """Those that are to be pinned are, before the copy is there; it stays so when no policy wishes it any more."""
        here = self._settings.host_name
        pinned = self._pins.of_host(here)
        for wish in wishes:
            if wish.pin and wish.image_id not in pinned:
                self._pins.add([wish.image_id], [here], wish.why)

    def _ask(self, wanted: Iterable[Wish]) -> None:
        """Each has a request that is open, or had one that ended a short time ago."""
        here = self._settings.host_name
        known = {request.image_id: request for request in self._copies.list(hosts=[here])}
        kinds: dict[tuple[str, int, bool], list[str]] = {}
        for wish in wanted:
            if not _is_asked(wish, known.get(wish.image_id)):
                kinds.setdefault((wish.why, wish.priority, wish.pin), []).append(wish.image_id)
        for (why, priority, pin), image_ids in kinds.items():
            new = self._copies.request(image_ids, [here], who=why, priority=priority, pin=pin)
            log.info("host %s: %d copies asked for by %s", here, new, why)


def load(name: str, settings: Settings) -> Policy:
    """The policy of this name. Raises whatever is wrong with it."""
    factory: PolicyFactory = DriverManager(GROUP, name, on_load_failure_callback=_raise).driver
    return factory(settings)


def world(settings: Settings, catalogue: Catalogue, ledger: Ledger) -> World:
    """What policies are told. Raises LedgerError: without it a host would take itself for the only one."""
    return World(
        here=settings.host_name,
        hosts=[host for host in ledger.hosts() if is_alive(host, settings)],
        images=partial(_described, catalogue),
        popular=partial(_popular, catalogue, Usage(ledger.database)),
    )


def _described(catalogue: Catalogue) -> Iterator[Described]:
    images = filter(_is_verifiable, catalogue.images(statuses=(IMAGE_ACTIVE,), batch=_BATCH))
    while batch := list(itertools.islice(images, _BATCH)):
        ids = [image.id for image in batch]
        tags, properties = catalogue.tags(ids), catalogue.properties(ids)
        for image in batch:
            yield Described(image, tags.get(image.id, frozenset()), properties.get(image.id, {}))


def _popular(catalogue: Catalogue, uses: Usage, days: int, most: int) -> list[tuple[str, int]]:
    """Of images that are active."""
    found = uses.popular(days, most + _DELETED)
    statuses = catalogue.statuses([image_id for image_id, _ in found])
    return [item for item in found if statuses.get(item[0]) == IMAGE_ACTIVE][:most]


def _is_asked(wish: Wish, last: PrefetchRequest | None) -> bool:
    """Whether the last request for this copy stands, or ended so lately that there is no use in another."""
    if last is None or last.ended_seconds is not None:
        return last is not None and last.ended_seconds is not None and last.ended_seconds < AGAIN_SECONDS
    return last.priority >= wish.priority and last.pin >= wish.pin


def _is_verifiable(image: Image) -> bool:
    return image.digest is not None and bool(image.size)


def _state_of(path: str | None) -> object:
    """What changes with a file; None: there is none."""
    try:
        facts = os.stat(path or "")
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _sound(wishes: Iterable[Wish], policy: str, done: Pass) -> Iterator[Wish]:
    """Those that are wishes for an image; the first of the others is named, and costs no other its copy."""
    odd = 0
    for wish in wishes:
        if isinstance(wish, Wish) and is_image_id(wish.image_id) and isinstance(wish.priority, Priority):
            yield wish
            continue
        odd += 1
        if odd == 1:
            log.warning("janitor: stocking: policy %s: %r is no request for an image, and is ignored", policy, wish)
    if odd:
        done.problems.append(f"stocking: policy {policy}: {odd} of its answers are no requests for an image")


def _raise(_manager: object, _entry: object, error: BaseException) -> None:
    raise error
