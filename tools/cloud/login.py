"""Keystone: who the caller is, by clouds.yaml, `OS_*` and every plugin of keystoneauth."""

import os
from collections.abc import Callable
from typing import Any

from glance_replicas.errors import ConfigError, Denied, ReplicaError, Unreachable


def session(name: str | None, ca_file: str | None) -> tuple[Any, str]:
    """A session of keystoneauth and the image service's endpoint. Raises ConfigError, Denied, Unreachable."""
    import openstack.config
    from keystoneauth1 import exceptions as keystone
    from openstack.exceptions import SDKException

    wanted = name or os.environ.get("OS_CLOUD")
    try:
        more: dict[str, Any] = {"cacert": ca_file} if ca_file else {}
        region = openstack.config.OpenStackConfig().get_one(cloud=wanted, **more)
        made = region.get_session()
        endpoint = region.get_endpoint("image") or made.get_endpoint(
            service_type="image", interface=region.get_interface("image"), region_name=region.get_region_name("image")
        )
    except (SDKException, keystone.AuthPluginException, keystone.NoMatchingPlugin) as error:
        raise ConfigError(f"{_line(error)}; name a cloud of clouds.yaml with --os-cloud, or set OS_*") from error
    except keystone.ClientException as error:
        raise _translated(error) from error
    if not endpoint:
        raise ConfigError(f"cloud {region.name} has no image service in its catalogue; set image_endpoint_override")
    return made, str(endpoint)


def headers(ask: Callable[[], dict[str, str] | None]) -> dict[str, str]:
    """What authenticates a request, as the session has it. Raises Denied, Unreachable."""
    from keystoneauth1 import exceptions as keystone

    try:
        return dict(ask() or {})
    except keystone.ClientException as error:
        raise _translated(error) from error


def _translated(error: Exception) -> ReplicaError:
    from keystoneauth1 import exceptions as keystone

    refused = isinstance(error, keystone.Unauthorized | keystone.Forbidden)
    return (Denied if refused else Unreachable)(f"Keystone: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
