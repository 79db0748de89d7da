"""The rules behind `replica check`: each fault is found with its remedy, and a sound host is not bothered."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from glance_replicas.check import CacheProgram, EnabledStore, Facts, Severity, findings, hosts, is_clean, pipeline
from glance_replicas.model import Host
from glance_replicas.tools.gather import cache_jobs

SOUND = Facts(
    host_name="api1",
    host_url="http://10.0.0.2:9292",
    host_url_resolves=True,
    stores=(EnabledStore("fast", "file", 1), EnabledStore("web", "http", 0)),
    pipeline=tuple(pipeline.WANTED.split()),
    image_location_quota=20,
    secret_lengths=(64,),
    cache_dir="/var/lib/glance/image-cache",
    disk_bytes=1 << 40,
    free_bytes=1 << 39,
    max_bytes=1 << 38,
    glance_max_bytes=1 << 38,
    min_free_bytes=1 << 30,
    dialect="postgresql",
    ledger_is_current=True,
    clock_skew_seconds=0.1,
)


def host(name: str, url: str) -> Host:
    return Host(name, None, url, datetime.now(UTC))


def test_a_sound_host_has_no_findings() -> None:
    """No rule fires on a host set up as the documentation says."""
    assert findings(SOUND) == []


def test_what_is_weak_on_galera() -> None:
    """Two nodes, a node that is behind, and our tables elsewhere: each is said, and only where it is so."""
    weak = replace(SOUND, galera_nodes=2, galera_state="Joined", ledger_is_elsewhere=True)
    said = " ".join(one.what for one in findings(weak))
    assert all(part in said for part in ("without a majority", "state Joined", "[replicas] connection"))
    for nodes in range(1, 6):
        found = findings(replace(SOUND, galera_nodes=nodes, galera_state="Synced"))
        halves = [one for one in found if "two halves" in one.what]
        assert len(halves) == (nodes % 2 == 0)
        assert {one.severity for one in found} - {one.severity for one in halves} == {Severity.INFO}


PRUNER = CacheProgram("glance-cache-pruner", "/etc/cron.d/glance")
CASES: list[tuple[dict[str, Any], Severity, str]] = [
    ({"stores": (EnabledStore("fast", "file"),)}, Severity.ERROR, "no store of type http"),
    (
        {"stores": (EnabledStore("fast", "rbd", 1), EnabledStore("web", "http", 2))},
        Severity.WARNING,
        "web weighs more than",
    ),
    ({"stores": (EnabledStore("fast", "rbd"), EnabledStore("web", "http"))}, Severity.INFO, "web weighs as much as"),
    ({"absent_files": (("fast", 6, 12),)}, Severity.ERROR, "6 of the 12 newest files of store fast"),
    ({"delayed_delete": True}, Severity.WARNING, "delayed_delete"),
    ({"image_location_quota": 1}, Severity.WARNING, "image may come to 2 locations"),
    ({"charges_locations": True}, Severity.WARNING, "storage quota"),
    ({"show_multiple_locations": True}, Severity.WARNING, "show_multiple_locations"),
    ({"secret_lengths": ()}, Severity.ERROR, "neither signing_keys nor trusted_networks"),
    ({"secret_lengths": (), "trusted_networks": True}, Severity.ERROR, "signing_keys is not set"),
    ({"open_networks": ("0.0.0.0/0",)}, Severity.ERROR, "0.0.0.0/0 trusts everybody"),
    ({"members_add_locations": True}, Severity.ERROR, "every member may add http locations"),
    ({"members_add_locations": None}, Severity.WARNING, "policy file could not be read"),
    ({"unbelieved": (("https://10.0.0.2:9292", "expired"),)}, Severity.ERROR, "not believed here: expired"),
    (
        {"host_url": "https://10.0.0.2:9292", "believes_any_certificate": True},
        Severity.WARNING,
        "https_insecure = True",
    ),
    ({"secret_lengths": (64, 16)}, Severity.WARNING, "entry 2 has 16 characters"),
    ({"host_url": None}, Severity.ERROR, "neither host_url"),
    ({"host_url": "http://127.0.0.1:9292"}, Severity.ERROR, "loopback"),
    ({"host_url": "http://localhost:9292"}, Severity.ERROR, "loopback"),
    ({"host_url": "http://[::1]:9292"}, Severity.ERROR, "loopback"),
    ({"host_url": "http://0.0.0.0:9292"}, Severity.ERROR, "loopback"),
    ({"host_url": "http://api1:9292"}, Severity.ERROR, "short name"),
    ({"host_url": "http://api1.example.org", "host_url_resolves": False}, Severity.ERROR, "not known to the DNS"),
    ({"cache_dir_problem": "no such file or directory"}, Severity.ERROR, "image_cache_dir /var/lib/glance"),
    ({"max_bytes": 1 << 41}, Severity.WARNING, "more than the"),
    ({"free_bytes": 5}, Severity.WARNING, "5 bytes are free"),
    ({"pipeline": None, "pipeline_problem": "no such file"}, Severity.WARNING, "no such file"),
    ({"catalogue_problem": "refused"}, Severity.ERROR, "Glance's database: refused"),
    ({"ledger_problem": "refused"}, Severity.ERROR, "the ledger: refused"),
    ({"ledger_is_current": False}, Severity.ERROR, "missing or old"),
    ({"encrypts_locations": True}, Severity.INFO, "metadata_encryption_key"),
    ({"galera_nodes": 3, "galera_state": "Synced"}, Severity.INFO, "Galera cluster of 3 nodes"),
    ({"clock_skew_seconds": 60.0}, Severity.WARNING, "60 s ahead of the database"),
    ({"clock_skew_seconds": -60.0}, Severity.WARNING, "60 s behind the database"),
    ({"hosts": (host("api1", "http://10.0.0.9:9292"),)}, Severity.ERROR, "host_name api1 is in the ledger with"),
    ({"cache_jobs": (PRUNER,)}, Severity.ERROR, "glance-cache-pruner is run by /etc/cron.d/glance"),
    ({"cache_jobs": (PRUNER,), "cache_driver": "xattr"}, Severity.ERROR, "glance-cache-pruner is run by"),
    (
        {"cache_jobs": (CacheProgram("glance-cache-cleaner", "x"),)},
        Severity.WARNING,
        "glance-cache-cleaner is run by x",
    ),
    (
        {"cache_jobs": (CacheProgram("glance-cache-prefetcher", "x"),)},
        Severity.WARNING,
        "glance-cache-prefetcher is run by x",
    ),
    ({"unread_jobs": ("/var/spool/cron",)}, Severity.INFO, "/var/spool/cron could not be read"),
    ({"cache_driver": "xattr", "glance_max_bytes": 7}, Severity.INFO, "image_cache_max_size = 7 is less than"),
    ({"directory_owner": "api2"}, Severity.ERROR, "is that of host api2"),
    ({"closed_files": ("x", "y"), "cache_user": "glance"}, Severity.ERROR, "2 files, x among them, cannot be read by"),
    ({"server_endings": (("harakiri", "60"),)}, Severity.WARNING, "uWSGI runs this host with harakiri = 60"),
    ({"server_endings": (("max-requests", "9"),)}, Severity.WARNING, "uWSGI runs this host with max-requests = 9"),
    ({"url_owner": "api2"}, Severity.ERROR, "is that of host api2, which lives"),
    (
        {"other_store_ids": (("api2", "cache"),)},
        Severity.ERROR,
        "name the store cache, and the http store is called web",
    ),
    (
        {"dialect": "sqlite", "hosts": (host("a", "http://10.0.0.3"), host("b", "http://10.0.0.4"))},
        Severity.ERROR,
        "2 hosts, and Glance's database is SQLite",
    ),
]


@pytest.mark.parametrize(("change", "severity", "words"), CASES, ids=[words for _, _, words in CASES])
def test_each_fault_is_found_once(change: dict[str, Any], severity: Severity, words: str) -> None:
    """One wrong fact gives one finding, of the right severity, with a reason and a remedy."""
    (found,) = findings(replace(SOUND, **change))
    assert (found.severity, words in found.what) == (severity, True)
    assert found.why
    assert found.remedy
    assert is_clean([found]) is (severity is Severity.INFO)


@pytest.mark.parametrize(
    "change",
    [
        {"host_url": "https://api1.example.org:9292"},
        {"host_url": "http://[2001:db8::5]:9292"},
        {"image_location_quota": -1},
        {"image_location_quota": 2},
        {"hosts": (host("api1", "http://10.0.0.2:9292/"),)},
        {"clock_skew_seconds": hosts.CLOCK_SKEW_SECONDS},
        {"max_bytes": (1 << 40) - (1 << 30)},
        {"free_bytes": 1 << 30},
    ],
)
def test_no_false_alarm(change: dict[str, Any]) -> None:
    """What is right, or just within its bound, is not reported."""
    assert findings(replace(SOUND, **change)) == []


def test_errors_come_first() -> None:
    """The order of findings is by severity, whatever the order of the rules."""
    found = findings(replace(SOUND, clock_skew_seconds=60.0, encrypts_locations=True, ledger_is_current=False))
    assert [one.severity for one in found] == [Severity.ERROR, Severity.WARNING, Severity.INFO]


def order(*roles: str) -> list[str]:
    return [what for what, _ in pipeline.faults(roles)]


def test_every_filter_that_is_absent_is_named() -> None:
    """A stock pipeline lacks all three, and keeps Glance's own cache."""
    assert order("context", "cache", "cachemanage") == [
        "filter replica-cache is not in the pipeline",
        "filter replica-server is not in the pipeline",
        "filter replica-api is not in the pipeline",
        "Glance's own filter cache is still in the pipeline",
        "Glance's own filter cachemanage is still in the pipeline",
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("replica-server", "http_proxy_to_wsgi"),
        ("replica-server", "authtoken"),
        ("context", "replica-api"),
        ("context", "replica-cache"),
        ("replica-api", "replica-cache"),
    ],
)
def test_a_wrong_order_is_found(first: str, second: str) -> None:
    """Each pair that has an order is reported when it is the other way round."""
    roles = pipeline.WANTED.split()
    roles.remove(first)
    roles.insert(roles.index(second) + 1, first)
    assert f"filter {first} comes after {second}" in order(*roles)


