"""Throw-away PostgreSQL and MariaDB servers, in a folder of their own and as an ordinary user."""

import abc
import contextlib
import functools
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from .. import free_port, need
from ..once import new_folder, once
from ..process import Process, run
from .schema import db_sync

TEMPLATE = "glance_template"


@contextlib.contextmanager
def server_folder(prefix: str, memory: bool = False) -> Iterator[Path]:
    """A new folder with a short path that other users may enter; removed afterwards. In memory, where that has room."""
    folder = new_folder(prefix, memory)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class DatabaseServer(abc.ABC):
    """A server, started, that makes databases; every path above `folder` must be open to the server's user."""

    user: str  # whom root runs it as
    stop_signal: signal.Signals
    admin_database: str

    def __init__(self, folder: Path, address: str = "127.0.0.1", *, first: bool = False) -> None:
        """The `first` of a run makes what the others are copies of, with Glance's tables in a database `TEMPLATE`."""
        self.folder, self.data, self.address = folder, folder / "data", address
        self.port = free_port(address)
        self._process: Process | None = None
        self.owner = self.user if os.geteuid() == 0 else None
        if first:
            self._make()
        else:
            run([need("cp"), "--archive", "--sparse=always", f"{once(self.user, self._first)}/.", folder])
        self.start()

    def _make(self) -> None:
        self.data.mkdir()
        if self.owner:
            shutil.chown(self.folder, self.owner)
            shutil.chown(self.data, self.owner)
        self.data.chmod(0o700)
        self.initialise()

    @classmethod
    def _first(cls, folder: Path) -> None:
        folder.chmod(0o755)
        made = cls(folder, first=True)
        try:
            db_sync(made.create(TEMPLATE))
        finally:
            made.stop()
        (folder / "server.log").unlink()

    @abc.abstractmethod
    def initialise(self) -> None:
        """Fill the empty data folder."""

    @abc.abstractmethod
    def command(self) -> list[str | Path]:
        """The server's command line."""

    @abc.abstractmethod
    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database."""

    def start(self) -> None:
        """The server accepts connections."""
        self._process = Process(
            self.command(), self.folder / "server.log", user=self.owner, stop_signal=self.stop_signal
        )
        self._process.wait(self._answers)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except sa.exc.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End the server, clients or not; the data stay for the next `start()`."""
        if self._process:
            self._process.stop()

    def close(self) -> None:
        """End the server for good."""
        self.stop()

    def kill(self) -> None:
        """SIGKILL, as when the machine goes."""
        if self._process:
            self._process.kill()

    def log(self) -> str:
        """What the server has written."""
        return self._process.log() if self._process else ""

    def execute(self, statement: str) -> None:
        """Run a statement outside any transaction, as the server's administrator."""
        engine = sa.create_engine(self.url(self.admin_database), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(statement))
        finally:
            engine.dispose()

    @abc.abstractmethod
    def create(self, name: str) -> str:
        """The URL of a new empty database."""

    @abc.abstractmethod
    def create_glance(self, name: str) -> str:
        """The URL of a new database with Glance's tables."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Postgres(DatabaseServer):
    """PostgreSQL without fsync; everyone on this address is let in."""

    user, stop_signal, admin_database = "postgres", signal.SIGINT, "postgres"

    def initialise(self) -> None:
        """initdb."""
        words = ["--username=glance", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        run([need("initdb"), *words, f"--pgdata={self.data}"], user=self.owner, cwd=self.folder)

    def command(self) -> list[str | Path]:
        """One server, one address, no socket outside the folder."""
        settings = [f"listen_addresses={self.address}", f"unix_socket_directories={self.folder}", "max_connections=300"]
        settings += ["fsync=off", "full_page_writes=off", "synchronous_commit=off"]
        words: list[str | Path] = [need("postgres"), "-D", self.data, "-p", str(self.port)]
        return words + [word for setting in settings for word in ("-c", setting)]

    def url(self, name: str) -> str:
        """psycopg2."""
        return f"postgresql+psycopg2://glance@{self.address}:{self.port}/{name}"

    def create(self, name: str) -> str:
        """An empty database."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def create_glance(self, name: str) -> str:
        """A copy of that database."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
        return self.url(name)


class MariaDB(DatabaseServer):
    """MariaDB with one user, and none of the machine's own settings."""

    user, stop_signal, admin_database = "mysql", signal.SIGTERM, "mysql"

    def close(self) -> None:
        """End the server for good; an orderly end takes seconds."""
        self.kill()

    def initialise(self) -> None:
        """mariadb-install-db, with a user `glance` that may do everything."""
        words = [
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--datadir={self.data}",
            f"--tmpdir={self.folder}",  # a server that starts removes what others have in /tmp
        ]
        run([need("mariadb-install-db"), *words], user=self.owner, cwd=self.folder)
        grants = self.folder / "grants.sql"
        grants.write_text("GRANT ALL ON *.* TO 'glance'@'%' IDENTIFIED BY 'glance' WITH GRANT OPTION;\n")
        grants.chmod(0o644)

    def command(self) -> list[str | Path]:
        """One server, one address, durable enough for a test."""
        return [
            *(need("mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--init-file={self.folder}/grants.sql"),
            *(f"--bind-address={self.address}", f"--port={self.port}", f"--socket={self.folder}/socket"),
            *(f"--tmpdir={self.folder}", f"--pid-file={self.folder}/pid"),
            *("--skip-name-resolve", "--max-connections=300"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-log-file-size=16M"),
        ]

    def url(self, name: str) -> str:
        """PyMySQL."""
        return f"mysql+pymysql://glance:glance@{self.address}:{self.port}/{name}?charset=utf8mb3"

    def ordinary(self, url: str) -> str:
        """The URL of the same database for a user that may use it and administer nothing: `read_only` holds for it."""
        name = sa.make_url(url).database
        self.execute(f"GRANT ALL ON `{name}`.* TO 'ordinary'@'%' IDENTIFIED BY 'glance'")
        return url.replace("//glance:", "//ordinary:")

    def create(self, name: str) -> str:
        """An empty database, utf8mb3 as Glance wants it."""
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb3")
        return self.url(name)

    def create_glance(self, name: str) -> str:
        """A copy of the tables of that database."""
        url = self.create(name)
        run([need("mariadb"), *self._words(), name], stdin=self._tables)
        return url

    @functools.cached_property
    def _tables(self) -> str:
        return run([need("mariadb-dump"), *self._words(), TEMPLATE])

    def _words(self) -> list[str]:
        return ["--no-defaults", f"--socket={self.folder}/socket", "--user=glance", "--password=glance"]
