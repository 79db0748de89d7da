"""Swift stores as a kind."""

from collections.abc import Iterator, Sequence

from ...errors import Unsupported
from ...model import Image
from ..contract import Configuration, Kind, Store
from ..drivers import loading
from .listing import Listing
from .reader import Reader
from .writer import Writer


class Swift(Kind):
    """Objects in the account of each store's options."""

    schemes = Reader.schemes
    cost = 2

    def readers(self, stores: Sequence[Store], config: Configuration) -> Iterator[Reader]:
        """One for each store."""
        return (Reader(config.conf, store.id, config.limits) for store in stores)

    def writers(self, stores: Sequence[Store], config: Configuration) -> Iterator[Writer]:
        """One for each store."""
        return (Writer(config.conf, store.id, config.limits) for store in stores)

    def listings(self, stores: Sequence[Store], config: Configuration) -> Iterator[Listing]:
        """One for each store."""
        return (Listing(config.conf, store.id, config.limits) for store in stores)

    def url(self, store: Store, image: Image, config: Configuration) -> str:
        """In the store's container, or in the one that Glance would choose by the id."""
        from glance_store._drivers.swift import utils

        driver = loading.ready_to_write(config.conf, store)
        if getattr(driver, "multi_tenant", False) or driver.store_conf.swift_store_multi_tenant:
            what = "images of a multi-tenant Swift lie in their owners' accounts, not ours"
            raise Unsupported(f"store {store.id}: {what}")
        several = utils.is_multiple_swift_store_accounts_enabled(config.conf, backend=store.id)
        return str(driver.create_location(image.id).get_uri(credentials_included=not several))
