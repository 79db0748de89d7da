"""Reader of Swift URLs, with the credentials that Glance itself would use.

glance_store parses the URLs and the options; the bytes come over `wire`, so that they keep the same limits as any
other, and with a Range, which glance_store's driver cannot do. Large objects (DLO, SLO) are put together by Swift.
"""

import configparser
import threading
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from oslo_config import cfg

from ...errors import Absent, Denied, SourceError, Unsupported
from ...location import redact
from ...model import Stored
from ..body import Body, Limits
from ..configured import group_options
from ..http.answers import Target
from ..http.wire import Wire
from ..identity import ObjectIdentity, server
from . import segments
from .account import Account, Credentials, Endpoint, account_of

T = TypeVar("T")

_PARSING = threading.Lock()  # glance_store reads the files of all stores, at every URL, into one parser for all threads


@dataclass(frozen=True)
class _Object:
    account: Account
    path: str  # of the container, quoted
    name: str  # quoted
    shown: str

    def enter(self, refused: Endpoint | None = None) -> Endpoint:
        """The account's URL and token, newer than a `refused` one. Errors name the object."""
        try:
            return self.account.renew(refused) if refused else self.account.endpoint()
        except SourceError as error:
            raise type(error)(f"{self.shown}: {error}") from error

    def target(self, endpoint: Endpoint, path: str | None = None) -> Target:
        """The object, or another quoted path of its account."""
        url = f"{endpoint.url}/{path or f'{self.path}/{self.name}'}"
        return Target(url, self.shown, {"X-Auth-Token": endpoint.token}, ("ETag", "X-Trans-Id"))


