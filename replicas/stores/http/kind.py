"""Plain http(s) locations as a kind: read, whatever store they name, and never written or listed."""

from collections.abc import Iterator, Sequence

from ..contract import Configuration, Kind, Store
from . import options
from .reader import Reader


class Http(Kind):
    """Images that were registered by their URL."""

    schemes = Reader.schemes
    cost = 3
    is_web = True  # a proxy, or a login page with status 200

    def readers(self, stores: Sequence[Store], config: Configuration) -> Iterator[Reader]:
        """One, without a store of this kind, too."""
        yield Reader(config.limits, options.tls(config.conf))
