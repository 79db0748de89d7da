"""A Swift account: where it is and a token for it, from Swift's own authorisation (version 1) or Keystone (3)."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import requests
import swiftclient
from keystoneauth1 import exceptions as keystone
from keystoneauth1 import identity, session

from ..errors import Denied, SourceError, Unreachable, Unsupported
from .body import Limits


@dataclass(frozen=True)
class Credentials:
    """Who asks whom, as a Swift location and its store's options say."""

    auth_url: str
    version: str
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
class Entry:
    """The account's URL and a token that was good when it was given."""

    url: str
    token: str = field(repr=False)


class Account:
    """One account. The token is shared by all threads and asked for once; `renew` after Swift has refused it."""

    def __init__(self, credentials: Credentials, limits: Limits) -> None:
        self._ask = _asker(credentials, limits)
        self._lock = threading.Lock()
        self._entry: Entry | None = None

    def entry(self) -> Entry:
        """Where and with what. Raises Denied, or Unreachable for every other trouble with the authorisation."""
        with self._lock:
            if self._entry is None:
                self._entry = _told(self._ask)
            return self._entry

    def renew(self, refused: Entry) -> Entry:
        """A newer one than `refused`; many threads that were refused together ask once."""
        with self._lock:
            if self._entry is refused:
                self._entry = None
        return self.entry()


def _asker(credentials: Credentials, limits: Limits) -> Callable[[], tuple[str | None, str | None]]:
    if credentials.version in ("1", "1.0", "v1"):
        return _version_1(credentials, limits)
    if credentials.version.removeprefix("v").startswith("3"):
        return _version_3(credentials, limits)
    raise Unsupported(f"{credentials.auth_url}: authorisation version {credentials.version} is gone; 1 and 3 are known")


def _version_1(credentials: Credentials, limits: Limits) -> Callable[[], tuple[str | None, str | None]]:
    def ask() -> tuple[str | None, str | None]:
        url, token = swiftclient.client.get_auth(
            credentials.auth_url,
            credentials.user,
            credentials.key,
            auth_version="1",
            cacert=credentials.ca_file,
            insecure=credentials.insecure,
            timeout=(limits.connect, limits.stall),
        )
        return credentials.endpoint or url, token

    return ask


def _version_3(credentials: Credentials, limits: Limits) -> Callable[[], tuple[str | None, str | None]]:
    verify = False if credentials.insecure else credentials.ca_file or True
    known = session.Session(auth=_plugin(credentials), verify=verify, timeout=limits.stall)

    def ask() -> tuple[str | None, str | None]:
        known.invalidate()
        token = known.get_token()
        url = credentials.endpoint or known.get_endpoint(
            service_type=credentials.service_type, interface=credentials.interface, region_name=credentials.region
        )
        return url, token

    return ask


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


def _told(ask: Callable[[], tuple[str | None, str | None]]) -> Entry:
    try:
        url, token = ask()
    except keystone.ClientException as error:
        raise _failure(getattr(error, "http_status", None)) from error
    except swiftclient.ClientException as error:
        raise _failure(error.http_status) from error
    except (requests.RequestException, OSError) as error:
        raise _failure(None) from error
    if not url or not token:
        raise Unreachable("the authorisation service names no object store (region, service type, endpoint type?)")
    return Entry(url.rstrip("/"), token)


def _failure(status: int | None) -> SourceError:
    """Only a refusal is Denied: a 404 of the authorisation says nothing of any object."""
    if status in (401, 403):
        return Denied("the authorisation service refused user and key")
    answered = f"answered {status}" if status else "could not be reached"
    return Unreachable(f"the authorisation service {answered}")
