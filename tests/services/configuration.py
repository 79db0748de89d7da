"""The configuration of one glance-api host: option groups as dictionaries, pipelines, and both as files."""

from collections.abc import Mapping
from pathlib import Path

# group -> option -> value; a list is an option given several times.
Options = Mapping[str, Mapping[str, str | list[str]]]

PIPELINES = {
    "replicas": "cors replica-server http_proxy_to_wsgi versionnegotiation context replica-api replica-cache rootapp",
    "keystone+replicas": "cors replica-server http_proxy_to_wsgi versionnegotiation authtoken context replica-api "
    "replica-cache rootapp",
    "stock": "cors http_proxy_to_wsgi versionnegotiation context rootapp",
    "stock-cache": "cors http_proxy_to_wsgi versionnegotiation context cache rootapp",
}

PASTE = """
[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: api
/healthcheck: healthcheck

[composite:api]
paste.composite_factory = glance.api:pipeline_factory
default = {pipeline}

[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app

[app:apiversions]
paste.app_factory = glance.api.versions:create_resource

[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory

[app:healthcheck]
paste.app_factory = oslo_middleware:Healthcheck.app_factory

[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory

[filter:cache]
paste.filter_factory = glance.api.middleware.cache:CacheFilter.factory

[filter:cachemanage]
paste.filter_factory = glance.api.middleware.cache_manage:CacheManageFilter.factory

[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory

[filter:cors]
paste.filter_factory =  oslo_middleware.cors:filter_factory
oslo_config_project = glance
oslo_config_program = glance-api

[filter:http_proxy_to_wsgi]
paste.filter_factory = oslo_middleware:HTTPProxyToWSGI.factory

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory

[filter:replica-server]
use = egg:glance-replicas#server

[filter:replica-cache]
use = egg:glance-replicas#cache

[filter:replica-api]
use = egg:glance-replicas#api
"""

# Two keys, as in the middle of a rotation; the same on all hosts.
SIGNING_KEYS = ["new:the-key-that-signs-and-is-32-chars", "old:the-key-before-it-also-32-characters"]


def paste_text(pipeline: str) -> str:
    """A paste file with one of PIPELINES, or with the filters named in `pipeline` itself."""
    return PASTE.format(pipeline=PIPELINES.get(pipeline, pipeline))


def replicas_options(name: str, zone: str, url: str) -> dict[str, str | list[str]]:
    """Our own group as the tests want it: as in production, but with no part of the disk kept free."""
    return {
        "host_name": name,
        "host_zone": zone,
        "host_url": url,
        "signing_keys": SIGNING_KEYS,
        "min_free_bytes": "0",
    }


def host_options(folder: Path, url: str, database_url: str) -> Options:
    """What every host needs, whatever the stores."""
    return {
        "DEFAULT": {
            "transport_url": "fake:/",
            "worker_self_reference_url": url,
            "image_cache_dir": str(folder / "cache"),
            "node_staging_uri": f"file://{folder}/staging",
        },
        "database": {"connection": database_url, "sqlite_synchronous": "false"},
        "paste_deploy": {"config_file": str(folder / "glance-api-paste.ini")},
        "os_glance_staging_store": {"filesystem_store_datadir": str(folder / "staging")},
        "os_glance_tasks_store": {"filesystem_store_datadir": str(folder / "tasks")},
    }


def store_options(kind: str, driver_options: Mapping[str, str], multi_store: bool) -> Options:
    """A durable store of this kind and an http store: with ids `fast` and `web`, or the old way, without ids."""
    if multi_store:
        return {
            "DEFAULT": {"enabled_backends": f"fast:{kind}, web:http"},
            "glance_store": {"default_backend": "fast"},
            "fast": dict(driver_options),
            "web": {},
        }
    return {"glance_store": {"stores": f"{kind},http", "default_store": kind, **driver_options}}


def merge(*layers: Options) -> dict[str, dict[str, str | list[str]]]:
    """All groups of all layers; of the same option the last one counts."""
    result: dict[str, dict[str, str | list[str]]] = {}
    for layer in layers:
        for group, options in layer.items():
            result.setdefault(group, {}).update(options)
    return result


def conf_text(options: Options) -> str:
    """The options as oslo.config reads them from a file."""
    lines = []
    for group, values in options.items():
        lines.append(f"[{group}]")
        for name, value in values.items():
            lines += [f"{name} = {one}" for one in ([value] if isinstance(value, str) else value)]
    return "\n".join(lines) + "\n"


def s3_options(host: str, keys: tuple[str, str], bucket: str) -> dict[str, str]:
    """The options of a store on a server that speaks S3."""
    return {
        "s3_store_host": host,
        "s3_store_access_key": keys[0],
        "s3_store_secret_key": keys[1],
        "s3_store_bucket": bucket,
        "s3_store_create_bucket_on_put": "true",
        "s3_store_bucket_url_format": "path",
        "s3_store_region_name": "us-east-1",
    }
