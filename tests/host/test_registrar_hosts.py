"""`registrar = ledger` on two running hosts: nothing of ours in Glance's tables, and everything works as with it."""

from collections.abc import Iterator

import pytest
from services.databases.servers import Postgres
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Programs
from support.worlds.scenes import new_image, settle

pytest_plugins = ["support.desk"]

SIZE = (2 << 20) + 5


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[list[GlanceHost]]:
    """Two hosts without an http store: they need none."""
    options = {"replicas": {"registrar": "ledger", "signing_keys": "k1:" + "0" * 32}}
    with GlanceSite(tmp_path_factory.mktemp("site"), postgres.create_glance("registrar_hosts")) as made:
        for number in (2, 3):
            made.add_host(f"127.0.0.{number}", options=options, start=False).start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        made.wait_known()
        yield made.hosts


def shown(host: GlanceHost, image_id: str) -> list[str]:
    """The hosts of the copies that a host shows to a client."""
    found = host.client().request("GET", f"/v2/images/{image_id}/replicas").json()
    return sorted(copy["host"] for copy in found["replicas"] if copy["host"])


def test_the_whole_loop(hosts: list[GlanceHost], programs: Programs, faulty: FaultyServer) -> None:
    """Fill, read from the other host, list, verify, prune, delete: Glance's table has one location all the time."""
    one, two = hosts
    image_id, data = new_image(one, SIZE)
    one.site.move_to(faulty, image_id)
    assert one.client().download(image_id).content == data
    settle(lambda: shown(two, image_id) == [one.name])
    reads = faulty.reads(f"/{image_id}")
    assert two.client().download(image_id).content == data
    settle(lambda: shown(one, image_id) == sorted([one.name, two.name]))
    assert faulty.reads(f"/{image_id}") == reads, "the other host had it"
    listed = programs.run("--config-file", one.config_file, "list", image_id, "-f", "json")
    assert sorted(row["Host"] for row in listed.rows if row["Kind"] == "cached") == sorted([one.name, two.name])
    verified = programs.run("--config-file", one.config_file, "verify", image_id, "-f", "json")
    assert (verified.status, {row["Verdict"] for row in verified.rows}) == (0, {"intact"})
    assert len(verified.rows) == 3
    pruned = programs.run(
        "--config-file", one.config_file, "prune", image_id, "--host", two.name, "--yes", "-f", "json"
    )
    assert pruned.status == 0, pruned.err
    assert shown(one, image_id) == [one.name], "at once, whenever its host removes the file"
    settle(lambda: not (two.cache_dir / image_id).exists(), 30)
    assert len(one.site.locations(image_id)) == 1
    two.client().delete(image_id)
    settle(lambda: not (one.cache_dir / image_id).exists(), 90)
    there = "SELECT * FROM replica_cached WHERE gone_at IS NULL AND image_id = :id"
    assert one.site.ledger_rows(there, id=image_id) == []
