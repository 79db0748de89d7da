"""A real Glance with several Swift stores at once, its locations encrypted: each image is found in its own store."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from services.glance.client import OCTETS
from services.glance.site import GlanceHost, GlanceSite
from services.stores.swift import Swift
from services.web.faulty import FaultyServer
from support.places.readers import LIMITS
from support.programs import Programs

from glance_replicas import settings
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.model import Image
from glance_replicas.stores.sources import Sources, from_settings
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

pytest_plugins = ["support.desk"]

DATA = random.Random(13).randbytes(2_500_000)
KEY = "0123456789abcdef0123456789abcdef"
FULL, STORED, SIZE = Evidence.FULL, Evidence.STORED, Evidence.SIZE


@pytest.fixture(scope="module")
def host(swift: Swift, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """Stores `fast` (plain objects), `large` (DLOs of segments of a megabyte), `named` (credentials in a file)."""
    folder = tmp_path_factory.mktemp("stores")
    plain = swift.store_options()
    reference = {name: plain[f"swift_store_{name}"] for name in ("user", "key", "auth_address", "auth_version")}
    reference |= {"project_domain_id": "default", "user_domain_id": "default"}
    lines = "\n".join(f"{name} = {value}" for name, value in reference.items())
    (folder / "swift.conf").write_text(f"[cloud]\n{lines}\n")
    options = {
        "DEFAULT": {
            "enabled_backends": "fast:swift, large:swift, named:swift, web:http",
            "metadata_encryption_key": KEY,
        },
        "large": swift.store_options(large_object_mb=1, chunk_mb=1) | {"swift_store_container": "glance-large"},
        "named": {
            "swift_store_config_file": str(folder / "swift.conf"),
            "default_swift_reference": "cloud",
            "swift_store_container": "glance-named",
            "swift_store_create_container_on_put": "true",
        },
    }
    with GlanceSite(folder / "site", store="swift", swift=swift, options=options) as site:
        yield site.add_host(pipeline="stock", processes=1)


@pytest.fixture(scope="module")
def sources(host: GlanceHost) -> Sources:
    """Sources of that configuration."""
    return from_settings(settings.load([str(host.config_file)]), limits=LIMITS)


def upload(host: GlanceHost, store: str, data: bytes, *, streamed: bool = False) -> Image:
    """An image in this store, as our catalogue has it."""
    client = host.client()
    image_id = str(client.create()["id"])
    body = iter([data]) if streamed else data
    headers = OCTETS | {"X-Image-Meta-Store": store}
    client.request("PUT", f"/v2/images/{image_id}/file", data=body, headers=headers, ok=True)
    catalogue = Catalogue(host.site.database_url, KEY)
    try:
        image = catalogue.image(image_id)
    finally:
        catalogue.close()
    assert image is not None
    assert image.digest is not None
    assert image.digest.value == hashlib.sha512(data).hexdigest()
    return image


@pytest.mark.parametrize(
    ("case", "scheme", "evidence"),
    [
        (("fast", DATA, False), "swift+http", STORED),
        (("large", DATA, True), "swift+http", SIZE),  # a DLO of three segments
        (("large", DATA[:5000], True), "swift+http", STORED),  # of one
        (("named", DATA[:5000], False), "swift+config", STORED),
    ],
    ids=["plain", "large", "one segment", "swift+config"],
)
def test_store(
    host: GlanceHost, sources: Sources, case: tuple[str, bytes, bool], scheme: str, evidence: Evidence
) -> None:
    """What Glance wrote, in whichever way, is intact by all bytes, and by what Swift says of it."""
    store, data, streamed = case
    image = upload(host, store, data, streamed=streamed)
    [one] = image.locations
    assert (one.store, one.url.partition(":")[0]) == (store, scheme)
    [row] = host.site.rows("SELECT value FROM image_locations WHERE image_id = :image", image=image.id)
    assert "swift" not in row["value"]
    found = [probe(sources, image, one, wanted) for wanted in (FULL, STORED)]
    assert [(result.verdict, result.evidence) for result in found] == [
        (Verdict.INTACT, FULL),
        (Verdict.INTACT, evidence),
    ]


def test_damage(host: GlanceHost, sources: Sources, swift: Swift) -> None:
    """Damage in one store is found there, and the same image id in the others changes nothing."""
    image = upload(host, "named", DATA[:5000])
    connection = swift.connection()
    connection.put_object("glance-named", image.id, DATA[5000:10000])
    connection.put_object(swift.container, image.id, DATA[:5000])
    for evidence in (FULL, STORED):
        assert probe(sources, image, image.locations[0], evidence).verdict is Verdict.CORRUPT
    connection.delete_object("glance-named", image.id)
    assert probe(sources, image, image.locations[0], FULL).verdict is Verdict.MISSING


@pytest.mark.parametrize("metadata", [{}, {"backend": "large"}, {"store": "gone"}], ids=["none", "old key", "renamed"])
def test_rows_that_name_no_store_there_is(
    host: GlanceHost, sources: Sources, swift: Swift, metadata: dict[str, str]
) -> None:
    """A row from before multi-store, or of a renamed store, is found by account and container, and in no other."""
    for store in ("fast", "large", "named"):
        image = upload(host, store, DATA[:5000])
        old = replace(image.locations[0], metadata=metadata)
        assert probe(sources, image, old, FULL).verdict is Verdict.INTACT, store
    connection = swift.connection()
    connection.put_object(swift.container, image.id, DATA[:5000])
    connection.delete_object("glance-named", image.id)
    assert probe(sources, image, old, FULL).verdict is Verdict.MISSING
    elsewhere = replace(old, url=old.url.replace("glance-named", "glance-of-old"))
    found = probe(sources, image, elsewhere, FULL)
    assert found.verdict is Verdict.UNSUPPORTED
    assert f"let its owner or an admin GET /v2/images/{image.id}" in found.detail


def test_programs_and_rows_that_name_no_store(
    host: GlanceHost, swift: Swift, programs: Programs, faulty: FaultyServer
) -> None:
    """Of rows from before multi-store, with an old key and of a renamed store `verify` says intact and damaged rightly,
    `prune` and `repair` plan against the damaged ones alone, which are restored, and to `audit` what they mean is not
    dark, also where a user wrote another store into the row, and lost once it is gone."""
    site, data, images = host.site, DATA[:5000], {}
    for metadata in ({}, {"backend": "large"}, {"store": "gone"}, {"store": "fast"}):
        image_id = upload(host, "large", data).id
        text = "UPDATE image_locations SET meta_data = :text WHERE image_id = :image"
        site.rows(text, text=json.dumps(metadata), image=image_id)
        images[image_id] = faulty.put(f"/{image_id}", data)
    words = ("--config-file", host.config_file)
    bad, _, renamed, another = images
    named = images.keys() - {another}

    def verdicts(*more: str) -> list[str]:
        return [row["Verdict"] for row in programs.run(*words, "verify", *named, *more, "-f", "json").rows]

    for evidence in ("size", "stored", "sample", "full"):
        assert verdicts("--evidence", evidence) == ["intact"] * 3
    assert programs.run(*words, "prune", *named, "-f", "json").rows == []
    swift.connection().put_object("glance-large", bad, data[::-1])
    assert sorted(verdicts()) == ["corrupt", "intact", "intact"]
    catalogue = Catalogue(site.database_url, KEY)
    for image_id, url in images.items():
        catalogue.add(image_id, url, {"store": "web"})
    catalogue.close()
    for command in ("prune", "repair"):
        assert [row["Image"] for row in programs.run(*words, command, *named, "-f", "json").rows] == [bad]
    done = programs.run(*words, "repair", *named, "--yes", "-f", "json")
    assert [row["Action"] for row in done.rows] == ["restored"]
    assert verdicts() == ["intact"] * 6

    def audited(store: str) -> dict[str, str]:
        rows = programs.run(*words, "audit", "--store", store, "--grace", "0s", "-f", "json").rows
        return {row["Image"]: row["Kind"] for row in rows if row["Image"] in images}

    assert (audited("large"), audited("fast")) == ({}, {})
    for gone in (renamed, another):
        swift.connection().delete_object("glance-large", gone)
    assert audited("large") == {renamed: "lost"}
