"""Rows of our own tables that no program of ours wrote: one of them stops neither a host nor a document."""

import pytest
from services.glance.site import GlanceHost, GlanceSite
from support.programs import Done, replica
from support.worlds.cached import keep
from support.worlds.scenes import new_image, settle

NEVER = "not a moment"
REMOVAL = (
    "INSERT INTO replica_withdrawals (image_id, place, url, host, reason, who, proof, requested_at) "
    "VALUES (:image, 'p', 'u', 'api1', 'r', 'w', '[not json', '2026-01-01 00:00:00.000000')"
)
COPY = (
    "INSERT INTO replica_copies (image_id, host, state, priority, pin, who, requested_at, attempts, bytes, detail) "
    "VALUES (:image, 'api1', 'waiting', 1, false, 'w', :moment, 0, 0, '')"
)


@pytest.fixture
def host(site: GlanceSite) -> GlanceHost:
    """A host whose janitor runs only when a test says so."""
    made = site.add_host(processes=1, options={"replicas": {"janitor": "false"}})
    assert run(made, "janitor", "--once").status == 0
    return made


def run(host: GlanceHost, *words: str) -> Done:
    return replica().run("--config-file", host.config_file, *words)


@pytest.mark.parametrize("image", ["../../etc/passwd", "no image id", ""])
def test_a_removal_of_no_image(host: GlanceHost, image: str) -> None:
    """It is closed, and the pass goes on: a file without a row has one afterwards."""
    kept, data = new_image(host, 5000)
    keep(host.cache_dir / kept, data)
    host.site.ledger_rows(REMOVAL, image=image)
    done = run(host, "janitor", "--once")
    assert (done.status, "registered: 1" in done.out) == (0, True), done.out + done.err
    assert len(host.site.locations(kept)) == 2
    assert host.site.ledger_rows("SELECT id FROM replica_withdrawals WHERE finished_at IS NULL") == []


def test_a_moment_that_is_none(host: GlanceHost) -> None:
    """Each step that reads it says so and does nothing; all others are done, and downloads go on."""
    kept, data = new_image(host, 5000)
    keep(host.cache_dir / kept, data)
    host.site.ledger_rows(COPY, image=kept, moment=NEVER)
    done = run(host, "janitor", "--once")
    assert "registered: 1" in done.out, done.out + done.err
    assert NEVER in done.err
    listed = run(host, "copy", "list")
    assert (listed.status, "internal" in listed.err, NEVER in listed.err) == (3, False, True)
    assert host.client().download(kept).content == data
    assert host.client().request("GET", "/v2/cache").status_code == 200


@pytest.mark.parametrize("table", ["hosts SET heartbeat", "states SET checked_at"])
def test_a_document_without_what_cannot_be_read(host: GlanceHost, table: str) -> None:
    """The document of an image, and a download, do without what the ledger cannot say."""
    image, data = new_image(host, 5000)
    assert host.client().download(image).content == data
    settle(lambda: len(host.site.locations(image)) == 2)
    settle(lambda: len(host.site.ledger_rows("SELECT place FROM replica_states")) == 1)
    host.site.ledger_rows(f"UPDATE replica_{table} = :moment", moment=NEVER)
    host.restart()
    answer = host.client().request("GET", f"/v2/images/{image}/replicas")
    assert answer.status_code == 200, answer.text
    assert [one["host"] for one in answer.json()["replicas"] if one["kind"] == "cached"] == [host.name]
    assert host.client().download(image).content == data
