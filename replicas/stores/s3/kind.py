"""S3 stores as a kind."""

from collections.abc import Iterator, Sequence

from ...model import Image
from ..contract import Configuration, Kind, Store
from ..drivers import loading
from .listing import Listing
from .reader import Reader
from .writer import Writer


class S3(Kind):
    """Objects in the bucket of each store's options."""

    schemes = Reader.schemes
    cost = 3

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
        """In the store's bucket."""
        driver = loading.ready_to_write(config.conf, store)
        names = {"scheme": driver.scheme, "bucket": driver.bucket, "key": image.id, "s3serviceurl": driver.full_s3_host}
        names |= {"accesskey": driver.access_key, "secretkey": driver.secret_key}
        made = driver.get_store_location_class()
        more = {} if store.id is None else {"backend_group": store.id}
        return str(made(store_specs=names, conf=config.conf, **more).get_uri())
