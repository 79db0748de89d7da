"""Filters mean images of exactly that name, owner, tag and property, on every database, as rules do."""

import itertools
from collections.abc import Iterator
from contextlib import closing

import pytest
from services.databases.schema import add_image, query

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.catalogue.selection import Selection
from glance_replicas.prefetch.policy import Described
from glance_replicas.prefetch.rules import Match

_ids = itertools.count(1)

NAMES = ("golden", "Golden", "GOLDEN", "golden ", "gölden", "gol_en", "golden\\")
TAGS = ("prod", "PROD", "prod ", "pród")
PROPERTIES = (("os_distro", "ubuntu"), ("os_distro", "Ubuntu"), ("OS_DISTRO", "ubuntu"), ("os_distro", "ubuntu "))
OWNERS = ("abc", "ABC", "abc ", "àbc")


@pytest.fixture
def catalogue(glance_database_url: str) -> Iterator[Catalogue]:
    """Images that differ in spelling alone, one each: Glance's unique keys on MariaDB tell no more apart."""
    rows = [
        *({"name": one} for one in NAMES),
        *({"tag": one} for one in TAGS),
        *({"property": one} for one in PROPERTIES),
        *({"owner": one} for one in OWNERS),
    ]
    for row in rows:
        image = f"90000000-0000-4000-8000-{next(_ids):012d}"
        add_image(glance_database_url, image, b"x")
        for column in ("name", "owner"):
            text = f"UPDATE images SET {column} = :value WHERE id = :id"
            query(glance_database_url, text, value=row.get(column, "other"), id=image)
        stamp = "created_at, deleted) VALUES (:id, :value, CURRENT_TIMESTAMP, :no"
        if "tag" in row:
            text = f"INSERT INTO image_tags (image_id, value, {stamp})"
            query(glance_database_url, text, id=image, value=row["tag"], no=False)
        if "property" in row:
            text = f"INSERT INTO image_properties (name, image_id, value, {stamp.replace('(:id', '(:name, :id')})"
            name, value = row["property"]
            query(glance_database_url, text, id=image, name=name, value=value, no=False)
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
