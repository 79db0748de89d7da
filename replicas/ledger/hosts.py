"""The hosts: their heartbeats, and what each says of itself."""

import sqlalchemy as sa

from .. import __version__
from ..database.dialect import clock, upsert
from ..model import Host
from .schema import rows as ledger_rows
from .schema.connection import LedgerDatabase
from .schema.tables import hosts

# No column more than is needed: a host whose tables are a version behind still finds the others.
_HOST = [hosts.c[name] for name in ("name", "zone", "url", "heartbeat", "files", "bytes_used", "bytes_free")]


class HostRows:
    """Part of `Ledger`."""

    database: LedgerDatabase

    def heartbeat(self, host: Host) -> None:
        """The host is known with these numbers, as of now; `host.heartbeat` and its age are not looked at."""
        names = ("name", "zone", "url", "files", "bytes_used", "bytes_free")
        row = {name: getattr(host, name) for name in names} | {"version": __version__}
        self.database.write(lambda connection: upsert(connection, hosts, [row | {"heartbeat": clock(connection)}]))

    def hosts(self) -> list[Host]:
        """Every host ever heard of and not forgotten, by name."""

        def work(connection: sa.Connection) -> list[Host]:
            rows = connection.execute(sa.select(*_HOST).order_by(hosts.c.name)).all()
            now = clock(connection)
            return [ledger_rows.host(row, now) for row in rows]

        return sorted(self.database.read(work), key=lambda host: host.name)

    def forget_host(self, name: str) -> bool:
        """The host is unknown; False when it was. A host that lives comes back with its next heartbeat."""
        return self.database.change(hosts.delete().where(hosts.c.name == name)) > 0
