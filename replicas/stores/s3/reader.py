"""Reader of S3 URLs, with the options that Glance itself would use.

glance_store parses the URLs and boto3 signs them; the bytes come over `wire`, so that they keep the same limits as any
other, and with a Range, which glance_store's driver cannot do. boto3 is loaded with the first location.
"""

import base64
import binascii
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from oslo_config import cfg

from ...errors import Absent, SourceError, Unreachable, Unsupported, WrongAnswer
from ...location import redact
from ...model import Digest, Stored
from ..body import Body, Limits
from ..configured import group_options
from ..http.answers import Target, length_of
from ..http.wire import Wire
from ..identity import ObjectIdentity, server

_SECONDS = 300  # for which a signed URL opens a request, not for which its body may last
_ATTEMPTS = 3  # of a request that boto3 sends itself
_MD5 = re.compile(r"[0-9a-f]{32}")
_CHECKSUMS = {"sha256": 32, "sha1": 20}  # those of S3 that Glance may have as well, and their bytes
_AMAZON = re.compile(r"(?:.+\.)?s3[.-](?:.+\.)?amazonaws\.com(\.cn)?")
_MARKS = ("x-amz-request-id",)  # in every answer of S3


@dataclass(frozen=True)
class Key:
    """One object: its bucket and key, and the name it has in errors and logs."""

    bucket: str
    key: str
    shown: str
    here: bool  # whether the URL names the server of the store's options, which is asked in any case


class S3Store:
    """One S3 store as glance-api.conf describes it (`store` is its id; None in a single-store cloud).

    As with glance_store's driver, server and credentials are those of the options, whatever a URL says.
    """

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits) -> None:
        from glance_store._drivers import s3 as driver

        self._conf, self.store, self._limits = conf, store, limits
        options = group_options(conf, store, driver.Store.OPTIONS)
        self.options = SimpleNamespace(
            **{option.dest: getattr(options, option.dest) for option in driver.Store.OPTIONS}
        )
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def bucket(self) -> str | None:
        """Where Glance puts new images."""
        return self.options.s3_store_bucket or None

    def client(self) -> Any:
        """A boto3 client within our limits, for all threads. Raises Unsupported when there is nothing to make it of."""
        with self._lock:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def locate(self, url: str) -> Key:
        """The object behind a location's URL. Raises Unsupported for a URL that is none of S3."""
        from glance_store import exceptions
        from glance_store._drivers import s3 as driver

        shown = redact(url)
        parsed = driver.StoreLocation({}, self._conf, backend_group=self.store)
        try:
            parsed.parse_uri(url)
        except (exceptions.GlanceStoreException, ValueError) as error:
            raise Unsupported(f"{shown}: no S3 URL") from error
        if not (parsed.bucket and parsed.key):
            raise Unsupported(f"{shown}: an S3 URL without bucket or key")
        named = parsed.s3serviceurl.rpartition("@")[2]
        return Key(parsed.bucket, parsed.key, shown, named == _bare(self.options.s3_store_host or ""))

    def owns(self, url: str) -> bool:
        """Whether the URL is of this server and bucket, as one is that Glance writes for this store."""
        try:
            key = self.locate(url)
        except Unsupported:
            return False
        return key.here and key.bucket == self.bucket

    def identify(self, url: str) -> ObjectIdentity:
        """The object on the server that is asked for it, whichever the URL names. Raises Unsupported."""
        key, options = self.locate(url), self.options
        return identity_of(options.s3_store_host or "", options.s3_store_access_key or "", key.bucket, key.key)

    def _new_client(self) -> Any:
        options = self.options
        if not (options.s3_store_host and options.s3_store_access_key and options.s3_store_secret_key):
            text = "needs s3_store_host, s3_store_access_key and s3_store_secret_key"
            raise Unsupported(f"S3 store {self.store or ''}: {text} in glance-api.conf")
        try:
            from boto3 import session
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise Unsupported("S3: boto3 is not installed here (pip install 'glance-replicas[s3]')") from error
        keys = {
            "aws_access_key_id": options.s3_store_access_key,
            "aws_secret_access_key": options.s3_store_secret_key,
        }
        try:
            return session.Session(**keys).client("s3", **self._arguments())
        except (BotoCoreError, ValueError) as error:  # a server or region that is none; boto3's text shows no secret
            raise Unsupported(f"S3 store {self.store or ''}: {error}") from error

    def _arguments(self) -> dict[str, Any]:
        """As glance_store's `Store._create_s3_client`, with limits and signatures of version 4."""
        from botocore.client import Config
        from glance_store._drivers import s3 as driver

        options = self.options
        region = options.s3_store_region_name or driver.get_s3_location(options.s3_store_host) or None
        amazon = region and not options.s3_store_region_name  # by the name of the server, which boto3 then knows
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": options.s3_store_bucket_url_format},
            connect_timeout=self._limits.connect,
            read_timeout=self._limits.stall,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return {
            "endpoint_url": None if amazon else options.s3_store_host,
            "region_name": region,
            "use_ssl": options.s3_store_host.startswith("https://"),
            "verify": options.s3_store_cacert or None,
            "config": config,
        }


