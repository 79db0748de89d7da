"""Nobody gets what plain Glance refuses, nor is refused what it gives: every role, state, visibility and path."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.databases.servers import Postgres
from services.glance.site import GlanceSite
from services.stores.keystone import Keystone
from support import ROOT
from support.access_table import Asker, Cell, Hosts, People, collected, make_images

PAGE = ROOT / "docs" / "access.md"
MARK = "<!-- What follows is written by tests/access/test_access_table.py. -->\n"
STOCK = "cors http_proxy_to_wsgi versionnegotiation authtoken context rootapp"
RESTRICTED = '"download_image": "role:admin or (role:member and project_id:%(owner)s)"\n'
DEFAULTS = {"new": "true", "legacy": "false"}
POLICIES = {"default policy": "{}\n", "download_image restricted": RESTRICTED}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, keystone: Keystone, postgres: Postgres
) -> Iterator[dict[str, Asker]]:
    """All cells of all four configurations, asked."""
    found: dict[str, Asker] = {}
    database = postgres.create_glance("access_table")
    with GlanceSite(tmp_path_factory.mktemp("site"), database, options=options(keystone)) as site:
        policy = site.folder / "policy.yaml"
        for defaults, new in DEFAULTS.items():
            policy.write_text(POLICIES["default policy"])
            hosts = started(site, policy, defaults, new)
            people = People(keystone, defaults)
            held = make_images(hosts, people, hosts.ours)
            elsewhere = make_images(hosts, people, hosts.peer)
            for name, text in POLICIES.items():
                policy.write_text(text)
                asker = found[f"{name}, {defaults} defaults"] = Asker(hosts, people)
                asker.ask(held, elsewhere)
            for host in (hosts.ours, hosts.peer, hosts.stock):
                host.kill()
        yield found


def options(keystone: Keystone) -> dict[str, dict[str, str]]:
    auth = {
        "auth_type": "password",
        "auth_url": keystone.auth_url,
        "www_authenticate_uri": keystone.auth_url,
        "username": keystone.user,
        "password": keystone.password,
        "project_name": keystone.project,
        "user_domain_id": "default",
        "project_domain_id": "default",
    }
    return {"keystone_authtoken": auth, "DEFAULT": {"show_multiple_locations": "true"}}


def started(site: GlanceSite, policy: Path, defaults: str, new: str) -> Hosts:
    """Three hosts with these defaults; plain Glance has a cache directory, so that it answers cache calls."""
    rules = {
        "replicas": {"janitor_interval_seconds": "3600"},  # files come and go here, behind its back
        "oslo_policy": {"policy_file": str(policy), "enforce_new_defaults": new, "enforce_scope": new},
    }
    pipelines = {"ours": "keystone+replicas", "peer": "keystone+replicas", "stock": STOCK}
    made = {}
    for number, (name, pipeline) in enumerate(pipelines.items(), 2):
        made[name] = site.add_host(
            f"127.0.0.{number}",
            name=f"{name}-{defaults}",
            processes=1,
            threads=16,
            pipeline=pipeline,
            options=rules,
            start=False,
        ).start(wait=False)
    for host in made.values():
        host.wait_ready()
    site.wait_known()
    return Hosts(site, **made)


def test_every_path_answers_as_plain_glance(runs: dict[str, Asker]) -> None:
    """Hit, range, fill, follow, peer, document, Metalink, signed URLs, cache calls: no cell differs."""
    wrong = [f"{title}: {one}" for title, asker in runs.items() for one in asker.wrong]
    assert not wrong, "\n".join([f"{len(wrong)} differ", *wrong[:100]])
    assert all(asker.asked > 1500 for asker in runs.values())


def test_the_cells_differ(runs: dict[str, Asker]) -> None:
    """The table can tell: each configuration has its own answers, and each role, but for those that get nothing."""
    tables = [asker.answers for asker in runs.values()]
    assert len({tuple(sorted(one.items())) for one in tables}) >= 3
    first: dict[Cell, int] = tables[0]
    assert {first["admin", "deactivated", "private"], first["member", "active", "private"]} == {200}
    assert first["stranger", "active", "private"] == first["removed", "active", "accepted"] == 404
    assert first["guest", "active", "accepted"] == 200
    assert first["dismissed", "active", "public"] == 401


def test_page(runs: dict[str, Asker]) -> None:
    """docs/access.md has the table as it came out (ACCESS_TABLE=write writes it)."""
    tables = collected({title: asker.answers for title, asker in runs.items()}) + "\n"
    head, _, written = PAGE.read_text().partition(MARK)
    if os.environ.get("ACCESS_TABLE") == "write":
        PAGE.write_text(head + MARK + tables)
    else:
        assert written == tables
