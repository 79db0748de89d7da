"""Images without a byte, as snapshots of volumes are: intact, restored from nothing, and no night is red for them."""

import hashlib
from pathlib import Path

import pytest
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.stores.ceph import Ceph
from services.stores.swift import Swift
from support.programs import Desk

from glance_replicas import settings
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.stores.sources import from_settings
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

pytest_plugins = ["support.desk"]


def without_digest(desk: Desk, image: str) -> None:
    """As images of the first API are."""
    text = "UPDATE images SET checksum = NULL, os_hash_algo = NULL, os_hash_value = NULL WHERE id = :id"
    desk.site.rows(text, id=image)


@pytest.mark.parametrize("evidence", [str(one) for one in Evidence])
@pytest.mark.parametrize("digest", [True, False])
def test_an_empty_image_is_intact(desk: Desk, evidence: str, digest: bool) -> None:
    """By every evidence, status 0, with a digest of nothing or without one."""
    image = desk.image(b"", block_device_mapping="[]")
    if not digest:
        without_digest(desk, image)
    assert desk.run("verify", image, "--evidence", evidence).status == 0
    assert [row["Verdict"] for row in desk.run("list", image, "-f", "json").rows] == ["intact"]


@pytest.mark.parametrize("store", ["swift", "s3", "rbd"])
def test_in_every_store(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What Glance writes for nothing, in one request or in chunks, is intact there by every evidence."""
    swift: Swift | None = None if store == "rbd" else request.getfixturevalue("swift")
    ceph: Ceph | None = request.getfixturevalue("ceph") if store == "rbd" else None
    with GlanceSite(tmp_path / "site", store=store, swift=swift, ceph=ceph) as site:
        host = site.add_host(pipeline="stock", processes=1)
        images = [host.client().create("empty", body)["id"] for body in (b"", iter([b""]))]
        sources = from_settings(settings.load([str(host.config_file)]))
        catalogue = Catalogue(site.database_url)
        for image_id in images:
            image = catalogue.image(image_id)
            assert image is not None
            assert len(image.locations) == 1
            found = {evidence: probe(sources, image, image.locations[0], evidence) for evidence in Evidence}
            assert {one.verdict for one in found.values()} == {Verdict.INTACT}, found
        catalogue.close()


def test_without_a_location_it_is_no_damage(desk: Desk) -> None:
    """Glance sends nothing for it, which is right: no command calls it lost, and `verify` of it alone is status 0."""
    image = "70000000-0000-4000-8000-000000000001"
    add_image(desk.site.database_url, image, b"")
    for words in ("verify", "repair", "list", "prune"):
        done = desk.run(words, image)
        assert done.status == 0, done.err
        assert "no location" not in done.err
    assert "1 empty, without a location" in desk.run("verify", image).out
    assert desk.host.client().download(image).status_code == 204
    lost = "70000000-0000-4000-8000-000000000002"
    add_image(desk.site.database_url, lost, b"x")
    assert desk.run("verify", lost).status == 1
    text = "UPDATE images SET status = 'deleted', deleted = :yes WHERE id = :id"
    desk.site.rows(text, yes=True, id=lost)  # the site is others' too


@pytest.mark.parametrize(("damage", "verdict"), [(b"!", "wrong_size"), (None, "missing")])
def test_damage_is_repaired_from_nothing(desk: Desk, damage: bytes | None, verdict: str) -> None:
    """One byte too many, or no file: named as that, and repaired without any other copy by the command it names."""
    image = desk.image(b"")
    path = desk.site.store_file(image)
    path.chmod(0o640)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    done = desk.run("verify", image)
    assert (done.status, f": {verdict} " in done.out) == (1, True)
    assert f"next: replica repair {image}, which needs no other copy" in done.out
    plan = desk.run("repair", image, "-f", "json").rows
    assert [(row["Action"], row["Before"]) for row in plan] == [("restore", verdict)]
    assert desk.run("repair", image, "--yes").status == 0
    assert path.read_bytes() == b""
    assert desk.run("verify", image).status == 0


def test_nothing_is_made_of_a_digest_of_something(desk: Desk) -> None:
    """An empty image whose digest is not that of nothing was never empty: nothing is written."""
    image = desk.image(b"")
    desk.site.store_file(image).write_bytes(b"!")
    text = "UPDATE images SET os_hash_value = :value WHERE id = :id"
    desk.site.rows(text, value=hashlib.sha512(b"!").hexdigest(), id=image)
    assert desk.run("repair", image, "--yes").status == 1
    assert desk.site.store_file(image).read_bytes() == b"!"


def test_it_is_asked_for_nowhere(desk: Desk) -> None:
    """`copy --to` says why not, and leaves no request."""
    image = desk.image(b"")
    desk.run("copy", image, "--to", "api1")
    assert desk.run("copy", "list", image, "-f", "json").rows == []


def test_report_and_audit(desk: Desk) -> None:
    """Verified once an empty image makes no night red: `report` is status 0, and `audit` holds its file for no other's;
    the same of images of one byte and of odd sizes."""
    images = [desk.image(bytes(size), block_device_mapping="[]") for size in (0, 0, 1, 511, 4097)]
    assert desk.run("verify", *images).status == 0
    done = desk.run("report", *images)
    assert (done.status, done.err) == (0, ""), done.out
    found = desk.run("audit", "--store", "fast", "--grace", "0s", "-f", "json").rows
    assert not {str(desk.site.store_file(image)) for image in images} & {row["Name"] for row in found}
    assert not set(images) & {row["Image"] for row in found}
