"""A file written anew keeps its holes, and where there is no room for it that is said before the first byte."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.places.originals import Original
from support.programs import Programs

from glance_replicas.errors import Unwritable
from glance_replicas.stores.file.holes import BLOCK, HoleWriter
from glance_replicas.stores.file.options import FileHabits
from glance_replicas.stores.file.writer import Writer

pytest_plugins = ["support.desk"]
pytestmark = pytest.mark.slow

MIB = 1 << 20
THIN = FileHabits(is_thin=True)


@pytest.fixture(scope="module")
def small() -> Iterator[Path]:
    """A file system of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    folder = Path(tempfile.mkdtemp(prefix="glance-replicas-small-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


@pytest.fixture
def store(small: Path) -> Iterator[Path]:
    yield small
    for path in small.iterdir():
        path.unlink()


def sparse(size: int, *data: int) -> bytes:
    """Zeros, with a MiB of something at each of these offsets."""
    made = bytearray(size)
    for offset in data:
        made[offset : offset + MIB] = os.urandom(MIB)
    return bytes(made)


def write_sparse(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for at in range(0, len(data), MIB):
            piece = data[at : at + MIB]
            file.seek(at)
            if piece.strip(b"\0"):
                file.write(piece)
        file.truncate(len(data))


def taken(path: Path) -> int:
    return path.stat().st_blocks * 512


def restore(store: Path, data: bytes, habits: FileHabits) -> Path:
    Writer([store], {store: habits}).rewrite(f"file://{store}/image", Original(data), lambda: None)
    return store / "image"


@pytest.mark.parametrize("habits", [THIN, FileHabits()], ids=["a thin store", "a thin file"])
def test_holes_stay(store: Path, habits: FileHabits) -> None:
    """An image of more than the file system holds, nearly all zeros, is restored in place and takes what it took."""
    data = sparse(100 * MIB, 0, 40 * MIB, 99 * MIB)
    path = store / "image"
    write_sparse(path, data[:MIB] + b"damage" + data[MIB + 6 :])
    before = taken(path)
    assert restore(store, data, habits).read_bytes() == data
    assert taken(path) <= before
    assert [one.name for one in store.iterdir()] == ["image"]


def test_a_thin_file_that_was_gone(store: Path) -> None:
    """With nothing to go by, zeros take no room in a thin store."""
    data = sparse(100 * MIB, 50 * MIB)
    path = restore(store, data, THIN)
    assert path.read_bytes() == data
    assert taken(path) <= 2 * MIB


def test_zeros_are_written_where_nobody_wants_holes(store: Path) -> None:
    """A dense store gets a dense file."""
    assert taken(restore(store, sparse(10 * MIB, 0), FileHabits())) >= 10 * MIB


def test_no_room(store: Path) -> None:
    """A dense file that does not fit beside the old one: said, with the remedy, and not a byte was written."""
    path = store / "image"
    path.write_bytes(b"damaged")
    given_out = []

    class Watched(Original):
        def whole(self) -> Iterator[bytes]:
            given_out.append(1)
            yield from super().whole()

    with pytest.raises(Unwritable, match=r"needs 63 MiB beside the old file.*stay free for uploads.*make room"):
        Writer([store]).rewrite(f"file://{path}", Watched(os.urandom(63 * MIB)), lambda: None)
    assert not given_out
    assert path.read_bytes() == b"damaged"
    assert [one.name for one in store.iterdir()] == ["image"]


def test_a_reserve_stays(store: Path) -> None:
    """What would fit, but leave uploads nothing, is refused too; what leaves the reserve is written."""
    with pytest.raises(Unwritable):
        restore(store, os.urandom(int(63.5 * MIB)), FileHabits())
    restore(store, os.urandom(60 * MIB), FileHabits())


def test_more_than_was_foreseen(store: Path) -> None:
    """A thin file that turns out dense stops before the store is full, and nothing of it is left."""
    (store / "others").write_bytes(bytes(1))
    with pytest.raises(Unwritable, match="stay free for uploads"):
        restore(store, os.urandom(80 * MIB), THIN)
    assert [one.name for one in store.iterdir()] == ["others"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3 * BLOCK)), max_size=12), st.booleans())
def test_any_bytes_in_any_pieces(pieces: list[tuple[bool, int]], is_thin: bool) -> None:
    """What is read back is what was written, wherever zeros begin and end."""
    chunks = [bytes(length) if zeros else b"\0x\0"[:3] * (length // 3) for zeros, length in pieces]
    with tempfile.TemporaryFile() as file:
        writer = HoleWriter(file.fileno(), is_thin)
        for chunk in chunks:
            writer.write(chunk)
        writer.end()
        file.seek(0)
        assert file.read() == b"".join(chunks)


def test_repair_beside_an_upload(store: Path, tmp_path: Path, programs: Programs, faulty: FaultyServer) -> None:
    """`replica repair` in a thin store that is too small for the image's zeros: restored, no larger than before, while
    a client uploads to the same store. A dense image that does not fit beside its old file: not a byte is written."""
    thin, dense = (f"93000000-0000-4000-8000-00000000000{number}" for number in range(2))
    images = {thin: sparse(70 * MIB, 40 * MIB), dense: os.urandom(33 * MIB)}
    options = {"fast": {"filesystem_store_datadir": str(store), "filesystem_thin_provisioning": "true"}}
    with GlanceSite(tmp_path / "site", options=options) as site, ThreadPoolExecutor(1) as pool:
        host = site.add_host("127.0.0.2", pipeline="stock", processes=1)
        for name, data in images.items():
            add_image(site.database_url, name, data)
            write_sparse(store / name, data[: 40 * MIB] + b"damage" + data[40 * MIB + 6 :])
            site.add_location(name, f"file://{store}/{name}", {"store": "fast"})
            site.add_location(name, faulty.put(f"/{name}", data, rate=100 * MIB), {"store": "web"})
        words, before = ("--config-file", host.config_file), taken(store / thin)
        assert programs.run(*words, "verify", *images).status == 1
        repair = pool.submit(programs.run, *words, "repair", thin, "--yes", "-f", "json")
        uploaded = os.urandom(8 * MIB)
        assert host.client().download(host.client().create(data=uploaded)["id"]).content == uploaded
        assert [row["Action"] for row in repair.result().rows] == ["restored"]
        assert (store / thin).read_bytes() == images[thin]
        assert taken(store / thin) <= before <= 2 * MIB
        host.configure({"fast": {"filesystem_thin_provisioning": "false"}})
        before, damaged = len(list(store.iterdir())), (store / dense).read_bytes()
        done = programs.run(*words, "repair", dense, "--yes")
        assert (done.status, "needs 33 MiB beside the old file" in done.out + done.err) == (1, True), done
        assert (len(list(store.iterdir())), (store / dense).read_bytes() == damaged) == (before, True)
