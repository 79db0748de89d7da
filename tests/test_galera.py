"""The Galera service: what one node writes all have. `database/test_several_writers.py` takes nodes away."""

from services import eventually
from services.databases.galera import Galera
from services.databases.schema import add_image, query

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
