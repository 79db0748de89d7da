"""The fallback through glance_store: offsets, odd chunks, and whatever a driver may raise."""

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import glance_store
import pytest
from glance_store import capabilities
from glance_store._drivers import filesystem
from oslo_config import cfg
from support.places.readers import LIMITS, load, read
from support.worlds.scenes import begun_since, settle

from glance_replicas import settings as our_settings
from glance_replicas.checksum import BLOCK
from glance_replicas.errors import Absent, Denied, SourceError, Stalled, Unreachable, Unsupported, WrongAnswer
from glance_replicas.model import Location
from glance_replicas.stores import configured
from glance_replicas.stores.body import Limits
from glance_replicas.stores.drivers import reader as driver_reader
from glance_replicas.stores.drivers import waiting
from glance_replicas.stores.file import options
from glance_replicas.stores.sources import from_settings

DATA = bytes(range(256)) * 8192  # 2 MiB
URL = "odd://pool/image"


class _Place(filesystem.StoreLocation):
    def parse_uri(self, uri: str) -> None:
        self.path = uri


class _Driver:
    """A driver such as an operator may have: `give` makes what `get` returns."""

    def __init__(self, give: Callable[[], tuple[Any, Any]], random: bool = False) -> None:
        self.give, self.random, self.asked = give, random, []  # type: ignore[var-annotated]

    def configure(self) -> None:
        """Nothing to do."""

    def get_schemes(self) -> tuple[str, ...]:
        return ("odd",)

    def get_store_location_class(self) -> type:
        return _Place

    def is_capable(self, capability: int) -> bool:
        return self.random or capability != capabilities.BitMasks.READ_OFFSET

    def get(self, location: Any, offset: int = 0) -> tuple[Any, Any]:
        self.asked.append(offset)
        data, size = self.give()
        return (data[offset:] if offset else data), size

    def get_size(self, location: Any) -> Any:
        return self.give()[1]


def reader_of(driver: _Driver) -> driver_reader.Reader:
    """A reader that finds this driver installed."""
    return driver_reader.Reader(cfg.CONF, [(None, "odd")], lambda *_: driver)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("offset", [0, 1, BLOCK, len(DATA)])
def test_offset(random: bool, offset: int) -> None:
    """A driver that can start at an offset is told to; of one that cannot the beginning is dropped."""
    driver = _Driver(lambda: ([DATA] if not random else _Sliced(), len(DATA)), random)
    body = reader_of(driver).open(Location("x", URL), offset)
    assert read(body) == DATA[offset:]
    assert body.size == len(DATA)
    assert driver.asked == [offset if random else 0]


class _Sliced:
    """All of DATA as one chunk, or what is left of it."""

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def __getitem__(self, at: slice) -> "_Sliced":
        return _Sliced(at.start)

    def __iter__(self) -> Iterator[bytes]:
        yield DATA[self.start :]


@pytest.mark.parametrize("size", [len(DATA), 0, None])
def test_chunks(size: int | None) -> None:
    """Chunks of any length come in ours, empty ones not at all; a size of 0 is no size."""
    pieces = [b"", DATA[:1], b"", DATA[1:], b""]
    body = reader_of(_Driver(lambda: (iter(pieces), size))).open(Location("x", URL))
    chunks = list(body)
    assert b"".join(chunks) == DATA
    assert all(0 < len(chunk) <= BLOCK for chunk in chunks)
    assert body.size == (size or None)


def test_broken_off() -> None:
    """A driver that ends early without a word is Unreachable; one that is too short for the offset a wrong answer."""
    with pytest.raises(Unreachable, match="broke off at 5 of 9"):
        list(reader_of(_Driver(lambda: ([b"short"], 9))).open(Location("x", URL)))
    with pytest.raises(WrongAnswer):
        list(reader_of(_Driver(lambda: ([b"short"], None))).open(Location("x", URL), 9))
    with pytest.raises(WrongAnswer):
        reader_of(_Driver(lambda: ([b"short"], 5))).open(Location("x", URL), 9)


def because(number: int) -> glance_store.BadStoreConfiguration:
    """What a driver makes of its library's error when it cannot connect."""
    error = glance_store.BadStoreConfiguration(store_name="ceph", reason="hush")
    error.__context__ = OSError(number, "hush")
    return error


RAISED = [
    (glance_store.NotFound(), Absent),
    (glance_store.Forbidden(), Denied),
    (PermissionError(13, "no"), Denied),
    (glance_store.RemoteServiceUnavailable(), Unreachable),
    (glance_store.StoreGetNotSupported(), Unsupported),
    (glance_store.BadStoreUri(message="s3://key:hush@bucket"), Unsupported),
    (glance_store.TimeoutError(timeout=3), Stalled),
    (glance_store.BackendException("hush"), Unreachable),
    (FileNotFoundError(2, "hush"), Unreachable),
    (RuntimeError("librados says hush"), Unreachable),
    (glance_store.BadStoreConfiguration(store_name="ceph", reason="hush"), Unsupported),
    (because(errno.EACCES), Denied),
    (because(errno.ETIMEDOUT), Stalled),
    (because(errno.ENOENT), Unreachable),
    (because(errno.ECONNREFUSED), Unreachable),
]


