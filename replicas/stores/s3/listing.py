"""The bucket of an S3 store, page by page: its objects, and the uploads of parts that were never completed."""

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

from oslo_config import cfg

from ...errors import Denied, SourceError, Unreachable, Unsupported
from ...location import scheme
from ...model import STORE_KEY, Location
from ..body import Limits
from ..contract import Listed
from .reader import Reader, S3Store

_UPLOAD = "?uploadId="
_SPARE = "an upload that was never completed, of which S3 keeps the parts"
_ERRORS = {401: Denied, 403: Denied, 405: Unsupported, 501: Unsupported}

log = logging.getLogger(__name__)


class Listing:
    """The bucket that the store's options name: objects as BUCKET/KEY, uploads as BUCKET/KEY?uploadId=ID."""

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits, page: int = 1000) -> None:
        self.place, self._store, self._limit = f"store:{store or 's3'}", store, page
        self._s3 = S3Store(conf, store, limits)
        self.parts = (f"{self._s3.bucket}/",)

    def name_of(self, location: Location) -> str | None:
        """Its bucket and key, where the URL is of this server and bucket."""
        if scheme(location.url) not in Reader.schemes:
            return None
        try:
            key = self._s3.locate(location.url)
        except SourceError:
            return None
        return f"{key.bucket}/{key.key}" if key.here and key.bucket == self._s3.bucket else None

    def location_of(self, entry: Listed) -> Location:
        """As Glance would write its URL, but for the keys."""
        server = str(self._s3.options.s3_store_host).partition("://")[2].rstrip("/")
        metadata = {STORE_KEY: self._store} if self._store else {}
        return Location(entry.image_id or "", f"s3://{server}/{entry.name}", metadata)

    def entries(self) -> Iterator[Listed]:
        """Every object of the bucket, and every upload. Any page that does not come ends it: Unreachable."""
        if not self._s3.bucket:
            raise Unsupported(f"{self.place}: s3_store_bucket is not set")
        for page in self._pages("list_objects_v2", "MaxKeys", ContinuationToken="NextContinuationToken"):
            for item in page.get("Contents", ()):
                yield Listed(f"{self._s3.bucket}/{item['Key']}", int(item["Size"]), item["LastModified"])
        yield from self._uploads()

    def _uploads(self) -> Iterator[Listed]:
        """A server that does not tell of uploads, or not to us, has none: nothing is judged by their absence."""
        after = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        try:
            for page in self._pages("list_multipart_uploads", "MaxUploads", **after):
                for upload in page.get("Uploads", ()):
                    name = f"{self._s3.bucket}/{upload['Key']}{_UPLOAD}{quote(upload['UploadId'], safe='')}"
                    yield Listed(name, None, upload["Initiated"], _SPARE)
        except (Denied, Unsupported) as error:
            log.warning("%s; uploads that were never completed are not listed", error)

    def remove(self, entry: Listed) -> bool:
        """The object is gone, unless it was written again since it was listed; or the upload and its parts are."""
        names = {"Bucket": str(self._s3.bucket), "Key": entry.name.partition("/")[2]}
        if entry.spare:
            names["Key"], _, upload = names["Key"].rpartition(_UPLOAD)
            names["UploadId"] = unquote(upload)
        try:
            return self._end(names) if entry.spare else self._delete(names, entry)
        except Exception as error:  # boto3 raises what its parts raise
            if _status(error) == 404:
                return False
            raise Unreachable(f"{self.place}: {entry.name}: {type(error).__name__}") from error

    def _end(self, upload: dict[str, str]) -> bool:
        self._s3.client().abort_multipart_upload(**upload)
        return True

    def _delete(self, names: dict[str, str], entry: Listed) -> bool:
        client = self._s3.client()
        facts = client.head_object(**names)
        if facts["ContentLength"] != entry.size or not _is_same(facts["LastModified"], entry.modified):
            return False
        client.delete_object(**names)
        return True

    def _pages(self, operation: str, limit: str, **marks: str) -> Iterator[Any]:
        """Every page of a listing; `marks`: arguments that the next one begins with, and their names in a page."""
        begin: dict[str, str] = {}
        while True:
            page = self._ask(operation, {limit: self._limit, **begin})
            yield page
            if not page.get("IsTruncated"):
                return
            after = {name: str(page[given]) for name, given in marks.items() if page.get(given)}
            if not after or after == begin:
                raise Unreachable(f"{self.place}: the listing stops before its end")
            begin = after

    def _ask(self, operation: str, arguments: dict[str, Any]) -> Any:
        client = self._s3.client()
        try:
            return getattr(client, operation)(Bucket=self._s3.bucket, **arguments)
        except Exception as error:  # boto3 raises what its parts raise
            kind = _ERRORS.get(_status(error), Unreachable)
            raise kind(f"{self.place}: {operation}: {type(error).__name__}") from error


def _status(error: Exception) -> int:
    """Of the answer, where there was one."""
    return int(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_same(one: datetime, other: datetime | None) -> bool:
    """A HEAD gives whole seconds, rounded either way."""
    return other is not None and abs((one - other).total_seconds()) < 2
