"""Gathers what `replica check` judges: options, paste file, disk, DNS, databases. Asks, changes nothing."""

import importlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from oslo_config import cfg

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.check import EnabledStore, Facts, pipeline
from glance_replicas.errors import CatalogueError, ConfigError, LedgerError
from glance_replicas.glance_options import peek
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.networks import is_too_wide
from glance_replicas.prefetch import planner, rules_file
from glance_replicas.settings import Settings
from glance_replicas.stores import configured, kinds
from glance_replicas.stores.http import options as http_options

from . import cache_jobs, certificates, neighbours


def gather(settings: Settings, conf: cfg.ConfigOpts) -> Facts:
    """The facts of this host; what could not be asked is a fact of its own."""
    filters, filters_problem = _filters(conf)
    facts = Facts(
        host_name=settings.host_name,
        host_url=settings.host_url,
        host_url_resolves=_resolves(settings.host_url),
        stores=tuple(_stores(conf)),
        pipeline=filters,
        pipeline_problem=filters_problem,
        delayed_delete=peek(conf, [cfg.BoolOpt("delayed_delete", default=False)])["delayed_delete"],
        show_multiple_locations=bool(conf.show_multiple_locations),
        image_location_quota=conf.image_location_quota,
        charges_locations=conf.user_storage_quota not in ("0", 0, None) or bool(conf.use_keystone_limits),
        secret_lengths=tuple(len(key.secret) for key in settings.signing_keys),
        trusted_networks=bool(settings.trusted_networks),
        open_networks=tuple(
            str(trusted_network) for trusted_network in settings.trusted_networks if is_too_wide(trusted_network)
        ),
        members_add_locations=_members_add_locations(),
        max_bytes=settings.max_bytes,
        min_free_bytes=settings.min_free_bytes,
        dialect=sa.make_url(settings.database).get_backend_name(),
        encrypts_locations=settings.encryption_key is not None,
        kind_problems=tuple(_kinds(conf)),
        policy_problems=tuple(_policies(settings)),
        **_stock_cache(conf),
        **_disk(settings.cache_dir),
        **_databases(settings),
    )
    tls = http_options.tls(conf)
    facts = replace(facts, **neighbours.shared(facts, settings, conf))
    return replace(
        facts, believes_any_certificate=tls.insecure, unbelieved=tuple(certificates.unbelieved(facts, settings, tls))
    )


def _stores(conf: cfg.ConfigOpts) -> Sequence[EnabledStore]:
    return [EnabledStore(store.name, store.kind, _weight(conf, store.id)) for store in configured.stores(conf)]


def _kinds(conf: cfg.ConfigOpts) -> Iterator[str]:
    for name in sorted({store.kind for store in configured.stores(conf)}):
        try:
            kinds.load(name)
        except ConfigError as error:
            yield str(error)


def _weight(conf: cfg.ConfigOpts, store_id: str | None) -> int:
    """The weight of a store; there is none in a single-store cloud."""
    driver = importlib.import_module("glance_store.driver")
    return int(configured.group_options(conf, store_id, driver._MULTI_BACKEND_OPTS).weight or 0) if store_id else 0


def _filters(conf: cfg.ConfigOpts) -> tuple[tuple[str, ...] | None, str | None]:
    config = importlib.import_module("glance.common.config")
    try:
        path = config._get_deployment_config_file()
        return pipeline.roles(Path(path).read_text(), conf.paste_deploy.flavor), None
    except (OSError, RuntimeError, UnicodeDecodeError, ValueError) as error:
        return None, str(error)


def _resolves(url: str | None) -> bool | None:
    name = urlsplit(url).hostname if url else None
    if not name:
        return None
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def _policies(settings: Settings) -> Iterator[str]:
    for name in settings.policies:
        try:
            planner.load(name, settings)
        except Exception as error:  # noqa: BLE001 - somebody else's code
            yield f"[replicas] policies: {name}: {error or type(error).__name__}"
    if settings.rules_file:
        try:
            rules_file.read(settings.rules_file)
        except ConfigError as error:
            yield f"rules_file: {error}"


def _members_add_locations() -> bool | None:
    """Whether Glance's own policy, as it is in force, lets a plain member add a location to an image of its own."""
    enforcer = importlib.import_module("glance.api.policy").Enforcer(suppress_deprecation_warnings=True)
    context = importlib.import_module("glance.context")
    member = context.RequestContext(user_id="user", project_id="project", roles=["member", "reader"])
    own = {
        "project_id": "project",
        "owner": "project",
        "tenant": "project",
        "visibility": "shared",
        "member_id": "project",
    }
    try:
        return bool(enforcer.check(member, "add_image_location", own))
    except (cfg.Error, OSError, ValueError):
        return None


def _stock_cache(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """Glance's options for its own cache programs, and what runs these here."""
    driver = cfg.StrOpt("image_cache_driver", default="centralized_db", ignore_case=True)
    said = peek(conf, [driver, cfg.IntOpt("image_cache_max_size", default=10 << 30)])
    jobs, unread = cache_jobs.find()
    return {
        "cache_driver": said["image_cache_driver"].lower(),
        "glance_max_bytes": said["image_cache_max_size"],
        "cache_jobs": jobs,
        "unread_jobs": unread,
    }


def _disk(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"cache_dir_problem": "the option is not set"}
    found: dict[str, Any] = {"cache_dir": str(folder)}
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return found | {"cache_dir_problem": (error.strerror or "unreadable").lower()}
    found |= {"disk_bytes": usage.total, "free_bytes": usage.free}
    if not folder.is_dir():
        return found | {"cache_dir_problem": "not a folder"}
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return found | {"cache_dir_problem": "the user of this program may not write there"}
    return found


def _databases(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    catalogue = Catalogue(settings.database, settings.encryption_key)
    try:
        catalogue.statuses(["00000000-0000-0000-0000-000000000000"])
        found["only_cached"] = tuple(catalogue.only_cached())
        found["galera_nodes"], found["galera_state"] = catalogue.cluster() or (0, "")
    except CatalogueError as error:
        return {"catalogue_problem": str(error)}
    found["ledger_is_elsewhere"] = settings.ledger != settings.database
    ledger = Ledger(settings.ledger)
    try:
        found["ledger_is_current"] = ledger.is_current()
        found["clock_skew_seconds"] = (datetime.now(UTC) - ledger.now()).total_seconds()  # of this host's clock
        if found["ledger_is_current"]:
            found["hosts"] = tuple(ledger.hosts())
    except LedgerError as error:
        found["ledger_problem"] = str(error)
    return found
