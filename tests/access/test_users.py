"""Programs run as root, or as somebody else, in the directory of the user that runs Glance."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.databases.servers import server_folder
from services.glance.site import GlanceHost, GlanceSite
from services.machine.users import as_user
from support.worlds.scenes import new_image, settle

from glance_replicas.cache.directory import OWN
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.location import replica_url
from glance_replicas.settings import default_ledger

GLANCE, STRANGER = 64061, 64062  # users that this machine need not know
SIZE = 200_000
NEW = ("doubts.new", "last_copies.new", "space", "client-fills")  # what a pass may write


def program(host: GlanceHost, *arguments: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    """`replica` as that user."""
    before = as_user(uid, host.site.folder.parent) if uid else []
    command = [*before, Path(sys.prefix) / "bin" / "replica", "--config-file", host.config_file, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/")


def everything(folder: Path) -> list[Path]:
    """The folder and all in it."""
    return [folder, *folder.rglob("*")]


@pytest.fixture(scope="module")
def host() -> Iterator[GlanceHost]:
    """A host whose directory and database are the user's; the first programs are run as root, then it is started."""
    with server_folder("users") as folder, GlanceSite(folder / "site", ledger=False) as site:
        made = site.add_host("127.0.0.2", options={"replicas": {"janitor_interval_seconds": "1"}}, start=False)
        for path in everything(site.folder):
            os.chown(path, GLANCE, GLANCE)
        as_user(GLANCE, folder)
        yield made


def test_what_root_makes_is_the_users(host: GlanceHost) -> None:
    """After `replica db upgrade` and a pass as root nothing in the directory, and no file of the ledger, is root's."""
    assert program(host, "db", "upgrade").returncode == 0
    assert "files" not in program(host, "janitor", "--once").stderr
    ledger = Path(default_ledger(host.site.database_url).removeprefix("sqlite:///").split("?")[0])
    made = [*everything(host.cache_dir), *ledger.parent.glob(f"{ledger.name}*")]
    assert len(made) > 6
    assert {path.name for path in made if path.lstat().st_uid != GLANCE} == set()


def test_root_follows_no_link(host: GlanceHost) -> None:
    """A link that Glance's user puts in the place of a file of ours is not followed by a pass of root's."""
    assert program(host, "db", "upgrade").returncode == 0
    program(host, "janitor", "--once")
    secret, own = host.site.folder / "secret", host.cache_dir / OWN
    secret.write_text("root's alone")
    secret.chmod(0o600)
    for name in (path.name for path in [*own.iterdir(), *map(own.joinpath, NEW)] if not path.is_dir()):
        before = (own / name).exists() and (own / name).rename(own / "before")
        (own / name).symlink_to(secret)
        os.chown(own / name, GLANCE, GLANCE, follow_symlinks=False)
        program(host, "janitor", "--once")
        assert (secret.stat().st_uid, secret.read_text()) == (0, "root's alone"), name
        (own / name).unlink(missing_ok=True)
        if before:
            (own / "before").rename(own / name)


def test_a_stranger_is_refused(host: GlanceHost) -> None:
    """A third user makes no file there, and is told whom to be."""
    host.cache_dir.chmod(0o777)
    try:
        done = program(host, "janitor", "--once", uid=STRANGER)
        assert done.returncode == 3, done.stderr
        assert f"sudo -u {GLANCE}" in done.stderr
    finally:
        host.cache_dir.chmod(0o750)
    assert {path.name for path in everything(host.cache_dir) if path.lstat().st_uid != GLANCE} == set()


def test_glance_goes_on_with_what_root_made(host: GlanceHost) -> None:
    """The heartbeat comes; what root can read alone is registered by nobody, named by `replica check`, and mended by
    the next pass of root's. What that pass fetches is a hit for Glance's user, who caches others, too."""
    with Served(host):
        fetched, data = new_image(host, SIZE)
        (queued, more), (other, _) = new_image(host, SIZE), new_image(host, SIZE)
        settle(lambda: Ledger(host.site.ledger_url).hosts(), 30)
        assert host.client().download(fetched).content == data
        settle(lambda: rows(host, fetched))
        os.chown(host.cache_dir / fetched, 0, 0)
        settle(lambda: not rows(host, fetched))
        assert host.client().download(fetched).content == data
        done = program(host, "check")
        assert f"1 files, {fetched} among them, cannot be read by {GLANCE}" in done.stdout
        assert f"1 files, {fetched} among them, cannot be read by {GLANCE}" in program(host, "check", uid=GLANCE).stdout
    (host.cache_dir / "queue" / queued).touch()
    assert program(host, "janitor", "--once").returncode == 0
    assert {path.name for path in everything(host.cache_dir) if path.lstat().st_uid != GLANCE} == set()
    assert (host.cache_dir / queued).stat().st_uid == GLANCE
    assert not (host.cache_dir / "queue" / queued).exists()
    assert (host.cache_dir / fetched).stat().st_uid == GLANCE
    assert rows(host, fetched)
    assert "cannot be read" not in program(host, "check").stdout
    with Served(host):
        answer = host.client().download(queued)
        assert (answer.content == more, "; hit" in answer.headers["Cache-Status"]) == (True, True)
        assert host.client().download(other).status_code == 200
        settle(lambda: rows(host, queued) and rows(host, other))


def test_a_store_file_that_root_alone_can_read(host: GlanceHost) -> None:
    """Glance's user gets no byte of it to send, and a copy in the cache goes on; root's `replica verify` does not call
    it intact, and what it says to run next brings it back."""
    assert program(host, "db", "upgrade").returncode == 0
    with Served(host):
        (kept, data), (lost, more) = new_image(host, SIZE), new_image(host, SIZE)
        assert host.client().download(kept).content == data
        settle(lambda: rows(host, kept))
        for image_id in (kept, lost):
            os.chown(host.site.store_file(image_id), 0, 0)
            host.site.store_file(image_id).chmod(0o600)
        assert host.client().download(lost).status_code >= 400
        assert host.client().download(kept).content == data
        done = program(host, "verify", lost)
        assert (done.returncode, "1 denied" in done.stdout) == (3, True), done
        (line,) = (one for one in done.stdout.splitlines() if one.strip().startswith("next: chown"))
        subprocess.run(line.partition("next: ")[2].partition("; then")[0], shell=True, check=True)
        assert host.client().download(lost).content == more
        assert program(host, "verify", lost).returncode == 0


def rows(host: GlanceHost, image_id: str) -> list[str]:
    """The registrations of this host."""
    url = replica_url(host.url, image_id)
    return [one["url"] for one in host.site.locations(image_id) if one["url"] == url]


class Served:
    """The host, run as Glance's user."""

    def __init__(self, host: GlanceHost) -> None:
        self._host = host

    def __enter__(self) -> None:
        command, before = self._host.command, as_user(GLANCE, self._host.site.folder.parent)
        self._host.command = lambda: [*before, *command()]  # type: ignore[method-assign]
        self._host.start()

    def __exit__(self, *_: object) -> None:
        self._host.stop()
        del self._host.command  # the class's again