class Reader:
    """Reads the objects of one S3 store.

    An object is Absent only when S3 answers for its bucket, and the URL names the server that was asked.
    """

    schemes = ("s3", "s3+http", "s3+https")

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits) -> None:
        self.store = store
        self._s3 = S3Store(conf, store, limits)
        self._wire = Wire(limits, ca_file=self._s3.options.s3_store_cacert or None)

    def size(self, url: str) -> int | None:
        """The length HEAD states, in bytes."""
        headers, target = self._head(self._s3.locate(url))
        return length_of(headers, target)

    def open(self, url: str, offset: int = 0, stop: int | None = None) -> Body:
        """The bytes from `offset` on, by Range."""
        key = self._s3.locate(url)
        try:
            return self._wire.open(self._target("get_object", key), offset, stop)
        except Absent as error:
            self._must_have_bucket(key, error)
            raise
        except WrongAnswer:
            if offset and self.size(url) == offset:  # a 416 of S3 does not say how long the object is
                return Body(iter(()), offset, lambda: None)
            raise

    def stored(self, url: str) -> Stored:
        """The ETag of an object that was written in one part, and its checksum if it was written with one."""
        headers, target = self._head(self._s3.locate(url))
        found = digests(headers)
        basis = (
            "the checksum in S3, nothing was read" if found else "S3 keeps no digest of the whole (parts, encrypted)"
        )
        return Stored(length_of(headers, target), found, basis)

    def owns(self, url: str) -> bool:
        """As `S3Store.owns`."""
        return self._s3.owns(url)

    def identify(self, url: str) -> ObjectIdentity:
        """As `S3Store.identify`."""
        return self._s3.identify(url)

    def _head(self, key: Key) -> tuple[Mapping[str, str], Target]:
        target = self._target("head_object", key, ChecksumMode="ENABLED")
        try:
            return self._wire.head(target), target
        except Absent as error:
            self._must_have_bucket(key, error)
            raise

    def _must_have_bucket(self, key: Key, error: Absent) -> None:
        """Raises Unreachable unless S3 says that the bucket is there, and is the S3 that the location means."""
        try:
            self._wire.head(self._target("head_bucket", key))
        except SourceError as broken:
            raise Unreachable(f"{key.shown}: its bucket does not answer either") from broken
        if not key.here:
            server = redact(self._s3.options.s3_store_host)
            raise Unreachable(
                f"{key.shown}: not in the store's own server, {server}, and the URL names another"
            ) from error

    def _target(self, operation: str, key: Key, **more: str) -> Target:
        """A signed URL. What is signed as a header has to be sent."""
        names = {"Bucket": key.bucket} | ({} if operation == "head_bucket" else {"Key": key.key})
        try:
            with warnings.catch_warnings(action="ignore"):  # of the library, about itself
                url = self._s3.client().generate_presigned_url(operation, {**names, **more}, ExpiresIn=_SECONDS)
        except Unsupported:
            raise
        except Exception as error:  # whatever boto3 makes of names that are none
            raise Unsupported(f"{key.shown}: {type(error).__name__}, not a name that can be asked for") from error
        headers = {"x-amz-checksum-mode": more["ChecksumMode"]} if more else {}
        return Target(url, key.shown, headers, _MARKS)


def digests(headers: Mapping[str, str]) -> tuple[Digest, ...]:
    """Digests of the whole object that these headers of S3 state; none where they are of its parts, or of a cipher."""
    found = []
    if headers.get("x-amz-checksum-type", "FULL_OBJECT").upper() == "FULL_OBJECT":
        for name, length in _CHECKSUMS.items():
            try:
                value = base64.b64decode(headers.get(f"x-amz-checksum-{name}", ""), validate=True)
            except binascii.Error:
                continue
            if len(value) == length:
                found.append(Digest(name, value.hex()))
    etag = headers.get("ETag", "").strip('"').lower()
    cipher = headers.get("x-amz-server-side-encryption", "AES256")
    is_plain = cipher == "AES256" and "x-amz-server-side-encryption-customer-algorithm" not in headers
    if _MD5.fullmatch(etag) and is_plain:
        found.append(Digest("md5", etag))
    return tuple(found)


def identity_of(address: str, access_key: str, bucket: str, name: str) -> ObjectIdentity:
    """An object of S3. All servers of Amazon know one set of buckets; elsewhere two users may have two of one name."""
    host = server(address)
    amazon = _AMAZON.fullmatch(host)
    key = "s3", f"amazon{amazon.group(1) or ''}" if amazon else host, bucket, name
    return ObjectIdentity(key, frozenset({"amazon" if amazon else access_key}))


def _bare(server: str) -> str:
    """A server as glance_store writes it into a location."""
    return server.removeprefix("https://").removeprefix("http://").strip("/")
