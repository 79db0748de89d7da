"""The writer of Swift objects on a real Swift: plain ones, and large ones by the segments that are wrong."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from services.stores.swift import Swift
from support.places.originals import Original
from support.places.readers import LIMITS, dlo, load, plain, read, slo, swift_url

from glance_replicas.errors import Corrupt, Refused, Unreachable
from glance_replicas.model import Location
from glance_replicas.stores.sources import Sources
from glance_replicas.stores.swift.writer import Writer

DATA = random.Random(11).randbytes((3 << 20) + 5)
STEP = len(DATA) // 5 + 1  # as test_sources cuts
_names = (f"90000000-0000-4000-8000-{number:012d}" for number in range(1, 1000))

Damage = Callable[[Any, str], None]


@pytest.fixture(scope="module")
def connection(swift: Swift) -> Iterator[Any]:
    made = swift.connection()
    for container in (swift.container, "segments"):
        made.put_container(container)
    yield made
    made.close()


@pytest.fixture
def sources(swift: Swift, tmp_path: Path) -> Sources:
    """Options under which everything fits a plain object."""
    return configured(swift, tmp_path)


def configured(swift: Swift, folder: Path, **sizes: int) -> Sources:
    options = "\n".join(f"{name} = {value}" for name, value in swift.store_options(**sizes).items())
    return load(folder, f"[DEFAULT]\nenabled_backends = fast:swift\n[fast]\n{options}")


def restore(swift: Swift, name: str, original: Original | None = None, ready: Callable[[], None] = lambda: None) -> Any:
    return Writer(cfg.CONF, "fast", LIMITS).rewrite(swift_url(swift, name), original or Original(DATA), ready)


def bytes_of(sources: Sources, swift: Swift, name: str) -> bytes:
    return read(sources.open(Location("x", swift_url(swift, name), {"store": "fast"})))


def stamps(connection: Any, name: str) -> dict[str, str]:
    """When each segment of the object was written."""
    found = connection.get_container("segments", prefix=f"{name}-")[1]
    return {one["name"]: one["last_modified"] for one in found}


def other(connection: Any, name: str) -> None:
    connection.put_object("segments", f"{name}-00002", b"!" * STEP)


def short(connection: Any, name: str) -> None:
    connection.put_object("segments", f"{name}-00002", b"!")


def gone(connection: Any, name: str) -> None:
    connection.delete_object("segments", f"{name}-00002")


@pytest.mark.parametrize("damage", [b"!" * len(DATA), b"short", None], ids=["corrupt", "short", "missing"])
def test_plain(swift: Swift, connection: Any, sources: Sources, damage: bytes | None) -> None:
    """One PUT under the same name, of an object that was damaged or not there."""
    name = next(_names)
    if damage is not None:
        plain(connection, name, damage)
    restore(swift, name).keep()
    assert bytes_of(sources, swift, name) == DATA


@pytest.mark.parametrize("damage", [other, short, gone])
@pytest.mark.parametrize("upload", [dlo, slo])
def test_only_the_broken_segment(
    swift: Swift, connection: Any, sources: Sources, upload: Callable[[Any, str, bytes], None], damage: Damage
) -> None:
    """A segment with other bytes, cut short or lost is written under its name; the others and the manifest stay."""
    name = next(_names)
    upload(connection, name, DATA)
    before, manifest = stamps(connection, name), connection.head_object(swift.container, name)["x-timestamp"]
    damage(connection, name)
    restore(swift, name).keep()
    assert bytes_of(sources, swift, name) == DATA
    after = stamps(connection, name)
    assert [one for one in before if before[one] != after[one]] == [f"{name}-00002"]
    assert connection.head_object(swift.container, name)["x-timestamp"] == manifest


@pytest.mark.parametrize("upload", [dlo, slo])
def test_the_manifest_is_wrong(
    swift: Swift, connection: Any, sources: Sources, upload: Callable[[Any, str, bytes], None]
) -> None:
    """Segments that cannot be this image's: all anew, and the old ones go only once that is proven."""
    name = next(_names)
    upload(connection, name, DATA[::-1] + b"more")
    if upload is dlo:  # whose list says nothing of how many there are to be, unless one makes no sense
        connection.put_object("segments", f"{name}-99999", b"stranger")
    restored = restore(swift, name)
    assert bytes_of(sources, swift, name) == DATA
    assert len(stamps(connection, name)) >= 5
    restored.keep()
    assert stamps(connection, name) == {}
    assert bytes_of(sources, swift, name) == DATA


def test_all_anew_as_segments(swift: Swift, connection: Any, tmp_path: Path) -> None:
    """Too large for one object: new segments under other names, before which the manifest is switched; and again."""
    sources = configured(swift, tmp_path, large_object_mb=1, chunk_mb=1)
    name = next(_names)
    names = {f"{name}.{letter}-{number:05d}" for letter in "ab" for number in range(1, 5)}
    connection.put_object(swift.container, f"{name}.a-00009", b"left by a kill")
    restore(swift, name).keep()
    assert bytes_of(sources, swift, name) == DATA
    connection.put_object(swift.container, f"{name}.a-stranger", b"so that the list makes no sense")
    restore(swift, name).keep()
    assert bytes_of(sources, swift, name) == DATA
    found = {one["name"] for one in connection.get_container(swift.container, prefix=f"{name}.")[1]}
    assert found == {one for one in names if ".b-" in one}


@pytest.mark.parametrize("upload", [plain, dlo, slo])
def test_wrong_bytes_change_nothing(
    swift: Swift, connection: Any, sources: Sources, upload: Callable[[Any, str, bytes], None]
) -> None:
    """A source that turns out wrong, or a catalogue that says no: the object is as it was."""
    name = next(_names)
    upload(connection, name, bytes(len(DATA)))

    def no() -> None:
        raise Refused("deleted meanwhile")

    with pytest.raises(Corrupt):
        restore(swift, name, Original(DATA, given=DATA[::-1]))
    with pytest.raises(Refused):
        restore(swift, name, ready=no)
    assert bytes_of(sources, swift, name) == bytes(len(DATA))


def test_segments_fail_half_way(swift: Swift, connection: Any, tmp_path: Path) -> None:
    """All anew, and the source breaks: no new segment is left, and no manifest stands before them."""
    configured(swift, tmp_path, large_object_mb=1, chunk_mb=1)
    name = next(_names)
    with pytest.raises(Corrupt):
        restore(swift, name, Original(DATA, given=DATA[:-1] + b"!"))
    assert connection.get_container(swift.container, prefix=name)[1] == []


@pytest.mark.parametrize("upload", [plain, dlo])
def test_remove(swift: Swift, connection: Any, sources: Sources, upload: Callable[[Any, str, bytes], None]) -> None:
    """Of an image deleted meanwhile what was written goes: the object, and the segment that Glance could not see."""
    name = next(_names)
    upload(connection, name, bytes(len(DATA)))
    restored = restore(swift, name)
    restored.remove()
    assert connection.get_container(swift.container, prefix=name)[1] == []
    assert stamps(connection, name) == {}


def test_no_container(swift: Swift, sources: Sources) -> None:
    """A container that is not there may be another account's: nothing is written."""
    url = swift_url(swift, "x", "no-such-container")
    with pytest.raises(Unreachable):
        Writer(cfg.CONF, "fast", LIMITS).rewrite(url, Original(DATA), lambda: None)
