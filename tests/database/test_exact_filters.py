"""Filters mean images of exactly that name, owner, tag and property, on every database, as rules do."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from services.databases.schema import add_image, query
from services.glance.site import GlanceSite
from support.programs import Programs

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.catalogue.selection import Selection
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host
from glance_replicas.prefetch.policy import Described
from glance_replicas.prefetch.rules import Match

pytest_plugins = ["support.desk"]

_ids = itertools.count(1)

NAMES = ("golden", "Golden", "GOLDEN", "golden ", "gölden", "gol_en", "golden\\")
TAGS = ("prod", "PROD", "prod ", "pród")
PROPERTIES = (("os_distro", "ubuntu"), ("os_distro", "Ubuntu"), ("OS_DISTRO", "ubuntu"), ("os_distro", "ubuntu "))
OWNERS = ("abc", "ABC", "abc ", "àbc")


def spelled(url: str) -> dict[str, dict[str, Any]]:
    """Images that differ in spelling alone, one each: Glance's unique keys on MariaDB tell no more apart."""
    rows: list[dict[str, Any]] = [
        *({"name": one} for one in NAMES),
        *({"tag": one} for one in TAGS),
        *({"property": one} for one in PROPERTIES),
        *({"owner": one} for one in OWNERS),
    ]
    images = {f"90000000-0000-4000-8000-{next(_ids):012d}": row for row in rows}
    for image, row in images.items():
        add_image(url, image, b"x")
        for column in ("name", "owner"):
            text = f"UPDATE images SET {column} = :value WHERE id = :id"
            query(url, text, value=row.get(column, "other"), id=image)
        stamp = "created_at, deleted) VALUES (:id, :value, CURRENT_TIMESTAMP, :no"
        if "tag" in row:
            text = f"INSERT INTO image_tags (image_id, value, {stamp})"
            query(url, text, id=image, value=row["tag"], no=False)
        if "property" in row:
            text = f"INSERT INTO image_properties (name, image_id, value, {stamp.replace('(:id', '(:name, :id')})"
            name, value = row["property"]
            query(url, text, id=image, name=name, value=value, no=False)
    return images


@pytest.fixture
def catalogue(glance_database_url: str) -> Iterator[Catalogue]:
    """The catalogue of these."""
    spelled(glance_database_url)
    with closing(Catalogue(glance_database_url)) as made:
        yield made


def test_one_image_each(catalogue: Catalogue) -> None:
    """Of every spelling one image is meant, the one that has it, by `images` and by `urls`; none by another."""
    wanted = [
        *((Selection(name=one), Match(name=(one,)) if one.isalpha() else None) for one in NAMES),
        *((Selection(tags=(one,)), Match(tag=(one,))) for one in TAGS),
        *((Selection(properties=(one,)), Match(property={one[0]: (one[1],)})) for one in PROPERTIES),
        *((Selection(owner=one), Match(owner=(one,))) for one in OWNERS),
    ]
    everything = list(catalogue.images())
    ids = [image.id for image in everything]
    tags, properties = catalogue.tags(ids), catalogue.properties(ids)
    described = [
        Described(image, tags.get(image.id, frozenset()), properties.get(image.id, {})) for image in everything
    ]
    found = []
    for selection, rule in wanted:
        (image,) = selection.find(catalogue, None)
        assert [[one for one, _ in page] for page in selection.urls(catalogue)] == [[image.id]]
        if rule:
            assert [one.image.id for one in described if rule(one, {})] == [image.id]
        found.append(image.id)
    assert len(set(found)) == len(wanted)
    for absent in (Selection(name="goldeN"), Selection(tags=("Prod",)), Selection(properties=(("os_distro", "x"),))):
        assert list(absent.find(catalogue, None)) == []


def test_programs_mean_one_image_each(glance_database_url: str, tmp_path: Path, programs: Programs) -> None:
    """`list` by name, tag, property and owner shows one image; `prune --cached` and `copy` by name take just that."""
    with GlanceSite(tmp_path / "site", glance_database_url) as site:
        host, ledger = site.add_host(start=False), Ledger(site.ledger_url)
        for name in ("api1", "api2"):
            ledger.heartbeat(Host(name, None, f"http://127.0.0.9:{name[-1]}"))
        ledger.close()
        images = spelled(glance_database_url)
        for image in images:
            site.store_file(image).write_bytes(b"x")
            site.add_location(image, f"file://{site.store_file(image)}", {"store": "fast"})
            site.add_location(image, f"http://127.0.0.9:1/replicas/{image}", {"replica_host": "api1", "store": "web"})

        def found(*words: str) -> list[str]:
            return [row["Image"] for row in programs.run("--config-file", host.config_file, *words, "-f", "json").rows]

        wanted = (("name", "golden"), ("tag", "prod"), ("property", "os_distro=ubuntu"), ("owner", "abc"))
        for (option, value), rows in zip(wanted, (NAMES, TAGS, PROPERTIES, OWNERS), strict=True):
            (image,) = set(found("list", f"--{option}", value))
            assert images[image] in ({option: value}, {option: rows[0]})
        golden = next(image for image, row in images.items() if row == {"name": "golden"})
        assert found("prune", "--name", "golden", "--cached", "--yes") == [golden]
        left = {image for image in images if len(site.locations(image)) == 2}
        assert left == images.keys() - {golden}
        assert found("copy", "--name", "golden", "--to", "api2") == [golden]