@pytest.mark.parametrize(("error", "kind"), RAISED, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_errors(error: Exception, kind: type[SourceError]) -> None:
    """Only glance_store's own "not found" is Absent; no foreign exception and no word of it gets out, ever."""

    def fail() -> tuple[Any, Any]:
        raise error

    def fail_later() -> Iterator[bytes]:
        yield b"x"
        raise error

    reader = reader_of(_Driver(fail))
    later = reader_of(_Driver(lambda: (fail_later(), 9)))
    location = Location("x", "odd://user:hush@pool/image")
    for call in (reader.open, reader.size, lambda at: list(later.open(at))):
        with pytest.raises(SourceError) as caught:
            call(location)
        assert type(caught.value) is kind
        assert "hush" not in str(caught.value)


def test_unknown_scheme(tmp_path: Path) -> None:
    """A scheme of no enabled store is Unsupported, also when the store's id is one of another kind."""
    sources = load(tmp_path, "[DEFAULT]\nenabled_backends = disk:file, web:http")
    for location in (Location("x", "rbd://a/b/c/d"), Location("x", "rbd://a/b/c/d", {"store": "disk"})):
        with pytest.raises(Unsupported, match="rbd"):
            sources.open(location)


PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(("os_brick", "cinderclient", "rados", "rbd")))  # not to be imported
from glance_replicas import errors, model, settings
from glance_replicas.stores import sources
found = settings.load([sys.argv[1]])
print("loaded", file=sys.stderr, flush=True)
try:
    sources.from_settings(found).open(model.Location("x", sys.argv[2]))
except errors.Unsupported as error:
    print(error)
"""


def run(tmp_path: Path, text: str, url: str) -> tuple[str, str]:
    """What a program without any logging writes when it reads this URL, and what glance_store says to that."""
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"{text}\n[database]\nconnection = sqlite://\n")
    done = subprocess.run([sys.executable, "-c", PROGRAM, conf, url], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr.partition("loaded\n")[2]


def test_driver_not_installed(tmp_path: Path) -> None:
    """A driver whose libraries are not here is Unsupported, quietly."""
    said, more = run(tmp_path, "[DEFAULT]\nenabled_backends = volumes:cinder", "cinder://volume")
    assert more == ""
    assert "the cinder driver cannot be loaded here: is the library it needs installed?" in said


def test_rbd_without_its_library(tmp_path: Path) -> None:
    """glance_store's RBD driver loads without librados and breaks at its first use: Unsupported, and it says why."""
    text = "[DEFAULT]\nenabled_backends = ceph:rbd\n[ceph]\nrbd_store_ceph_conf = /nowhere"
    said, _ = run(tmp_path, text, "rbd://fsid/images/x/snap")
    assert "the driver of rbd cannot work here: is the library it needs installed?" in said


def test_cinder_without_credentials_of_the_store(tmp_path: Path) -> None:
    """A cinder store that works with the token of whoever asks cannot be read without one: Unsupported."""
    sources = load(tmp_path, "[DEFAULT]\nenabled_backends = volumes:cinder")
    location = Location("x", "cinder://volumes/00000000-0000-0000-0000-000000000000", {"store": "volumes"})
    for call in (sources.open, sources.size):
        with pytest.raises(Unsupported, match="BadStoreConfiguration"):
            call(location)


class _Stuck(_Driver):
    """A driver whose cluster says nothing any more, from the given call on, until it is freed."""

    def __init__(self, at: str) -> None:
        super().__init__(lambda: (self.pieces(), len(DATA)))
        self.at, self.free, self.closed = at, threading.Event(), threading.Event()

    def wait(self, at: str) -> None:
        if at == self.at:
            self.free.wait()

    def configure(self) -> None:
        self.wait("configure")

    def get(self, location: Any, offset: int = 0) -> tuple[Any, Any]:
        self.wait("get")
        return super().get(location, offset)

    def get_size(self, location: Any) -> Any:
        self.wait("get_size")
        return len(DATA)

    def pieces(self) -> Iterator[bytes]:
        try:
            yield DATA[:BLOCK]
            self.wait("read")
            yield DATA[BLOCK:]
        finally:
            self.closed.set()


@pytest.mark.parametrize("at", ["configure", "get", "get_size", "read"])
def test_driver_that_never_answers(at: str) -> None:
    """No call into a driver is waited for longer than any other source: Stalled, wherever it happens."""
    driver, before = _Stuck(at), threading.enumerate()
    reader = driver_reader.Reader(cfg.CONF, [(None, "odd")], lambda *_: driver, Limits(stall=0.1))
    try:
        with pytest.raises(Stalled, match="did not answer"):
            if at == "get_size":
                reader.size(Location("x", URL))
            else:
                read(reader.open(Location("x", URL)))
    finally:
        driver.free.set()
    settle(lambda: not begun_since(before))
    assert at != "read" or driver.closed.is_set()