class Reader:
    """Reads the objects of one Swift store (`store` is its id; None in a single-store cloud).

    An object is Absent only when Swift answers for its container: a container or an account that is not there looks
    like a wrong address and is Unreachable. A store with `swift_store_multi_tenant` needs the caller's token, which a
    location does not hold: Unsupported.
    """

    schemes = ("swift", "swift+http", "swift+https", "swift+config")

    def __init__(self, conf: cfg.ConfigOpts, store: str | None, limits: Limits) -> None:
        from glance_store._drivers import swift as driver

        self._conf, self.store, self._limits = conf, store, limits
        self._options = group_options(conf, store, driver.Store.OPTIONS)
        insecure, ca_file = self._options.swift_store_auth_insecure, self._options.swift_store_cacert
        self.wire = Wire(limits, ca_file=None if insecure else ca_file, insecure=insecure)
        self._accounts: dict[Credentials, Account] = {}
        self._lock = threading.Lock()

    def size(self, url: str) -> int | None:
        """The length HEAD states, in bytes: for a large object that of all its segments."""
        return self.ask(url, lambda target, _: self.wire.size(target))

    def open(self, url: str, offset: int = 0, stop: int | None = None) -> Body:
        """The bytes from `offset` on, by Range."""
        return self.ask(url, lambda target, _: self.wire.open(target, offset, stop))

    def stored(self, url: str) -> Stored:
        """The ETag of a plain object; of a large one its segments, each asked for."""
        return self.ask(url, lambda target, beside: segments.stored(self.wire, target, beside))

    def path(self, url: str) -> str:
        """The container and the name of a URL's object: CONTAINER/NAME. Raises Unsupported."""
        location, _ = self._parse(url, redact(url))
        return f"{location.container}/{location.obj}"

    def owns(self, url: str) -> bool:
        """Whether user, Keystone and container are those of the store's options: as Glance writes URLs for it."""
        own = self._options
        try:
            location, wanted = self._parse(url, redact(url))
            mine = self._references().get(own.default_swift_reference, {})
        except (Unsupported, configparser.Error):
            return False
        several = bool(own.swift_store_multiple_containers_seed)
        beginning = f"{own.swift_store_container}_"
        is_ours = location.container == own.swift_store_container or (
            several and location.container.startswith(beginning)
        )
        is_mine = (wanted.user, wanted.application_id) == (mine.get("user"), mine.get("application_credential_id"))
        return is_ours and is_mine and _bare(wanted.auth_url) == _bare(mine.get("auth_address", ""))

    def identify(self, url: str) -> ObjectIdentity:
        """The object in its account as Keystone says which that is, whoever asks. Raises Denied, Unreachable."""
        location, credentials = self._parse(url, redact(url))
        endpoint = self._object(url).enter()
        owner = account_of(endpoint.url, endpoint.project)
        marks: set[Hashable] = {server(endpoint.url)}
        marks |= {("region", server(credentials.auth_url))} if endpoint.region else set()
        return ObjectIdentity(("swift", endpoint.region, owner, location.container, location.obj), frozenset(marks))

    def ask(self, url: str, do: Callable[[Target, segments.Beside], T]) -> T:
        """What `do` answers, given the object and what names others of its account; twice if its token is refused."""
        wanted = self._object(url)
        endpoint = wanted.enter()
        try:
            try:
                return do(wanted.target(endpoint), partial(wanted.target, endpoint))
            except Denied:  # perhaps only the token, which lives for hours
                endpoint = wanted.enter(endpoint)
                return do(wanted.target(endpoint), partial(wanted.target, endpoint))
        except Absent:
            segments.must_be_swift(self.wire, wanted.target(endpoint, wanted.path))
            raise

    def _object(self, url: str) -> _Object:
        shown = redact(url)
        location, credentials = self._parse(url, shown)
        with self._lock:
            account = self._accounts.get(credentials)
            if account is None:
                account = self._accounts[credentials] = Account(credentials, self._limits)
        return _Object(account, quote(location.container), quote(location.obj), shown)

    def _parse(self, url: str, shown: str) -> tuple[Any, Credentials]:
        from glance_store import exceptions
        from glance_store._drivers.swift import store as driver

        location = driver.StoreLocation({}, self._conf, backend_group=self.store)
        try:
            with _PARSING, warnings.catch_warnings(action="ignore"):  # a deprecated option of the file it reads
                location.parse_uri(url)
            references = self._references()
        except (exceptions.GlanceStoreException, ValueError, configparser.Error) as error:
            raise Unsupported(f"{shown}: neither the URL nor the store's options say how to read it") from error
        if not (location.user or getattr(location, "application_credential_id", None)):
            raise Unsupported(f"{shown}: a URL without credentials (swift_store_multi_tenant) is the caller's to read")
        named = urlsplit(url).netloc if location.scheme == "swift+config" else self._options.default_swift_reference
        return location, self._credentials(location, references.get(named, {}))

    def _references(self) -> dict[str, dict[str, Any]]:
        """The accounts that the store's options know, by name. Raises as glance_store does."""
        from glance_store._drivers.swift import utils

        with _PARSING, warnings.catch_warnings(action="ignore"):  # as above
            return dict(utils.SwiftParams(self._conf, backend=self.store).params)

    def _credentials(self, location: Any, reference: dict[str, Any]) -> Credentials:
        options = self._options
        return Credentials(
            auth_url=location.swift_url,
            user=location.user,
            key=location.key,
            application_id=getattr(location, "application_credential_id", None),
            application_secret=getattr(location, "application_credential_secret", None),
            user_domain_id=reference.get("user_domain_id", None if reference else "default"),
            user_domain_name=reference.get("user_domain_name"),
            project_domain_id=reference.get("project_domain_id", None if reference else "default"),
            project_domain_name=reference.get("project_domain_name"),
            region=options.swift_store_region,
            service_type=options.swift_store_service_type,
            interface=options.swift_store_endpoint_type,
            endpoint=options.swift_store_endpoint,
            ca_file=options.swift_store_cacert,
            insecure=options.swift_store_auth_insecure,
        )


def _bare(address: str) -> str:
    """Keystone's address without its scheme, as glance_store writes it into a location."""
    return address.removeprefix("https://").removeprefix("http://").strip("/")
