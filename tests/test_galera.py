"""The Galera service: what a node writes all have, and nodes are taken away and come back."""

import pytest
import sqlalchemy as sa
from services import eventually
from services.galera import Galera
from services.schema import add_image, query

IMAGE = "90000000-0000-4000-8000-000000000001"


def ids(url: str) -> list[str]:
    return [row["id"] for row in query(url, "SELECT id FROM images")]


def test_what_one_node_writes_all_have(galera: Galera) -> None:
    """Glance's tables and a row of them, made through one node, are there through each."""
    urls = galera.create_glance("smoke")
    add_image(urls[1], IMAGE, b"x")
    for url in urls:
        assert eventually(lambda url=url: ids(url)) == [IMAGE]  # type: ignore[misc]
    assert {node.status("wsrep_cluster_size") for node in galera.nodes} == {"3"}


def test_a_minority_refuses_and_comes_back(galera: Galera) -> None:
    """A node that is cut off refuses reads, too; after that it has what the others wrote meanwhile."""
    urls, last = galera.create_glance("smoke_cut"), galera.nodes[2]
    last.isolate()
    try:
        with pytest.raises(sa.exc.OperationalError, match="1047"):
            ids(urls[2])
        assert eventually(lambda: galera.nodes[0].status("wsrep_cluster_size") == "2", 30)
        add_image(urls[0], IMAGE, b"x")
    finally:
        last.rejoin()
    assert ids(urls[2]) == [IMAGE]


def test_a_killed_node_comes_back(galera: Galera) -> None:
    """What was written while a node was dead it has when it is back."""
    urls, last = galera.create_glance("smoke_killed"), galera.nodes[2]
    last.kill()
    assert eventually(lambda: galera.nodes[0].status("wsrep_cluster_size") == "2", 30)
    add_image(urls[0], IMAGE, b"x")
    last.start()
    assert ids(urls[2]) == [IMAGE]