def test_calls_left_behind_are_bounded() -> None:
    """A cluster that never answers does not cost a thread for each of its images: after some, no call is begun."""
    driver, before = _Stuck("read"), threading.enumerate()
    reader = driver_reader.Reader(cfg.CONF, [(None, "odd")], lambda *_: driver, Limits(stall=0.01))
    said = ""
    try:
        while "earlier calls into drivers have not returned yet" not in said:
            with pytest.raises(Stalled) as caught:
                read(reader.open(Location("x", URL)))
            said = str(caught.value)
            assert len(begun_since(before)) <= 2 * waiting.MOST
    finally:
        driver.free.set()
    settle(lambda: not begun_since(before))
    driver.at = "never"
    assert read(driver_reader.Reader(cfg.CONF, [(None, "odd")], lambda *_: driver).open(Location("x", URL))) == DATA


def test_threads_end() -> None:
    """Bodies read, left early or broken leave no thread, and what a driver gave is closed."""
    before = threading.enumerate()
    driver = _Stuck("never")
    reader = reader_of(driver)
    read(reader.open(Location("x", URL)))
    reader.size(Location("x", URL))
    driver.closed.clear()
    with reader.open(Location("x", URL)) as body:
        next(iter(body))
    settle(driver.closed.is_set)
    settle(lambda: not begun_since(before))


ENDING = """
import sys, time
from glance_replicas import errors
from glance_replicas.stores.drivers import waiting
one, stuck = waiting.Worker("one"), waiting.Worker("stuck")
one.call(lambda: None, 60)
try:
    stuck.call(lambda: time.sleep(600), 0.1)
except errors.Stalled:
    stuck.close(lambda: print("never"))
one.close(lambda: (time.sleep(0.5), print("closed")))
"""


def test_what_is_open_is_closed_before_the_program_ends() -> None:
    """A volume is not left attached by a program that is done; what does not answer holds up no end."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "closed\n"
    assert time.monotonic() - began < waiting.FAREWELL


def test_nothing_is_created(tmp_path: Path) -> None:
    """Making and using sources creates no folder: on an unmounted file system it would hide the loss."""
    root = tmp_path / "not" / "mounted"
    text = f"[DEFAULT]\nenabled_backends = disk:file\n[disk]\nfilesystem_store_datadir = {root}"
    with pytest.raises(Unreachable):
        load(tmp_path, text).open(Location("x", f"file://{root}/x", {"store": "disk"}))
    assert not root.parent.exists()


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("[glance_store]\nstores = file,http\nfilesystem_store_datadir = /a", ["/a"]),
        ("[glance_store]\nstores = file\nfilesystem_store_datadirs = /a:9\n"
         "filesystem_store_datadirs = /b", ["/a", "/b"]),
        ("[DEFAULT]\nenabled_backends = m1:file, m2:file\n[m1]\nfilesystem_store_datadir = /a\n"
         "[m2]\nfilesystem_store_datadirs = /b:1\nfilesystem_store_datadirs = /c", ["/a", "/b", "/c"]),
        ("[DEFAULT]\nenabled_backends = m3:file\n[backend_defaults]\nfilesystem_store_datadir = /d", ["/d"]),
        ("[DEFAULT]\nenabled_backends = m4:http, os_glance_staging_store:file", []),
    ],
)  # fmt: skip
def test_roots(tmp_path: Path, text: str, roots: list[str]) -> None:
    """The folders of file stores are found in every way the options may be written, without Glance's own stores."""
    load(tmp_path, text)
    stores = [one for one in configured.stores(cfg.CONF) if one.kind == "file"]
    assert [str(root) for one in stores for root in options.file_roots(cfg.CONF, one.id)] == roots


def test_limits_of_settings(tmp_path: Path) -> None:
    """Without limits of its own, a program keeps those of the options."""
    conf = tmp_path / "glance-api.conf"
    conf.write_text("[database]\nconnection = sqlite://\n[replicas]\nstall_timeout_seconds = 0.5")
    sources = from_settings(our_settings.load([str(conf)]))
    assert sources._readers[0]._wire._limits.stall == 0.5  # type: ignore[attr-defined]
    assert LIMITS.stall != 0.5


def test_the_drivers_own_options_are_ours(tmp_path: Path) -> None:
    """What we write again of the file driver's options, to start without it, is what it says itself."""
    from glance_store._drivers import filesystem

    own = {one.dest: one.default for one in filesystem.Store.OPTIONS}
    assert own.keys() >= {options._FOLDER, options._FOLDERS}
    assert own[options._FOLDER] == options._DEFAULT_FOLDER
    load(tmp_path, "[glance_store]\nstores = file")
    assert options.file_roots(cfg.CONF, None) == (Path(options._DEFAULT_FOLDER),)
