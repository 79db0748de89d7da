"""Writes S3 objects anew, in place, with the options that Glance itself would use.

An object is one PUT, or one upload of many parts, which S3 takes when it is completed; until then it keeps the old one.
A kill leaves that, and perhaps an upload that was never completed: the next repair of the object ends it.
"""

import base64
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from oslo_config import cfg

from ...errors import Unwritable
from ..body import Limits
from ..contract import Original
from ..http.answers import Target
from ..http.wire import Wire
from ..pieces import Cutter, anew, gate
from .reader import Key, Reader, S3Store

_MIB = 1 << 20
_SECONDS = 300  # for which a signed URL opens a request, not for which its body may last
_PARTS = 10_000  # of one upload, at most


class Writer:
    """Writes the objects of one S3 store."""

    schemes = Reader.schemes

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits) -> None:
        self.store = store
        self._s3 = S3Store(conf, store, limits)
        options = self._s3.options
        # A block has to be sent within the time of a connection (urllib3).
        self._wire = Wire(replace(limits, connect=limits.stall), ca_file=options.s3_store_cacert or None)
        self._largest = options.s3_store_large_object_size * _MIB
        self._step = options.s3_store_large_object_chunk_size * _MIB

    def rewrite(self, url: str, original: Original, ready: Callable[[], None]) -> "_Written":
        """As `contract.Writer.rewrite`."""
        key = self._s3.locate(url)
        if not key.here:
            raise Unwritable(f"{key.shown}: the URL names another server than the store's options")
        if original.size < self._largest:
            self._put(key, original, ready)
        else:
            with _errors(key):
                self._upload(key, original, ready)
        return _Written(self._s3, key)

    def owns(self, url: str) -> bool:
        """As `S3Store.owns`."""
        return self._s3.owns(url)

    def _put(self, key: Key, original: Original, ready: Callable[[], None]) -> None:
        md5 = {"Content-MD5": base64.b64encode(bytes.fromhex(original.md5)).decode()} if original.md5 else {}
        self._wire.put(self._target("put_object", key), gate(original.whole(), ready), original.size, md5)

    def _target(self, operation: str, key: Key, **more: object) -> Target:
        """A signed URL."""
        names = {"Bucket": key.bucket, "Key": key.key, **more}
        return Target(self._s3.client().generate_presigned_url(operation, names, ExpiresIn=_SECONDS), key.shown)

    def _upload(self, key: Key, original: Original, ready: Callable[[], None]) -> None:
        client, names = self._s3.client(), {"Bucket": key.bucket, "Key": key.key}
        for left in client.list_multipart_uploads(Bucket=key.bucket, Prefix=key.key).get("Uploads", ()):
            if left["Key"] == key.key:
                client.abort_multipart_upload(**names, UploadId=left["UploadId"])
        upload = client.create_multipart_upload(**names)["UploadId"]
        try:
            parts = list(self._parts(key, upload, original))
            ready()
            client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(Exception):  # the fault itself says more
                client.abort_multipart_upload(**names, UploadId=upload)
            raise

    def _parts(self, key: Key, upload: str, original: Original) -> Iterator[dict[str, Any]]:
        """Each part is there; its number and ETag."""
        cutter, step = Cutter(original.whole()), max(self._step, -(-original.size // _PARTS))
        for number, piece in enumerate(anew("", original.size, step), 1):
            target = self._target("upload_part", key, UploadId=upload, PartNumber=number)
            headers = self._wire.put(target, cutter.take(piece.size), piece.size, {})
            yield {"PartNumber": number, "ETag": headers.get("ETag", "")}


@dataclass(frozen=True)
class _Written:
    s3: S3Store
    key: Key

    def keep(self) -> None:
        """S3 has kept nothing of the damaged object."""

    def remove(self) -> None:
        """The object is gone."""
        with _errors(self.key):
            self.s3.client().delete_object(Bucket=self.key.bucket, Key=self.key.key)


@contextlib.contextmanager
def _errors(key: Key) -> Iterator[None]:
    """What boto3 raises is Unwritable; its own words may hold more than the name of the error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        raise Unwritable(f"{key.shown}: S3 answered {code}") from error
    except BotoCoreError as error:
        raise Unwritable(f"{key.shown}: {type(error).__name__}") from error
