"""Running hosts among each other: one that has just come, two in one directory, two behind one URL, one renamed."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from services.web.nginx import Nginx
from support.programs import Programs
from support.worlds.scenes import new_image, settle

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host

pytest_plugins = ["support.desk"]

MIB = 1 << 20
OFTEN, SELDOM = ({"replicas": {"janitor_interval_seconds": seconds}} for seconds in ("1", "3600"))
SMALL = {"replicas": {"janitor_interval_seconds": "1", "max_bytes": str(8 * MIB)}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """`api1` behind an nginx, and `api2`; then `api3`, in the directory of `api1`, and `api4`, behind that nginx, too.

    `api2` has its name from the machine; its janitor runs at its start only.
    """
    folder = tmp_path_factory.mktemp("hosts")
    with GlanceSite(folder / "site") as made:
        for number, options in enumerate((OFTEN, SELDOM, SMALL, OFTEN), 2):
            made.add_host(f"127.0.0.{number}", processes=1, options=options, start=False)
        first, second, guest, behind = made.hosts
        servers = f"upstream both {{ server {first.bound}; server {behind.bound}; }}"
        more = "location = /ready { return 200; } location / { proxy_pass http://both; }"
        with Nginx(folder / "nginx", folder, "127.0.0.6", more=more, http=servers) as nginx:
            guest.configure({"DEFAULT": {"image_cache_dir": str(first.cache_dir)}})
            for host in (first, behind):
                host.configure({"replicas": {"host_url": nginx.url}})
            first.start(wait=False)
            as_machine(second, "api2")
            first.wait_ready()
            second.wait_ready()
            made.wait_known()
            guest.start(wait=False)
            behind.start()
            guest.wait_ready()
            yield made


def as_machine(host: GlanceHost, name: str) -> None:
    """The host about to serve on a machine of that name, which it has its own from."""
    host.name = name
    text = host.config_file.read_text()
    host.config_file.write_text(re.sub(r"(?m)^host_name = .*\n", "", text))
    words = ["unshare", "-u", "sh", "-c", 'hostname "$0" && exec "$@"', name, *GlanceHost.command(host)]
    host.command = lambda: words  # type: ignore[method-assign]
    host.start(wait=False)


def owners(site: GlanceSite, image_id: str) -> list[str]:
    """The hosts that the registrations of an image name."""
    rows = site.locations(image_id)
    return [row["metadata"]["replica_host"] for row in rows if "replica_host" in row["metadata"]]


def cached(host: GlanceHost, server: FaultyServer, *names: str) -> tuple[str, bytes]:
    """An image of a counting store that went through this host, and is registered for these."""
    image_id, data = new_image(host, MIB)
    host.site.move_to(server, image_id)
    assert host.client().download(image_id).content == data
    settle(lambda: owners(host.site, image_id) == list(names))
    return image_id, data


def known(site: GlanceSite) -> set[str]:
    """The hosts of the ledger."""
    return {row["name"] for row in site.ledger_rows("SELECT name FROM replica_hosts")}


def passes(host: GlanceHost) -> list[str]:
    """What the passes of a host's janitor did; those that did nothing say nothing."""
    return re.findall(r"janitor: (Pass\(.*)", host.log())


def rows_of(done: Any) -> list[dict[str, Any]]:
    """The rows of a program's JSON."""
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_a_host_that_has_just_come(site: GlanceSite, faulty: FaultyServer) -> None:
    """A host whose list was made before another reported reads that one's copy: the store is read once, and its URL is
    signed."""
    here, there = site.hosts[:2]
    image_id, data = cached(there, faulty, "api2")
    site.ledger_rows("DELETE FROM replica_hosts WHERE name = 'api2'")
    client = here.client("p1", ("admin", "member", "reader"))
    settle(lambda: "sig=" not in client.request("GET", f"/v2/images/{image_id}/replicas").text)
    time.sleep(1.1)  # a list is asked for early once a second
    ledger = Ledger(site.ledger_url)
    ledger.heartbeat(Host("api2", "zone-a", there.url))
    ledger.close()
    assert here.client().download(image_id).content == data
    assert site.backend_reads(image_id) == 1
    assert "sig=" in client.request("GET", f"/v2/images/{image_id}/replicas").text


