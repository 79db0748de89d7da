"""Which host has which image: one row for each cached copy, the truth that peers, tools and passes read.

Glance's own table carries a few of them (`host.registration`). A row is written before the copy is registered there,
and ends before its file goes. A row that ended stays for a day: until then Glance may bring the registration back,
by a save of what it read before (docs/glance.md), and the host's pass looks for that.

Every method raises LedgerError when the ledger cannot be asked.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from .. import location
from ..database.chunks import chunks, distinct
from ..database.dialect import clock, upsert
from ..model import HOST_KEY, ZONE_KEY, Location
from .schema.connection import LedgerDatabase
from .schema.tables import cached, hosts

COUNTED_SECONDS = 2 * 86400.0  # how long a host's rows count as complete: it counts them once a day
_ENDED_DAYS = 1
_there = cached.c.gone_at.is_(None)


class CachedCopies:
    """Safe for threads and after a fork."""

    def __init__(self, ledger_database: LedgerDatabase) -> None:
        self._database = ledger_database

    def add(self, host: str, image_ids: Collection[str]) -> int:
        """The host has these images; how many of them were not known to be there."""
        new = sorted(set(image_ids) - self.of_host(host, image_ids))
        for part in chunks(new):

            def work(connection: sa.Connection, part: list[str] = part) -> None:
                row = {"host": host, "since": clock(connection), "gone_at": None}
                upsert(connection, cached, [row | {"image_id": image_id} for image_id in part])

            self._database.write(work)
        return len(new)

    def end(self, host: str, image_ids: Collection[str]) -> int:
        """The host has none of these any more; how many of them it had."""
        ended = 0
        for part in distinct(image_ids):
            these = cached.update().where(cached.c.host == host, cached.c.image_id.in_(part), _there)

            def work(connection: sa.Connection, these: sa.Update = these) -> int:
                return connection.execute(these.values(gone_at=clock(connection))).rowcount

            ended += self._database.write(work)
        return ended

    def end_copy(self, copy: Location) -> None:
        """The copy at this URL is none any more; whose it is our own table says, for users write metadata, too."""
        for found in self.of_images([copy.image_id]).get(copy.image_id, ()):
            if found.url == copy.url and found.host is not None:
                self.end(found.host, [copy.image_id])

    def of_host(self, host: str, image_ids: Collection[str] | None = None) -> set[str]:
        """The images that the host has; of these only."""
        wanted = sa.select(cached.c.image_id).where(cached.c.host == host, _there)
        if image_ids is None:
            return {image_id for (image_id,) in self._database.tuples(wanted)}
        parts = (self._database.tuples(wanted.where(cached.c.image_id.in_(part))) for part in distinct(image_ids))
        return {image_id for rows in parts for (image_id,) in rows}

    def ever_of_host(self, host: str) -> set[str]:
        """The images that the host has, and those it had until a day ago."""
        return {
            image_id for (image_id,) in self._database.tuples(sa.select(cached.c.image_id).where(cached.c.host == host))
        }

    def of_images(self, image_ids: Collection[str]) -> Mapping[str, list[Location]]:
        """The copies of these images on hosts that the ledger knows, by image; at the URLs of those hosts, by name."""
        known = cached.join(hosts, hosts.c.name == cached.c.host)
        wanted = sa.select(cached.c.image_id, hosts.c.name, hosts.c.zone, hosts.c.url).select_from(known).where(_there)
        found: dict[str, list[Location]] = {}
        for part in distinct(image_ids):
            rows = self._database.tuples(wanted.where(cached.c.image_id.in_(part)).order_by(hosts.c.name))
            for image_id, name, zone, url in rows:
                metadata = {HOST_KEY: name, ZONE_KEY: zone} if zone else {HOST_KEY: name}
                found.setdefault(image_id, []).append(Location(image_id, location.replica_url(url, image_id), metadata))
        return found

    def counted(self, host: str) -> None:
        """The rows of the host are all there: what Glance's table has of it was read in whole just now."""
        this = hosts.update().where(hosts.c.name == host)
        self._database.write(lambda connection: connection.execute(this.values(counted_at=clock(connection))))

    def counted_seconds(self, host: str | None = None) -> Mapping[str, float]:
        """Seconds since each host's rows were counted last, of those that ever did; of this host only."""
        wanted = sa.select(hosts.c.name, hosts.c.counted_at).where(hosts.c.counted_at.is_not(None))
        if host is not None:
            wanted = wanted.where(hosts.c.name == host)

        def work(connection: sa.Connection) -> dict[str, float]:
            rows = connection.execute(wanted).all()
            now = clock(connection) if rows else None
            return {name: (now - at).total_seconds() for name, at in rows}

        return self._database.read(work)

    def forget(self, host: str) -> None:
        """Nothing is known of the host's copies, nor that there were any."""
        for part in chunks(sorted(self.ever_of_host(host))):
            self._database.change(cached.delete().where(cached.c.host == host, cached.c.image_id.in_(part)))

    def forget_ended(self, host: str) -> None:
        """Rows of the host that ended long ago are gone."""

        def work(connection: sa.Connection) -> None:
            end = clock(connection) - timedelta(days=_ENDED_DAYS)
            connection.execute(cached.delete().where(cached.c.host == host, cached.c.gone_at < end))

        self._database.write(work)


class BestEffortCopies:
    """The same for whoever goes on without the ledger (`catalogue.copies_index`). `ask` has an answer whatever happens.

    It is given a name for the question, the question, and what is the answer when the ledger has none.
    """

    def __init__(self, copies: CachedCopies, ask: Callable[[str, Callable[[], Any], Any], Any]) -> None:
        self._copies, self._ask = copies, ask

    def of_images(self, image_ids: Collection[str]) -> Mapping[str, list[Location]]:
        """As `CachedCopies.of_images`."""
        found: Mapping[str, list[Location]] = self._ask("copies", lambda: self._copies.of_images(image_ids), {})
        return found

    def images_of(self, host: str) -> set[str]:
        """The images that the host has, or had until a day ago."""
        none: set[str] = set()
        found: set[str] = self._ask("copies of a host", lambda: self._copies.ever_of_host(host), none)
        return found

    def is_whole(self, host: str) -> bool:
        """Whether the host has counted them of late."""
        ages: Mapping[str, float] = self._ask("counts of hosts", lambda: self._copies.counted_seconds(host), {})
        return ages.get(host, COUNTED_SECONDS) < COUNTED_SECONDS
