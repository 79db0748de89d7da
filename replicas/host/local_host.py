"""One host put together from its settings: its directory, Glance's catalogue, the ledger, and what works on them.

Only who starts something puts a host together: the filters' process, the janitor, a program. Each hands on what its
parts need, and nothing more.
"""

from dataclasses import dataclass
from functools import partial
from typing import Self

from ..cache import Cache
from ..cache.eviction import Eviction
from ..cache.statistics import Statistics
from ..catalogue.images import Catalogue
from ..database.several_writers import RIVALS, Rivals
from ..errors import ConfigError
from ..ledger.cached_copies import BestEffortCopies, CachedCopies
from ..ledger.host_registry import HostRegistry, is_alive
from ..ledger.ledger import Ledger
from ..ledger.pins import Pins
from ..ledger.usage import Usage
from ..removal.keeping import Keeping
from ..removal.orders import RemovalOrders
from ..settings import Settings
from ..transfer.fill_limits import FillLimits
from ..transfer.source_selection import SourceSelection
from .fill_setup import FillSetup
from .full_reads import FullReads
from .own_copies import OwnCopies
from .pin_sync import PinSync
from .registration import Registration
from .standing import Standing
from .usage_count import UsageCount


@dataclass(frozen=True)
class LocalHost:
    """The parts of this host; each is thread-safe."""

    settings: Settings
    cache: Cache
    catalogue: Catalogue
    ledger: Ledger
    copies: CachedCopies
    host_registry: HostRegistry
    standing: Standing
    registration: Registration
    removals: RemovalOrders
    keeping: Keeping
    own_copies: OwnCopies
    pins: Pins
    pin_sync: PinSync
    full_reads: FullReads
    usage: Usage
    statistics: Statistics
    usage_count: UsageCount
    source_selection: SourceSelection
    eviction: Eviction
    fill_limits: FillLimits
    fill_setup: FillSetup

    @classmethod
    def assemble(cls, settings: Settings, rivals: Rivals = RIVALS) -> Self:
        """Nothing is opened or asked yet. Raises ConfigError when this host has no directory."""
        if settings.cache_dir is None:
            raise ConfigError("image_cache_dir is not set: nothing can be cached on this host")
        cache = Cache(settings.cache_dir)
        ledger = Ledger(settings.ledger, rivals)
        registry, copies = HostRegistry(settings, ledger), CachedCopies(ledger.database)
        index = BestEffortCopies(copies, registry.ask_soon)
        catalogue = Catalogue(settings.database, settings.encryption_key, index, rivals)
        standing = Standing(settings, cache, registry, partial(is_alive, settings=settings))
        registration = Registration(
            settings=settings, cache=cache, catalogue=catalogue, ledger=ledger, hosts=registry, standing=standing
        )
        removals, pins = RemovalOrders(catalogue, ledger, settings), Pins(ledger.database)
        keeping = Keeping(catalogue, ledger, registry, cache)
        pin_sync = PinSync(settings, cache, pins, catalogue, registry)
        full_reads = FullReads(settings.host_name, registry, ledger, registration, pin_sync)
        usage, statistics = Usage(ledger.database), Statistics()
        source_selection = SourceSelection(settings, registry, ledger, catalogue)
        eviction = _eviction(settings, cache, registration, source_selection, keeping)
        own_copies = OwnCopies(settings, cache, registration, ledger, removals)
        usage_count = UsageCount(settings.host_name, cache, statistics, registry, usage)
        fill_limits = FillLimits(cache, settings.max_client_fills, settings.max_client_fills_per_project)
        fill_setup = FillSetup(
            settings=settings,
            source_selection=source_selection,
            eviction=eviction,
            statistics=statistics,
            full_reads=full_reads,
        )
        return cls(
            settings=settings, cache=cache, catalogue=catalogue, ledger=ledger, copies=copies, host_registry=registry,
            standing=standing, registration=registration, removals=removals, keeping=keeping, own_copies=own_copies,
            pins=pins, pin_sync=pin_sync, full_reads=full_reads, usage=usage, statistics=statistics,
            usage_count=usage_count, source_selection=source_selection, eviction=eviction, fill_limits=fill_limits,
            fill_setup=fill_setup,
        )  # fmt: skip

    def close(self) -> None:
        """No connection to a database is open; what asks again opens one."""
        self.catalogue.close()
        self.ledger.close()


def _eviction(
    settings: Settings, cache: Cache, registration: Registration, source_selection: SourceSelection, keeping: Keeping
) -> Eviction:
    return Eviction(
        cache,
        settings.max_bytes,
        settings.min_free_bytes,
        withdraw=registration.withdraw,
        withdraw_soon=registration.withdraw_soon,
        high_percent=settings.high_watermark_percent,
        low_percent=settings.low_watermark_percent,
        elsewhere=source_selection.held_elsewhere,
        kept=keeping.kept,
        kept_now=keeping.kept_now,
    )
