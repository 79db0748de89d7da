"""The options of the http store."""

from oslo_config import cfg

from ...glance_options import peek
from ..configured import groups, stores
from .wire import Tls


def tls(conf: cfg.ConfigOpts) -> Tls:
    """Which certificates of other hosts and of http locations are believed, by the options of the http store.

    The store's driver believes any unless told otherwise; a URL of ours is a permission, so that is taken only where
    somebody has written `https_insecure = True`.
    """
    store = next((enabled for enabled in stores(conf) if enabled.kind == "http"), None)
    where = groups(store.id if store else None)
    said = peek(conf, [cfg.StrOpt("https_ca_certificates_file"), cfg.BoolOpt("https_insecure", default=False)], *where)
    ca_file = said["https_ca_certificates_file"]
    return Tls(ca_file) if ca_file else Tls(insecure=said["https_insecure"])
