"""`glance-scrubber --restore` of an image whose cached copies were taken away when it was deleted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import need
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from services.process import run
from support.programs import Programs
from support.worlds.scenes import new_image, settle

pytest_plugins = ["support.desk"]

OPTIONS = {
    "DEFAULT": {"delayed_delete": "true"},
    "replicas": {"janitor": "true", "janitor_interval_seconds": "1"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[GlanceSite]:
    """Two hosts of ours with delayed_delete, a janitor's pass each second."""
    url = postgres.create_glance("test_restored")
    with GlanceSite(tmp_path_factory.mktemp("site"), url, options=OPTIONS) as made:
        for number in (9, 10):
            made.add_host(f"127.0.0.{number}", processes=1, start=False).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


def scrub(host: GlanceHost, *words: str) -> None:
    """`glance-scrubber`, with these options."""
    run([need("glance-scrubber"), "--config-file", str(host.config_file), *words])


def everywhere(site: GlanceSite) -> tuple[str, bytes]:
    """An image in the store and on every host."""
    image_id, data = new_image(site.hosts[0], 70_000)
    for host in site.hosts:
        host.client().download(image_id)
    settle(lambda: len(site.locations(image_id)) == 1 + len(site.hosts))
    return image_id, data


def statuses(site: GlanceSite, image_id: str) -> dict[str, list[str]]:
    """The states of the image's location rows, by the scheme of their URL; of hosts' each state once.

    A host whose row a stale save of Glance's took registers anew: how many of its rows are deleted ones says nothing.
    """
    found: dict[str, list[str]] = {}
    for row in site.rows("SELECT value, status FROM image_locations WHERE image_id = :id ORDER BY id", id=image_id):
        states = found.setdefault(row["value"].split(":")[0], [])
        if not (row["value"].startswith("http") and row["status"] in states):
            states.append(row["status"])
    return found


@pytest.fixture(autouse=True)
def all_run(site: GlanceSite) -> None:
    """Every host runs."""
    for host in site.hosts:
        if not host.running():
            host.start()


@pytest.mark.parametrize("when", ["at once", "after the files went", "host B away"])
def test_restored_image_is_whole(site: GlanceSite, programs: Programs, when: str) -> None:
    """A restored image is served, its durable location is one again, for `list`, `verify` and the guard, too, and
    deleted once more nothing of it hangs."""
    one, other = site.hosts
    image_id, data = everywhere(site)
    if when == "host B away":
        other.stop()
    assert one.client().delete(image_id).status_code == 204
    assert statuses(site, image_id) == {"file": ["pending_delete"], "http": ["deleted"]}
    if when == "after the files went":
        settle(lambda: not any((host.cache_dir / image_id).exists() for host in site.hosts))
    scrub(one, "--restore", image_id)
    if when == "host B away":
        other.start()
    settle(lambda: statuses(site, image_id)["file"] == ["active"])
    for host in site.hosts:
        assert host.client().download(image_id).content == data
    settle(lambda: len(site.locations(image_id)) == 3)
    done = programs.run("--config-file", one.config_file, "verify", image_id, "-f", "json")
    found = [(row["Store"], row["Host"] or "", row["Verdict"]) for row in json.loads(done.out)]
    assert sorted(found) == [("fast", "", "intact"), *(("web", host.name, "intact") for host in site.hosts)]
    done = programs.run("--config-file", one.config_file, "list", image_id)
    assert (done.status, "no durable copy" in done.out + done.err) == (0, False), done
    refused = one.client().request("DELETE", f"/v2/stores/fast/{image_id}")
    assert refused.status_code == 409
    assert one.client().delete(image_id).status_code == 204
    scrub(one)
    assert "pending_delete" not in [state for states in statuses(site, image_id).values() for state in states]
    assert site.rows("SELECT status FROM images WHERE id = :id", id=image_id)[0]["status"] == "deleted"
    assert not Path(site.store_file(image_id)).exists()


def test_what_the_scrubber_took_is_gone(site: GlanceSite) -> None:
    """An image that was scrubbed cannot be restored, and no host brings anything of it back."""
    one, other = site.hosts
    image_id, _ = everywhere(site)
    other.stop()
    assert one.client().delete(image_id).status_code == 204
    scrub(one)
    other.start()
    settle(lambda: not (other.cache_dir / image_id).exists())
    assert statuses(site, image_id) == {"file": ["deleted"], "http": ["deleted"]}
    assert one.client().download(image_id).status_code == 404
