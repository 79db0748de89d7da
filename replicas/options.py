"""The option table: what may stand in `[replicas]` of glance-api.conf. Sample: `oslo-config-generator`."""

from typing import Any

from oslo_config import cfg, types

GROUP = "replicas"

HOST = [
    cfg.StrOpt(
        "host_name",
        help="Name of this host in locations and reports. Default: the machine's host name. "
        "It must stay the same for the life of the host and be different on every host.",
    ),
    cfg.StrOpt(
        "host_url",
        help="Base URL under which other hosts and clients reach this very host (never a load balancer), "
        "for example http://10.0.0.11:9292. Default: worker_self_reference_url.",
    ),
    cfg.StrOpt("host_zone", help="Zone of this host; clients prefer copies in their own zone."),
    cfg.StrOpt(
        "http_store",
        help="Id of the enabled store of type http that registered locations name. Default: the one there is. "
        "Without an enabled http store nothing is ever registered.",
    ),
]

SERVING = [
    cfg.MultiStrOpt(
        "signing_keys",
        default=[],
        secret=True,
        help="Keys ID:SECRET for signed per-host URLs, the same on all hosts; the first signs, all verify. "
        "To rotate: add the new key second everywhere, then make it first, then drop the old one.",
    ),
    cfg.IntOpt(
        "signature_lifetime_seconds", default=3600, min=30, max=7 * 86400, help="How long a signed URL is good for."
    ),
    cfg.ListOpt(
        "trusted_networks",
        default=[],
        help="Networks (CIDR) whose clients may read per-host URLs without a signature, never hosts, which sign. The "
        "address is the socket's peer: behind a proxy that is the proxy, so use signatures there.",
    ),
    cfg.IntOpt(
        "max_peer_streams",
        min=0,
        help="Most bodies of per-host URLs one process sends at a time, to other hosts and to clients with signed URLs "
        "together; whoever comes then gets 503 and goes to another copy. Default: half of the threads of a process, 32 "
        "where they are not known. 0: no limit. What nginx sends does not count.",
    ),
    cfg.IntOpt(
        "max_streams",
        min=0,
        help="Most downloads that the server's threads send in one process at a time. With sendfile = uwsgi threads of "
        "our own send what comes beyond that, so that some of the server's are always free for the API; elsewhere it "
        "gets 503 and when to come again. Default: with sendfile = uwsgi what max_peer_streams leaves of the threads, "
        "less an eighth; elsewhere no limit. 0: no limit.",
    ),
    cfg.StrOpt(
        "sendfile",
        default="auto",
        choices=["auto", "off", "x-accel-redirect", "uwsgi"],
        help="Who sends files from the kernel. x-accel-redirect: an nginx in front, complete ones of per-host URLs; it "
        "must map sendfile_prefix to image_cache_dir. uwsgi: uWSGI's own connection, past Python, also what is still "
        "being filled; only with http-socket, or socket behind a proxy, without routers, internal routing and filters "
        "that change bodies: the start is refused otherwise. auto: uwsgi where that goes, else off.",
    ),
    cfg.StrOpt("sendfile_prefix", default="/replica-files/", help="Internal location of nginx for sendfile."),
]

SPACE = [
    cfg.IntOpt(
        "max_bytes",
        min=0,
        help="Most bytes of images kept on this host, fills in progress included; 0: no limit. "
        "Default: image_cache_max_size.",
    ),
    cfg.IntOpt(
        "min_free_bytes", default=1 << 30, min=0, help="Free bytes of the file system that a fill never goes below."
    ),
    cfg.IntOpt("max_image_bytes", default=0, min=0, help="Larger images pass through uncached; 0: no limit."),
]

EVICTION = [
    cfg.IntOpt(
        "high_watermark_percent",
        default=95,
        min=1,
        max=100,
        help="Part of max_bytes above which the janitor evicts ahead of need, so that fills seldom wait for it.",
    ),
    cfg.IntOpt(
        "low_watermark_percent",
        default=85,
        min=1,
        max=100,
        help="Part of max_bytes down to which the janitor evicts then. Above high_watermark_percent it counts as that.",
    ),
    cfg.StrOpt(
        "pin_property",
        help="Name of an image property, for example replica_pin: cached copies of images that have it set to true are "
        "never evicted. Default: none. Whoever may set it keeps copies in your cache: protect it with Glance's "
        "property_protection_file.",
    ),
    cfg.IntOpt(
        "max_pinned_percent",
        default=50,
        min=0,
        max=100,
        help="Most of max_bytes that pinned copies may take; those used longest ago lose their pin beyond that.",
    ),
]

FILLING = [
    cfg.BoolOpt(
        "fill_on_range",
        default=False,
        help="A range of an image that is not here is answered at once from the sources, and nothing is kept, as in "
        "Glance. True: the image is then fetched in the background as well, like a request in queue/.",
    ),
    cfg.IntOpt(
        "max_client_fills",
        default=32,
        min=0,
        help="Most fills that downloads begin on this host at a time, all processes together; what comes then passes "
        "through uncached, under the same guard. What was asked for ahead of need does not count, nor does a fill "
        "whose clients have all left, which goes on as a copy that was asked for. 0: no limit.",
    ),
    cfg.IntOpt(
        "max_client_fills_per_project",
        default=16,
        min=0,
        help="The same for the downloads of one project. 0: no limit.",
    ),
]

