"""What is known of one host before anything is judged."""

from dataclasses import dataclass

from ..model import Host


@dataclass(frozen=True)
class EnabledStore:
    """One enabled store; in a single-store cloud the name is the kind."""

    name: str
    kind: str
    weight: int = 0


@dataclass(frozen=True)
class CacheProgram:
    """One of Glance's cache programs, and what runs it."""

    program: str
    where: str  # a file, or a file and the line in it


@dataclass(frozen=True)
class Facts:
    """What is known of one host. None: not known, or not asked because something before it failed."""

    host_name: str = ""
    host_url: str | None = None
    host_url_resolves: bool | None = None
    stores: tuple[EnabledStore, ...] = ()
    pipeline: tuple[str, ...] | None = None  # roles, outermost first
    pipeline_problem: str | None = None
    delayed_delete: bool = False
    show_multiple_locations: bool = False
    image_location_quota: int = 10
    charges_locations: bool = False  # user_storage_quota or unified limits
    secret_lengths: tuple[int, ...] = ()  # of the signing keys, characters
    trusted_networks: bool = False
    open_networks: tuple[str, ...] = ()  # those of them that cover everybody
    members_add_locations: bool | None = False  # by the policy in force; None: it could not be evaluated
    believes_any_certificate: bool = False
    unbelieved: tuple[tuple[str, str], ...] = ()  # URLs of hosts whose certificate is not believed here, and why
    cache_dir: str | None = None
    cache_dir_problem: str | None = None
    disk_bytes: int | None = None
    free_bytes: int | None = None
    max_bytes: int = 0
    min_free_bytes: int = 0
    dialect: str = ""  # of Glance's database
    galera_nodes: int = 0  # of the cluster that Glance's database is on; 0: no Galera
    galera_state: str = ""  # of the node that answered, in Galera's word
    ledger_is_elsewhere: bool = False  # not in Glance's database
    encrypts_locations: bool = False
    catalogue_problem: str | None = None
    ledger_problem: str | None = None
    ledger_is_current: bool | None = None
    clock_skew_seconds: float | None = None  # this host minus the database
    hosts: tuple[Host, ...] = ()
    only_cached: tuple[str, ...] = ()  # ids of images that no store has
    directory_owner: str | None = None  # the other host whose directory this is
    closed_files: tuple[str, ...] = ()  # in the directory, that who runs Glance cannot read
    cache_user: str = ""  # who that is
    withheld_files: tuple[tuple[str, str], ...] = ()  # that could not be read when that was tried last, and why
    url_owner: str | None = None  # the other living host that has this URL
    other_store_ids: tuple[tuple[str, str], ...] = ()  # hosts whose rows name a store id that is none here
    other_http_stores: tuple[tuple[str, str], ...] = ()  # other living hosts, and what they call their http store
    absent_files: tuple[tuple[str, int, int], ...] = ()  # file stores, files not in their folder, of how many
    kind_problems: tuple[str, ...] = ()  # why a kind of store that is enabled cannot be loaded
    policy_problems: tuple[str, ...] = ()  # why one of `policies` cannot decide
    cache_driver: str = "centralized_db"  # image_cache_driver
    glance_max_bytes: int = 0  # image_cache_max_size
    cache_jobs: tuple[CacheProgram, ...] = ()
    unread_jobs: tuple[str, ...] = ()  # places of jobs that may not be read
    server_endings: tuple[tuple[str, str], ...] = ()  # options of uWSGI that end a process, and values, at its start
