"""A Swift account: where it is, and a token for it from Keystone.

Version 3 only: glance_store 5.7 takes no other `swift_store_auth_version`.
"""

import re
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from keystoneauth1 import exceptions as keystone
from keystoneauth1 import identity, session

from ...errors import Denied, SourceError, Unreachable
from ..body import Limits
from ..identity import server


@dataclass(frozen=True)
class Credentials:
    """Who asks whom, as a Swift location and its store's options say."""

    auth_url: str
    user: str | None = None  # PROJECT:USER
    key: str | None = field(default=None, repr=False)
    application_id: str | None = None
    application_secret: str | None = field(default=None, repr=False)
    user_domain_id: str | None = None
    user_domain_name: str | None = None
    project_domain_id: str | None = None
    project_domain_name: str | None = None
    region: str | None = None
    service_type: str = "object-store"
    interface: str = "publicURL"
    endpoint: str | None = None  # instead of the one that the authorisation names
    ca_file: str | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Endpoint:
    """The account's URL and a token that was good when it was given."""

    url: str
    token: str = field(repr=False)
    project: str | None = None  # its id
    region: str | None = None  # by the catalogue; None: the address is one that the catalogue does not know


class Account:
    """One account. The token is shared by all threads and asked for once; `renew` after Swift has refused it."""

    def __init__(self, credentials: Credentials, limits: Limits) -> None:
        self._credentials = credentials
        verify = False if credentials.insecure else credentials.ca_file or True
        self._session = session.Session(auth=_plugin(credentials), verify=verify, timeout=limits.stall)
        self._lock = threading.Lock()
        self._endpoint: Endpoint | None = None

    def endpoint(self) -> Endpoint:
        """Where and with what. Raises Denied, or Unreachable for every other trouble with Keystone."""
        with self._lock:
            if self._endpoint is None:
                try:
                    self._endpoint = self._ask()
                except keystone.ClientException as error:
                    raise _failure(getattr(error, "http_status", None)) from error
            return self._endpoint

    def renew(self, refused: Endpoint) -> Endpoint:
        """A newer one than `refused`; many threads that were refused together ask once."""
        with self._lock:
            if self._endpoint is refused:
                self._endpoint = None
        return self.endpoint()

    def _ask(self) -> Endpoint:
        self._session.invalidate()
        wanted = self._credentials
        token = self._session.get_token()
        url = wanted.endpoint or self._session.get_endpoint(
            service_type=wanted.service_type, interface=wanted.interface, region_name=wanted.region
        )
        if not url or not token:
            raise Unreachable("Keystone names no object store (region, service type, endpoint type?)")
        return Endpoint(url.rstrip("/"), token, self._session.get_project_id(), self._region(url))

    def _region(self, url: str) -> str | None:
        """Where the catalogue has the server of `url`, under whatever interface."""
        auth: Any = self._session.auth
        catalog = auth.get_access(self._session).service_catalog.normalize_catalog()
        known = [endpoint for service in catalog for endpoint in service["endpoints"] if endpoint["url"]]
        wanted = self._credentials.region
        fitting = [endpoint["region_name"] for endpoint in known if server(endpoint["url"]) == server(url)]
        return wanted if wanted in fitting else next(iter(fitting), None)


def _plugin(credentials: Credentials) -> identity.BaseIdentityPlugin:
    """As glance_store's `SingleTenantStore.init_client`, but an address without a version is completed with /v3."""
    address = credentials.auth_url.rstrip("/")
    address = address if address.endswith("/v3") else f"{address}/v3"
    if credentials.application_id:
        return identity.V3ApplicationCredential(
            auth_url=address,
            application_credential_id=credentials.application_id,
            application_credential_secret=credentials.application_secret or "",
        )
    project, _, user = (credentials.user or "").partition(":")
    return identity.V3Password(
        auth_url=address,
        username=user,
        password=credentials.key or "",
        project_name=project,
        user_domain_id=credentials.user_domain_id,
        user_domain_name=credentials.user_domain_name,
        project_domain_id=credentials.project_domain_id,
        project_domain_name=credentials.project_domain_name,
    )


def _failure(status: int | None) -> SourceError:
    """Only a refusal is Denied: a 404 of Keystone says nothing of any object."""
    if status in (401, 403):
        return Denied("Keystone refused user and key")
    return Unreachable(f"Keystone answered {status}" if status else "Keystone did not answer")


def account_of(url: str, project: str | None) -> str:
    """The account in a storage URL such as https://swift/v1/AUTH_abc; where it names none (Ceph) the project's."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return project or name if re.fullmatch(r"(?:v\d+(?:\.\d+)?|swift|)", name) else name