COPYING = [
    cfg.IntOpt("copies_at_once", default=2, min=1, help="Most copies this host fetches at once because it was asked."),
    cfg.IntOpt(
        "copy_bytes_per_second",
        default=0,
        min=0,
        help="Rate of all copies this host fetches because it was asked, together; 0: no limit. A copy that a client "
        "is waiting for is not held to it.",
    ),
    cfg.StrOpt(
        "copy_hours",
        help="Hours of the day, in local time, in which copies of normal and low priority are fetched, such as "
        "22:00-06:00. Default: always.",
    ),
    cfg.ListOpt(
        "policies",
        default=["rules"],
        help="What decides which copies this host keeps ahead of need: entry points of glance_replicas.policies.",
    ),
    cfg.StrOpt("rules_file", help="The rules of the policy `rules`, in YAML. Default: there are none."),
]

WAITING = [
    cfg.FloatOpt("connect_timeout_seconds", default=3.0, min=0.1, help="Limit for connecting to a source."),
    cfg.FloatOpt(
        "stall_timeout_seconds",
        default=30.0,
        min=0.5,
        help="Limit for a source without any progress; the fill then goes on from the next one.",
    ),
    cfg.FloatOpt(
        "peer_timeout_seconds",
        default=5.0,
        min=0.5,
        help="The same for another host's copy: there is always somebody else to ask.",
    ),
    cfg.FloatOpt(
        "max_fill_seconds",
        default=6 * 3600.0,
        min=1.0,
        help="Limit for a whole fill, however steady its progress; clients that follow it go on by themselves.",
    ),
]

JANITOR = [
    cfg.BoolOpt(
        "janitor", default=True, help="Run the janitor in one process of this host; off: run replica janitor --once."
    ),
    cfg.FloatOpt("janitor_interval_seconds", default=60.0, min=1.0, help="Pause between two passes of the janitor."),
    cfg.IntOpt("scrub_bytes_per_second", default=20 << 20, min=0, help="Rate of re-verifying files; 0: never."),
    cfg.IntOpt("scrub_after_seconds", default=7 * 86400, min=60, help="Age at which a verification is done again."),
    cfg.IntOpt(
        "dead_after_seconds",
        default=86400,
        min=60,
        help="A host without a heartbeat for this long is dead and its registrations are withdrawn. Also how long a "
        "cache directory found new and empty is taken for unmounted rather than lost.",
    ),
    cfg.IntOpt(
        "max_withdrawals_per_pass",
        default=50,
        min=1,
        help="Most registrations one pass withdraws because their file is gone; the rest wait for the next pass. "
        "Also most files one pass removes because Glance has never heard of their image.",
    ),
    cfg.IntOpt(
        "doubt_seconds",
        default=3600,
        min=0,
        help="How long Glance must have answered, pass after pass, that it does not know an image, or not as active "
        "yet, before its file is removed: a database that is behind must not cost a good copy. Files of deleted images "
        "go at once.",
    ),
]

LEDGER = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL of the database for our own tables. Default: Glance's own; for SQLite a file beside it.",
    ),
    cfg.StrOpt(
        "registrar",
        default="catalogue",
        choices=["catalogue", "ledger"],
        help="Where a host registers its copies. catalogue: in our own tables, and the first few of each image as "
        "locations in Glance's. ledger: in our own tables alone; Glance's own calls show none, hosts and tools use "
        "them all the same.",
    ),
    cfg.IntOpt(
        "max_registered_per_image",
        default=8,
        min=1,
        help="Most cached copies of an image that are locations in Glance's tables, spread over zones. Each costs "
        "every GET of the image; all further ones are in our own tables alone.",
    ),
    cfg.IntOpt(
        "catalogue_scan_seconds",
        default=86400,
        min=0,
        help="How often a host reads all of Glance's locations for rows of its own that our tables do not have, such "
        "as those of an earlier version. Other passes read by index.",
    ),
]

ALL = [*HOST, *SERVING, *SPACE, *EVICTION, *FILLING, *COPYING, *WAITING, *JANITOR, *LEDGER]


def allowed(option: Any) -> str:
    """What may be its value, in words."""
    kind = option.type
    if isinstance(kind, types.Boolean):
        return "true or false"
    if getattr(kind, "choices", None):
        return f"one of {', '.join(kind.choices)}"
    if not isinstance(kind, types.Number):
        return str(kind)
    what = "a whole number" if isinstance(kind, types.Integer) else "a number"
    if kind.min is not None and kind.max is not None:
        return f"{what} from {kind.min} to {kind.max}"
    return what if kind.min is None else f"{what}, {kind.min} or more"