PASTE = """
[composite:glance-api]
paste.composite_factory = glance.api:root_app_factory
/: api
[composite:api]
paste.composite_factory = glance.api:pipeline_factory
default = ctx rootapp
Keystone = ours proxy auth ctx mine odd rootapp
[filter:ours]
use = egg:glance-replicas#server
[filter:mine]
paste.filter_factory = glance_replicas.middleware.cache:filter_factory
[filter:ctx]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:proxy]
paste.filter_factory = oslo_middleware:HTTPProxyToWSGI.factory
[filter:auth]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
"""


def test_filters_are_known_by_what_they_are() -> None:
    """A section may have any name; a flavor is found in its own spelling; an unknown filter keeps its name."""
    wanted = ("replica-server", "http_proxy_to_wsgi", "authtoken", "context", "replica-cache", "odd", "rootapp")
    assert pipeline.roles(PASTE, "Keystone") == wanted
    assert pipeline.roles(PASTE, None) == ("context", "rootapp")


def test_the_older_form_is_read() -> None:
    """One section per flavor, as Glance wrote it before."""
    text = "[pipeline:glance-api-keystone]\npipeline = context rootapp\n[filter:context]\nuse = x"
    assert pipeline.roles(text, "keystone") == ("context", "rootapp")


@pytest.mark.parametrize("text", ["", "no section", "[composite:api]\npaste.composite_factory = x:pipeline_factory\n"])
def test_what_is_no_paste_file_is_said_in_a_line(text: str) -> None:
    """Neither an empty file nor garbage nor an absent flavor ends in a traceback."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        pipeline.roles(text, "keystone")


def test_the_older_cache_calls_may_stay() -> None:
    """`cachemanage` behind replica-cache reaches what we keep, as it should; `cache` is of no use there."""
    roles = pipeline.WANTED.replace("rootapp", "cache cachemanage rootapp").split()
    assert order(*roles) == ["Glance's own filter cache is still in the pipeline"]


def test_jobs_that_run_glances_cache_programs_are_found(tmp_path: Path) -> None:
    """In tables of cron, scripts, tables of users and units of systemd; not in comments, and each file once."""
    texts = {
        "etc/crontab": "# */5 * * * * glance glance-cache-pruner\n0 * * * * root /usr/bin/glance-cache-cleaner\n",
        "etc/cron.d/glance": "*/5 * * * * glance /usr/bin/glance-cache-prefetcher; glance-cache-pruner\n",
        "etc/cron.daily/other": "#!/bin/sh\nlogrotate\n",
        "var/spool/cron/crontabs/glance": "0 1 * * * flock /run/x glance-cache-pruner --config-file /etc/g.conf\n",
        "usr/lib/systemd/system/prune.service": "[Service]\nExecStart=glance-cache-pruner\n",
        "usr/lib/systemd/system/prune.txt": "ExecStart=glance-cache-pruner\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/gone.service").symlink_to("/nowhere")
    jobs, unread = cache_jobs.find(tmp_path)
    found = {(one.program.removeprefix("glance-cache-"), str(Path(one.where).relative_to(tmp_path))) for one in jobs}
    assert found == {
        ("cleaner", "etc/crontab"),
        ("prefetcher", "etc/cron.d/glance"),
        ("pruner", "etc/cron.d/glance"),
        ("pruner", "var/spool/cron/crontabs/glance"),
        ("pruner", "lib/systemd/system/prune.service"),
    }
    assert (len(jobs), unread) == (5, ())
