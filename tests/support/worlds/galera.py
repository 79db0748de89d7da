"""Hosts on the nodes of a Galera cluster, a store of files, and an image for each round; what is true in the end."""

import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from glance import context as glance_context
from glance.db.sqlalchemy import api as glance_api
from oslo_config import cfg
from services.databases.galera import Galera
from services.databases.schema import add_image, add_ledger
from services.glance.site import GlanceSite

from glance_replicas import settings
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.database.several_writers import RIVALS, Rivals, causal_reads
from glance_replicas.host.local_host import LocalHost
from glance_replicas.location import replica_url
from glance_replicas.model import Host, Image, Location, Result
from glance_replicas.stores import sources, writers
from glance_replicas.verdict import Evidence, Verdict

DATA = b"the bytes of an image" * 50
WRONG = DATA[::-1]
PARTS = ("first", "second", "third")  # durable copies
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Truth:
    """What is there of an image when all nodes agree."""

    is_deleted: bool
    urls: tuple[str, ...]  # of its active rows
    durable: frozenset[str]  # parts with a row
    intact: frozenset[str]  # of these, those whose file is right
    files: frozenset[str]  # hosts that have an intact file


class World:
    """Three hosts, each on its own node, and Glance's own database code on any."""

    def __init__(
        self, folder: Path, cluster: Galera, rivals: Rivals = RIVALS, through: Callable[[str], str] | None = None
    ) -> None:
        """With `through` hosts know their node's URL as that makes it."""
        site = GlanceSite(folder / "site")
        loaded = settings.load([str(site.add_host("127.0.0.2", start=False).config_file)])
        self.cluster, self._store = cluster, site.store_dir
        (self._store / "other").write_bytes(b"so that the store does not look unmounted")
        self.name = f"rounds_{next(_numbers)}"
        self.urls = [through(url) if through else url for url in cluster.create_glance(self.name)]
        add_ledger(self.urls[0])
        self.hosts = [
            self._host(folder, replace(loaded, database=url, ledger=url), number, rivals)
            for number, url in enumerate(self.urls, 1)
        ]
        self._truth = Catalogue(self.urls[0])
        self.sources, self.writers = sources.from_settings(loaded), writers.from_settings(loaded)
        self._ids = itertools.count(1)

    @staticmethod
    def _host(folder: Path, own: settings.Settings, number: int, rivals: Rivals) -> LocalHost:
        own = replace(
            own, host_name=f"api{number}", host_url=f"http://127.0.0.9:{number}", cache_dir=folder / str(number)
        )
        host = LocalHost.assemble(own, rivals)
        host.cache.prepare()
        return host

    def beat(self) -> None:
        """All hosts live."""
        for host in self.hosts:
            self.hosts[0].ledger.heartbeat(Host(host.settings.host_name, None, host.settings.host_url or ""))

    def image(self, durable: Collection[str], damaged: Collection[str], cached: Collection[int]) -> Image:
        """A new image with these copies in the store and on hosts, those `damaged` wrong; every node knows it."""
        name = f"60000000-0000-4000-8000-{next(self._ids):012d}"
        add_image(self.urls[0], name, DATA)
        for part in durable:
            self.path(name, part).write_bytes(WRONG if part in damaged else DATA)
            self._truth.add(name, f"file://{self.path(name, part)}", {"store": "fast"})
        for number in cached:
            self.put(number, name)
            self.hosts[number].full_reads.verified(self.now(name))
        return self.now(name)

    def path(self, image_id: str, part: str) -> Path:
        """The file of a durable copy."""
        return self._store / f"{image_id}-{part}"

    def put(self, number: int, image_id: str) -> None:
        """The host has the complete file, and no row of it yet."""
        cache, image = self.hosts[number].cache, self.now(image_id)
        if (partial_file := cache.partials.begin(image)) is not None:
            partial_file.append(DATA, 0)
            cache.partials.commit(partial_file, image)

    def evict(self, number: int) -> int:
        """The host makes room until nothing is left that may go; how many copies went."""
        eviction = self.hosts[number].eviction
        limit, eviction.max_bytes = eviction.max_bytes, 1
        try:
            return eviction.trim().copies
        finally:
            eviction.max_bytes = limit

    def now(self, image_id: str) -> Image:
        """The image as all nodes have it."""
        with causal_reads():
            image = self._truth.image(image_id)
        assert image is not None
        return image

    def durable(self, image: Image, part: str) -> Location:
        """The location of a durable copy."""
        return next(one for one in image.durable if one.url.endswith(f"-{part}"))

    def own(self, number: int, image: Image) -> Location:
        """A host's copy, registered or not."""
        host = self.hosts[number]
        url = replica_url(host.settings.host_url or "", image.id)
        found = [one for one in image.locations if one.url == url]
        return found[0] if found else Location(image.id, url, host.registration.metadata())

    def condemn(self, image: Image) -> None:
        """The ledger knows that every durable copy is corrupt."""
        found = [Result(one, Verdict.CORRUPT, Evidence.FULL) for one in image.durable]
        self.hosts[0].ledger.record(found)

    def truth(self, image_id: str) -> Truth:
        """Read on a node that has all that was committed, and from the disks."""
        image = self.now(image_id)
        is_deleted = image.status in ("deleted", "pending_delete")
        durable = {one.url.rpartition("-")[2] for one in image.durable} - {""}
        right = hashlib.sha256(DATA).digest()

        def is_right(path: Path) -> bool:
            return path.exists() and hashlib.sha256(path.read_bytes()).digest() == right

        intact = {part for part in durable if is_right(self.path(image_id, part))}
        files = {host.settings.host_name for host in self.hosts if is_right(host.cache.path(image_id))}
        urls = tuple(one.url for one in image.locations)
        return Truth(is_deleted, urls, frozenset(durable), frozenset(intact), frozenset(files))

    def forget(self, image_id: str) -> None:
        """Nothing of the image is on any disk."""
        for part in PARTS:
            self.path(image_id, part).unlink(missing_ok=True)
        for host in self.hosts:
            host.cache.complete.remove(image_id)

    @contextmanager
    def glance(self, number: int) -> Iterator[Callable[..., object]]:
        """Glance's own database code on this node: a call of it by name, as an administrator."""
        admin = glance_context.RequestContext(is_admin=True, roles=["admin"])
        cfg.CONF.set_override("connection", self.urls[number], "database")
        cfg.CONF.set_override("max_retries", 1, "database")
        glance_api.clear_db_env()
        try:
            yield lambda name, *values, **more: getattr(glance_api, name)(admin, *values, **more)
        finally:
            glance_api.get_engine().dispose()
            glance_api.clear_db_env()
            for option in ("connection", "max_retries"):
                cfg.CONF.clear_override(option, "database")

    def close(self) -> None:
        """No connection is left."""
        for host in self.hosts:
            host.close()
        self._truth.close()
