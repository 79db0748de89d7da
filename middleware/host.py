"""One Keeper for all filters of a process: one pool of connections to each database, one list of hosts."""

import functools

from oslo_config import cfg

from glance_replicas import settings
from glance_replicas.keeper import Keeper

from . import direct


@functools.cache
def keeper() -> Keeper:
    """This host, by the configuration Glance has read. Raises ConfigError, which stops the start."""
    found = settings.read(cfg.CONF)
    direct.check(found)
    return Keeper(found)