def test_a_guest_in_a_directory(site: GlanceSite, faulty: FaultyServer, programs: Programs) -> None:
    """Two hosts in one directory: both are known, one registers, check and log of the other name it, what the other is
    asked to fetch fails with the reason, and no row names a file that is gone."""
    first, guest = site.hosts[0], site.hosts[2]
    settle(lambda: "api3" in known(site))
    image_id, data = cached(guest, faulty, "api1")  # by the janitor of the owner: it is in its directory
    own_id, _ = cached(first, faulty, "api1")
    assert guest.client().download(own_id).status_code == 200
    assert first.client().download(image_id).content == data
    out = programs.run("--config-file", guest.config_file, "check").out
    assert f"error: image_cache_dir {first.cache_dir} is that of host api1" in out
    assert "registers no copies: image_cache_dir" in guest.log()
    assert "is that of host" not in programs.run("--config-file", first.config_file, "check").out
    other_id, _ = new_image(first, MIB)
    words = ("--config-file", first.config_file, "copy")
    assert programs.run(*words, other_id, "--to", "api3").status == 0
    settle(lambda: rows_of(programs.run(*words, "list", other_id, "-f", "json"))[0]["State"] == "failed")
    (row,) = rows_of(programs.run(*words, "list", other_id, "-f", "json"))
    assert "is that of host api1" in row["Detail"]
    assert "give each host a directory of its own" in row["Detail"]
    assert rows_of(programs.run(*words[:2], "list", "--host", "api3", "-f", "json")) == []
    document = guest.client().replicas(image_id)["replicas"]
    assert [row["host"] for row in document if row["host"]] == ["api1"]
    assert requests.get(document[0]["url"], timeout=30).content == data
    assert rows_of(programs.run(*words[:2], "prune", "--dead-hosts", "--all", "-f", "json")) == []
    more = [cached(first, faulty, "api1")[0] for _ in range(7)]
    assert guest.client().request("POST", "/v2/cache/prune").json()["total_files_pruned"] > 0
    assert [owners(site, one) for one in more] == [["api1"] * (first.cache_dir / one).exists() for one in more]
    for one in (image_id, own_id):
        assert first.client().download(one).status_code == 200
        settle(lambda one=one: owners(site, one) == ["api1"])
    for gone in (image_id, own_id):
        answer = guest.client().request("DELETE", f"/v2/images/{gone}/replicas/api1")
        assert answer.status_code == 202, answer.text
    settle(lambda: not any((first.cache_dir / one).exists() for one in (image_id, own_id)))
    assert owners(site, image_id) + owners(site, own_id) == []
    assert "api3" not in owners(site, other_id)


def test_two_hosts_behind_one_url(site: GlanceSite, faulty: FaultyServer, programs: Programs) -> None:
    """The second registers nothing, its check and its log name the first, and no pass of either repeats work."""
    first, behind = site.hosts[0], site.hosts[3]
    url = "http://127.0.0.6:"
    own_id, _ = cached(first, faulty, "api1")
    image_id, data = cached(behind, faulty)
    settle((behind.cache_dir / image_id).exists)
    assert behind.client().download(own_id).status_code == 200
    settle((behind.cache_dir / own_id).exists)
    out = programs.run("--config-file", behind.config_file, "check").out
    assert re.search(rf"error: host_url {url}\d+ is that of host api1, which lives", out), out
    assert "is that of host" not in programs.run("--config-file", first.config_file, "check").out
    assert f"registers no copies: host_url {url}" in behind.log()
    assert "api4" not in known(site)
    before = len(passes(first))
    time.sleep(2.5)
    assert not any("registered=0" not in one for one in passes(first)[before:] + passes(behind))
    programs.run("--config-file", behind.config_file, "janitor", "--once")
    assert (owners(site, own_id), owners(site, image_id)) == (["api1"], [])
    done = programs.run("--config-file", behind.config_file, "verify", own_id, image_id, "-f", "json")
    verdicts = [(row["Image"], row["Host"] or "", row["Verdict"]) for row in rows_of(done)]
    assert sorted(verdicts) == sorted([(own_id, "", "intact"), (own_id, "api1", "intact"), (image_id, "", "intact")])
    assert behind.client().download(image_id).content == data


def test_a_machine_with_another_name(site: GlanceSite, faulty: FaultyServer, programs: Programs) -> None:
    """After a restart under another host name the rows name it, others read from it, the old name is gone, no pass
    repeats work, and a copy that is asked for under the new name is found under it."""
    here, there = site.hosts[:2]
    images = [cached(there, faulty, "api2") for _ in range(2)]
    there.stop()
    there.configure(OFTEN)
    as_machine(there, "api2.example.com")
    there.wait_ready()
    settle(lambda: "api2.example.com" in known(site) and "api2" not in known(site), 30)
    for image_id, data in images:
        settle(lambda image_id=image_id: owners(site, image_id) == ["api2.example.com"])
        assert here.client().download(image_id).content == data
        assert site.backend_reads(image_id) == 1
    assert "host api2 is called api2.example.com now" in there.log()
    dead = programs.run("--config-file", here.config_file, "prune", "--dead-hosts", "--all", "-f", "json")
    assert rows_of(dead) == []
    before = len(passes(there))
    time.sleep(2.5)
    assert not any("registered=0" not in one for one in passes(there)[before:])
    words = ("--config-file", here.config_file)
    asked, _ = new_image(here, MIB)
    assert programs.run(*words, "copy", asked, "--to", "api2.example.com", "--wait").status == 0
    assert [row["Host"] for row in rows_of(programs.run(*words, "list", asked, "--kind", "cached", "-f", "json"))] == [
        "api2.example.com"
    ]
    assert "error: host_name" not in programs.run("--config-file", there.config_file, "check").out


def test_no_row_is_of_a_file_that_is_not_there(site: GlanceSite) -> None:
    """After all that every registration names a file in the directory of its host (promise 1)."""
    folders = {"api1": site.hosts[0].cache_dir, "api2.example.com": site.hosts[1].cache_dir}
    active = "SELECT image_id, meta_data FROM image_locations WHERE status = 'active' AND deleted = :no"
    rows = site.rows(active, no=False)
    found = [(row["image_id"], json.loads(row["meta_data"]).get("replica_host")) for row in rows]
    files = [Path(folders[host] / image_id) for image_id, host in found if host]
    assert files
    assert all(path.exists() for path in files)
