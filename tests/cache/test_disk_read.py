"""A disk that rots under a page cache that remembers: verification reads the disk, and leaves the page cache alone."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from services import absent, need
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.programs import replica
from support.worlds.cached import note
from support.worlds.cloud import Cloud, fill

from glance_replicas import settings
from glance_replicas.disk import uncached_read
from glance_replicas.janitor import assembly
from glance_replicas.model import Digest, Image, Location
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.sources import Sources
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

MIB = 1 << 20
DATA = os.urandom(3 * MIB + 1234)
IMAGES = [f"90000000-0000-4000-8000-{number:012d}" for number in range(2)]


class Device:
    """An ext4 file system in a file."""

    def __init__(self, folder: Path) -> None:
        self.image, self.root = folder / "device", folder / "mounted"
        self.root.mkdir()
        with self.image.open("wb") as made:
            made.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", self.image], check=True)
        if subprocess.run(["mount", "-o", "loop", self.image, self.root], check=False).returncode:
            absent("mounting a file by a loop device is not permitted here")

    def rot(self, data: bytes, at: int) -> None:
        """One byte of these is another one on the device; the file system does not know."""
        subprocess.run(["sync", "-f", self.root], check=True)
        where = self.image.read_bytes().index(data[at - at % 4096 :][:4096]) + at % 4096
        with self.image.open("r+b") as device:
            device.seek(where)
            device.write(bytes([data[at] ^ 1]))

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.root], check=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with closing(Device(tmp_path)) as made:
        yield made


def test_the_disk_and_not_the_memory(device: Device) -> None:
    """A byte that rotted under a hot file is seen by the first verification; the pages in memory are older."""
    path = device.root / "file"
    path.write_bytes(DATA)
    assert path.read_bytes() == DATA
    device.rot(DATA, 2 * MIB)
    fd = os.open(path, os.O_RDONLY)
    try:
        seen = b"".join(uncached_read.chunks(fd, 0, len(DATA)))
    finally:
        os.close(fd)
    assert (len(seen), seen[2 * MIB]) == (len(DATA), DATA[2 * MIB] ^ 1)
    assert seen[: 2 * MIB] + seen[2 * MIB + 1 :] == DATA[: 2 * MIB] + DATA[2 * MIB + 1 :]
    assert path.read_bytes() == DATA, "the page cache was left alone"


@pytest.mark.parametrize("kind", ["ext4", "ramfs"])
@pytest.mark.parametrize(("start", "stop"), [(0, len(DATA)), (1, 2), (4095, 8193), (5, len(DATA) + 99), (7, 7)])
def test_any_range(tmp_path: Path, kind: str, start: int, stop: int) -> None:
    """Whatever the borders are the bytes are those, also where a file system knows no O_DIRECT."""
    folder = tmp_path / "folder"
    folder.mkdir()
    if kind == "ramfs" and subprocess.run(["mount", "-t", "ramfs", "none", folder], check=False).returncode:
        absent("mounting a ramfs is not permitted here")
    try:
        (folder / "file").write_bytes(DATA)
        fd = os.open(folder / "file", os.O_RDONLY)
        try:
            assert b"".join(uncached_read.chunks(fd, start, stop)) == DATA[start:stop]
        finally:
            os.close(fd)
    finally:
        if kind == "ramfs":
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_verification_of_a_file_store(device: Device) -> None:
    """The look that a verdict and a proof rest on says corrupt the first time."""
    path = device.root / "file"
    path.write_bytes(DATA)
    assert path.read_bytes() == DATA
    device.rot(DATA, 100)
    image = Image("i", "active", len(DATA), Digest("sha512", hashlib.sha512(DATA).hexdigest()))
    sources = Sources([file_reader.Reader([device.root], from_disk=True)])
    assert probe(sources, image, Location("i", path.as_uri()), Evidence.FULL).verdict is Verdict.CORRUPT


def test_scrub(device: Device, tmp_path: Path) -> None:
    """A cached file that rotted is found by the scrubber though every client still gets it right from memory."""
    with GlanceSite(tmp_path / "configured") as site, FaultyServer() as durable:
        loaded = settings.load([str(site.add_host("127.0.0.2", start=False).config_file)])
        with closing(Cloud(device.root, loaded, durable)) as cloud:
            local, name = cloud.host("here"), cloud.image()
            fill(local, name)
            path = local.cache.path(name)
            data = path.read_bytes()
            note(path, data, age=30 * 86400)
            device.rot(data, len(data) // 2)
            assert path.read_bytes() == data
            assert assembly.scrubber(local, lambda: None).oldest() is Verdict.CORRUPT


def test_the_programs_read_the_disk(device: Device, tmp_path: Path) -> None:
    """`verify` says corrupt the first time, and for `prune` such a copy is none that stays."""
    with GlanceSite(tmp_path / "site") as site:
        host = site.add_host("127.0.0.2", options={"fast": {"filesystem_store_datadir": str(device.root)}}, start=False)
        hot, damaged = device.root / "hot", device.root / "damaged"
        hot.write_bytes(DATA)
        damaged.write_bytes(DATA[::-1])
        for name in IMAGES:
            add_image(site.database_url, name, DATA)
            for path in (hot, damaged):
                site.add_location(name, path.as_uri(), {"store": "fast"})
        words = ("--config-file", host.config_file)
        found = replica().run(*words, "verify", IMAGES[0], "-f", "json").rows
        assert sorted(row["Verdict"] for row in found) == ["corrupt", "intact"]
        assert hot.read_bytes() == DATA
        device.rot(DATA, len(DATA) // 2)
        done = replica().run(*words, "prune", IMAGES[0], "--state", "corrupt", "--yes")
        assert len(site.locations(IMAGES[0])) == 2, done
        done = replica().run(*words, "verify", IMAGES[1], "-f", "json")
        assert (done.status, [row["Verdict"] for row in done.rows]) == (1, ["corrupt", "corrupt"])
        assert hot.read_bytes() == DATA, "who reads it the usual way sees nothing of it"


def resident(path: Path) -> int:
    """Bytes of a file that are in memory."""
    words = [need("fincore"), "--bytes", "--noheadings", "--output", "RES", path]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def test_what_is_hot_stays_hot(device: Device, tmp_path: Path) -> None:
    """Verifying other files brings none of their pages into memory and pushes none of a hot one out; the hot one can be
    verified itself."""
    with GlanceSite(tmp_path / "site") as site:
        host = site.add_host("127.0.0.2", options={"fast": {"filesystem_store_datadir": str(device.root)}}, start=False)
        paths = [device.root / name for name in IMAGES]
        for name, path in zip(IMAGES, paths, strict=True):
            path.write_bytes(DATA)
            add_image(site.database_url, name, DATA)
            site.add_location(name, path.as_uri(), {"store": "fast"})
        hot, cold = paths
        subprocess.run(["sync", "-f", device.root], check=True)
        with cold.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = resident(hot)
        assert resident(cold) == 0 < 3 * MIB <= before
        assert replica().run("--config-file", host.config_file, "verify", IMAGES[1]).status == 0
        assert (resident(hot), resident(cold)) == (before, 0)
        assert replica().run("--config-file", host.config_file, "verify", IMAGES[0]).status == 0
        assert (hot.read_bytes(), resident(cold)) == (DATA, 0)
