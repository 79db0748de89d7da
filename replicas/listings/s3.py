"""The bucket of an S3 store, page by page."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from oslo_config import cfg

from ..consistency import Entry
from ..errors import SourceError, Unreachable, Unsupported
from ..location import scheme
from ..model import STORE_KEY, Location
from ..sources import Limits
from ..sources.s3 import Reader, S3Store


class Listing:
    """The objects of the bucket that the store's options name, as BUCKET/KEY."""

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits, page: int = 1000) -> None:
        self.place, self._store, self._limit = f"store:{store or 's3'}", store, page
        self._s3 = S3Store(conf, store, limits)
        self.parts = (f"{self._s3.bucket}/",)

    def name_of(self, one: Location) -> str | None:
        """Its bucket and key, where the URL is of this server and bucket."""
        if one.store not in (None, self._store) or scheme(one.url) not in Reader.schemes:
            return None
        try:
            key = self._s3.locate(one.url)
        except SourceError:
            return None
        return f"{key.bucket}/{key.key}" if key.here and key.bucket == self._s3.bucket else None

    def location_of(self, entry: Entry) -> Location:
        """As Glance would write its URL, but for the keys."""
        server = str(self._s3.options.s3_store_host).partition("://")[2].rstrip("/")
        metadata = {STORE_KEY: self._store} if self._store else {}
        return Location(entry.image_id or "", f"s3://{server}/{entry.name}", metadata)

    def entries(self) -> Iterator[Entry]:
        """Every object of the bucket. Any page that does not come ends it: Unreachable."""
        if not self._s3.bucket:
            raise Unsupported(f"{self.place}: s3_store_bucket is not set")
        token: dict[str, str] = {}
        while True:
            page = self._page(token)
            for one in page.get("Contents", ()):
                yield Entry(f"{self._s3.bucket}/{one['Key']}", int(one["Size"]), one["LastModified"])
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": str(page.get("NextContinuationToken"))}
            if after == token or not page.get("NextContinuationToken"):
                raise Unreachable(f"{self.place}: a listing that does not go on")
            token = after

    def remove(self, entry: Entry) -> bool:
        """The object is gone, unless it was written again since it was listed."""
        names = {"Bucket": self._s3.bucket, "Key": entry.name.partition("/")[2]}
        client = self._s3.client()
        try:
            facts = client.head_object(**names)
            if facts["ContentLength"] != entry.size or not _is_same(facts["LastModified"], entry.modified):
                return False
            client.delete_object(**names)
        except Exception as error:  # boto3 raises what its parts raise
            if "404" in str(getattr(error, "response", {}).get("ResponseMetadata", "")):
                return False
            raise Unreachable(f"{self.place}: {entry.name}: {type(error).__name__}") from error
        return True

    def _page(self, token: dict[str, str]) -> Any:
        try:
            return self._s3.client().list_objects_v2(Bucket=self._s3.bucket, MaxKeys=self._limit, **token)
        except SourceError:
            raise
        except Exception as error:  # boto3 raises what its parts raise
            raise Unreachable(f"{self.place}: {type(error).__name__}") from error


def _is_same(one: datetime, other: datetime | None) -> bool:
    """A HEAD gives whole seconds, rounded either way."""
    return other is not None and abs((one - other).total_seconds()) < 2
