"""Where Glance would put an image: the URL that its driver gives the image's object in a store. Nothing is written."""

import shutil
from typing import Any

from oslo_config import cfg

from ..errors import ConfigError, Unsupported
from ..model import Image
from . import configured
from .configured import Store
from .drivers import loading


def url(conf: cfg.ConfigOpts, store: Store, image: Image) -> str:
    """The URL with all that reading it takes. Raises Unsupported, ConfigError.

    Of a file store with several folders that with most room, as Glance takes among those of one priority.
    """
    if store.kind == "file":
        roots = configured.file_roots(conf, store.id)
        return f"file://{max(roots, key=lambda root: shutil.disk_usage(root).free)}/{image.id}"
    if store.kind == "swift":
        return _swift(_driver(conf, store), conf, store, image)
    if store.kind == "s3":
        return _s3(_driver(conf, store), conf, store, image)
    raise Unsupported(
        f"store {store.id or store.kind}: nothing here writes to a {store.kind} store; have Glance copy the image "
        f"there (glance image-import {image.id} --import-method copy-image --stores {store.id}), or upload it anew"
    )


def _driver(conf: cfg.ConfigOpts, store: Store) -> Any:
    """The store's driver, ready to write; its options are those that Glance itself registers."""
    from glance_store import backend, multi_backend

    (backend.register_opts if store.id is None else multi_backend.register_store_opts)(conf)
    found = loading.installed(conf, store.id, store.kind, seconds=60.0)
    if found is None:
        raise Unsupported(f"store {store.id or store.kind}: the {store.kind} driver cannot be loaded here")
    try:
        found.configure()
        found.configure_add()
    except Exception as error:  # whatever its libraries raise
        raise ConfigError(f"store {store.id or store.kind}: {error}") from error
    return found


def _swift(driver: Any, conf: cfg.ConfigOpts, store: Store, image: Image) -> str:
    from glance_store._drivers.swift import utils

    if getattr(driver, "multi_tenant", False) or driver.store_conf.swift_store_multi_tenant:
        raise Unsupported(f"store {store.id}: images of a multi-tenant Swift lie in their owners' accounts, not ours")
    several = utils.is_multiple_swift_store_accounts_enabled(conf, backend=store.id)
    return str(driver.create_location(image.id).get_uri(credentials_included=not several))


def _s3(driver: Any, conf: cfg.ConfigOpts, store: Store, image: Image) -> str:
    names = {"scheme": driver.scheme, "bucket": driver.bucket, "key": image.id, "s3serviceurl": driver.full_s3_host}
    made = driver.get_store_location_class()
    more = {} if store.id is None else {"backend_group": store.id}
    names |= {"accesskey": driver.access_key, "secretkey": driver.secret_key}
    return str(made(store_specs=names, conf=conf, **more).get_uri())
