"""A site whose only store is Swift, for programs that Glance's hosts are not needed for."""

from pathlib import Path

from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.stores.swift import Swift

from support.programs import Done, Programs, Started

CONTAINER = "audited"


class Deep:
    """A site whose store `fast` is Swift, and whose Glance never runs."""

    def __init__(self, folder: Path, swift: Swift, programs: Programs) -> None:
        self.site = GlanceSite(folder, store="swift", swift=swift)
        self.host = self.site.add_host("127.0.0.2", start=False)
        self.host.configure({"fast": {"swift_store_container": CONTAINER}})
        self.swift, self.connection, self._programs = swift, swift.connection(), programs
        for container in (CONTAINER, swift.container, "segments"):
            self.connection.put_container(container)

    def run(self, *words: object) -> Done:
        return self.start(*words).wait()

    def start(self, *words: object) -> Started:
        return self._programs.start("--config-file", self.host.config_file, *words)

    def image(self, name: str, data: bytes, *urls: str, status: str = "active") -> None:
        """An image of these bytes with these locations."""
        add_image(self.site.database_url, name, data, status)
        for url in urls:
            self.site.add_location(name, url, {"store": "fast" if url.startswith("swift") else "web"})

    def names(self) -> set[str]:
        return {one["name"] for one in self.connection.get_container(CONTAINER)[1]}

    def close(self) -> None:
        for name in self.names():
            self.connection.delete_object(CONTAINER, name)
        self.connection.close()


def image_id(number: int) -> str:
    return f"a0000000-0000-4000-8000-{number:012d}"
