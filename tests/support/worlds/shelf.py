"""A real catalogue, a real ledger and a folder of files as the one store, without any server."""

import itertools
from pathlib import Path

from services.databases.schema import add_image, add_ledger, query

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host, Image, Location
from glance_replicas.removal.flow import Removal
from glance_replicas.removal.removal_facts import RemovalFacts, RemovalOrder
from glance_replicas.settings import default_ledger
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.sources import Sources

DATA = b"the bytes of an image" * 50


class Shelf:
    """Images are made with SQL; `reasons` and `removal` are what `replica prune` works with."""

    def __init__(self, folder: Path, database: str) -> None:
        self.store = folder / "store"
        self.store.mkdir()
        (self.store / "other").write_bytes(b"so that the store does not look unmounted")
        self.database = database
        self.ledger_url = default_ledger(database)
        add_ledger(self.ledger_url)
        self.catalogue, self.ledger = Catalogue(database), Ledger(self.ledger_url)
        self.reasons = RemovalFacts(self.catalogue, self.ledger, dead_after_seconds=3600)
        self.sources = Sources([file_reader.Reader([self.store])])
        self._numbers = itertools.count(1)
        self.alive("api1")

    def alive(self, *hosts: str) -> None:
        """These hosts have a heartbeat."""
        for name in hosts:
            self.ledger.heartbeat(Host(name, None, f"http://{name}:9292"))

    def image(self) -> str:
        """An active image without locations."""
        name = f"80000000-0000-4000-8000-{next(self._numbers):012d}"
        add_image(self.database, name, DATA)
        return name

    def add_file(self, image_id: str, data: bytes | None = DATA, name: str = "") -> Path:
        """One more durable location, of these bytes; None: without a file."""
        path = self.store / f"{image_id}-{name or next(self._numbers)}"
        if data is not None:
            path.write_bytes(data)
        self.catalogue.add(image_id, f"file://{path}", {"store": "fast"})
        return path

    def add_cached(self, image_id: str, host: str) -> None:
        """One more copy, on a host that nobody can reach."""
        metadata = {"replica_host": host, "store": "web"}
        self.catalogue.add(image_id, f"http://{host}:9292/replicas/{image_id}", metadata)

    def now(self, image_id: str) -> Image:
        """As the catalogue has it."""
        image = self.catalogue.image(image_id)
        assert image is not None
        return image

    def location(self, image_id: str, part: str) -> Location:
        """The one location whose URL has this in it."""
        (found,) = (one for one in self.now(image_id).locations if part in one.url)
        return found

    def removal(self, order: RemovalOrder) -> Removal:
        """What carries the order out."""
        return Removal(self.catalogue, self.ledger, self.sources, order, workers=2)

    def rows(self, image_id: str, *, deleted: bool = False) -> list[int]:
        """The ids of an image's locations."""
        text = "SELECT id FROM image_locations WHERE image_id = :image AND deleted = :deleted"
        return [one["id"] for one in query(self.database, text, image=image_id, deleted=deleted)]

    def set_deleted(self, row: int, deleted: bool) -> None:
        """A row is lost, or a stale save brings it back."""
        status = "deleted" if deleted else "active"
        text = "UPDATE image_locations SET deleted = :deleted, status = :status WHERE id = :row"
        query(self.database, text, row=row, deleted=deleted, status=status)

    def close(self) -> None:
        """No connection is left."""
        self.catalogue.close()
        self.ledger.close()
