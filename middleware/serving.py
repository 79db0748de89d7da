"""What it takes to answer with an image's bytes, shared by the filters that do."""

from dataclasses import dataclass
from typing import Self

from glance_replicas.cache import Cache
from glance_replicas.cache.statistics import Statistics
from glance_replicas.host.fill_setup import FillSetup
from glance_replicas.host.full_reads import FullReads
from glance_replicas.host.local_host import LocalHost
from glance_replicas.host.own_copies import OwnCopies
from glance_replicas.host.usage_count import UsageCount
from glance_replicas.settings import Settings


@dataclass(frozen=True)
class Serving:
    """Of one host; each part is thread-safe."""

    settings: Settings
    cache: Cache
    own_copies: OwnCopies
    fill_setup: FillSetup
    full_reads: FullReads
    statistics: Statistics
    usage_count: UsageCount

    @classmethod
    def of(cls, host: LocalHost) -> Self:
        """Those of this host."""
        return cls(
            host.settings,
            host.cache,
            host.own_copies,
            host.fill_setup,
            host.full_reads,
            host.statistics,
            host.usage_count,
        )
