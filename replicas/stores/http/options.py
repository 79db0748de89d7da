"""The options of the http store."""

from oslo_config import cfg

from ...settings import peek
from ..configured import groups, stores
from .wire import Tls


def tls(conf: cfg.ConfigOpts) -> Tls:
    """Which certificates of other hosts and of http locations are believed, by the options of the http store.

    The store's driver believes any unless told otherwise; a URL of ours is a permission, so that is taken only where
    somebody has written `https_insecure = True`.
    """
    store = next((one for one in stores(conf) if one.kind == "http"), None)
    where = groups(store.id if store else None)
    own = peek(conf, [cfg.StrOpt("https_ca_certificates_file"), cfg.BoolOpt("https_insecure")], *where)
    ca_files = [own[group].https_ca_certificates_file for group in where if own[group].https_ca_certificates_file]
    said = [own[group].https_insecure for group in where if own[group].https_insecure is not None]
    return Tls(ca_files[0]) if ca_files else Tls(insecure=bool(said and said[0]))
