"""glance_store's Cinder driver, with what it leaves out: limits, errors that are told, and a session for each store.

Seen on Cinder 29 with glance_store 5.7.0: the driver says 0 bytes of a volume whose size it could not ask, ends a body
quietly when a read fails, calls a volume that is gone a failure of the back end, and asks all stores by the credentials
of the first.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ..contract import Kind

GIB = 1 << 30
ADMIN = "admin"  # the role for which Cinder looks beyond the project


class Cinder(Kind):
    """Cinder stores as a kind: glance_store's driver reads them, within limits."""

    schemes = ("cinder",)
    cost = 1
    opening = 10  # a volume has to be attached first

    def bounded(self, driver: Any, seconds: float) -> Callable[..., Any]:
        """A request to Cinder lasts `seconds` at most."""
        # __module__: where glance_store looks for the class of locations
        more = {"seconds": seconds, "__module__": driver.__module__}
        return type("Store", (_Honest, driver), more)


class _Honest:
    """What cannot be asked is an error, and a size of 0 is one."""

    READ_CHUNKSIZE: int  # bytes
    store_conf: Any
    seconds: float
    knows_empty = True
    _check_context: Callable[..., None]
    _open_cinder_volume: Callable[..., Any]
    _session: Any = None

    def get_cinderclient(self, context: Any = None, version: str = "3.54") -> Any:
        """A client with the store's own credentials; raises BadStoreConfiguration when it has none."""
        from cinderclient import api_versions
        from cinderclient.v3 import client

        self._check_context(context)
        if self._session is None:
            self._session = _session(self.store_conf, self.seconds)
        return client.Client(
            session=self._session,
            region_name=self.store_conf.cinder_os_region_name,
            retries=self.store_conf.cinder_http_retries,
            api_version=api_versions.APIVersion(version),
        )

    def get_size(self, location: Any, context: Any = None) -> int:
        """What the volume's metadata say, in bytes; the volume is not attached for it."""
        client = self.get_cinderclient(context)
        return _size(_volume(client, self._session, location.store_location.volume_id))

    def get(self, location: Any, offset: int = 0, chunk_size: Any = None, context: Any = None) -> tuple[Any, int]:
        """The bytes from `offset` on of the volume, attached, and the length of the whole."""
        client = self.get_cinderclient(context)
        volume = _volume(client, self._session, location.store_location.volume_id)
        size = _size(volume)
        if offset >= size:
            return iter(()), size
        pieces = self._read(client, volume, range(offset, size))
        next(pieces)
        return pieces, size

    def _read(self, client: Any, volume: Any, wanted: range) -> Iterator[bytes]:
        """First nothing, once the volume is attached; it is detached after the last byte, or when this is closed."""
        at = wanted.start
        with self._open_cinder_volume(client, volume, "rb") as data:
            yield b""
            data.seek(at)
            while at < wanted.stop and (piece := data.read(min(self.READ_CHUNKSIZE, wanted.stop - at))):
                at += len(piece)
                yield piece


class NotVisible(Exception):  # its name is what an operator reads
    """Cinder did not find a volume, and may have hidden it: only an administrator sees those of all projects."""


def _volume(client: Any, session: Any, volume_id: str) -> Any:
    """What Cinder knows of a volume. "Not found" is its word on the volume only if it would find any volume."""
    from cinderclient import exceptions as refused
    from glance_store import exceptions

    try:
        return client.volumes.get(volume_id)
    except refused.NotFound as error:
        if ADMIN not in session.auth.get_access(session).role_names:
            raise NotVisible from error
        try:
            client.volumes.list(detailed=False, limit=1)
        except refused.NotFound:
            raise exceptions.RemoteServiceUnavailable from error
        raise exceptions.NotFound(image=volume_id) from error


def _size(volume: Any) -> int:
    return int(volume.metadata.get("image_size", volume.size * GIB))


def _session(conf: Any, seconds: float) -> Any:
    """What authenticates with the options of one store, as the driver does with those of the first."""
    from keystoneauth1 import session
    from keystoneauth1.identity import v3

    auth: Any
    if conf.cinder_store_application_credential_id and conf.cinder_store_application_credential_secret:
        auth = v3.ApplicationCredential(
            conf.cinder_store_auth_address,
            application_credential_id=conf.cinder_store_application_credential_id,
            application_credential_secret=conf.cinder_store_application_credential_secret,
        )
    else:
        auth = v3.Password(
            conf.cinder_store_auth_address,
            username=conf.cinder_store_user_name,
            password=conf.cinder_store_password,
            user_domain_name=conf.cinder_store_user_domain_name,
            project_name=conf.cinder_store_project_name,
            project_domain_name=conf.cinder_store_project_domain_name,
        )
    verify = not conf.cinder_api_insecure and (conf.cinder_ca_certificates_file or True)
    return session.Session(auth=auth, verify=verify, timeout=seconds, redirect=False)
