"""The writer of file URLs: right bytes in place of wrong ones, all or nothing, and never outside its folders."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places.originals import Original

from glance_replicas.errors import Corrupt, Denied, Refused, Unreachable, Unwritable
from glance_replicas.stores.file.writer import STAGED, Writer

DATA = os.urandom(3 << 20)


class Broken(Original):
    """A source that breaks off half way."""

    def whole(self) -> Iterator[bytes]:
        yield self._given[: 2 << 20]
        raise Unreachable("broken off")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def damaged(root: Path) -> Path:
    path = root / "image"
    path.write_bytes(b"damaged")
    path.chmod(0o604)
    return path


def restore(root: Path, path: Path, original: Original | None = None, ready: object = None) -> object:
    def default() -> None:
        assert path.exists() is (path.name == "image"), "what was there has gone before the new bytes are in place"

    return Writer([root]).rewrite(f"file://{path}", original or Original(DATA), ready or default)  # type: ignore[arg-type]


def left(root: Path) -> set[str]:
    return {one.name for one in root.iterdir()}


def test_in_place(root: Path, damaged: Path) -> None:
    """The bytes are right, owner and mode are as they were, and nothing else is left."""
    if os.geteuid() == 0:
        os.chown(damaged, 1234, 4321)
    before = damaged.stat()
    restore(root, damaged)
    after = damaged.stat()
    assert damaged.read_bytes() == DATA
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert left(root) == {"image"}


def test_missing(root: Path) -> None:
    """A file that was not there belongs to whoever owns the folder, and nobody else may write it."""
    if os.geteuid() == 0:
        os.chown(root, 1234, 4321)
    path = root / "gone"
    restore(root, path)
    facts = path.stat()
    assert path.read_bytes() == DATA
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o640, root.stat().st_uid, root.stat().st_gid)


@pytest.mark.parametrize(
    ("original", "kind"),
    [
        (Original(DATA, given=DATA[::-1]), Corrupt),
        (Original(DATA, given=DATA[:-1]), Corrupt),
        (Broken(DATA), Unreachable),
    ],
    ids=["other bytes", "too short", "broken off"],
)
def test_wrong_bytes_change_nothing(root: Path, damaged: Path, original: Original, kind: type[Exception]) -> None:
    """A source that turns out wrong, or breaks: the damaged file is as it was, and nothing else is left."""
    with pytest.raises(kind):
        restore(root, damaged, original)
    assert (damaged.read_bytes(), left(root)) == (b"damaged", {"image"})


def test_told_not_to(root: Path, damaged: Path) -> None:
    """`ready` is asked when all is proven; its no changes nothing."""

    def no() -> None:
        assert (root / STAGED.format("image")).stat().st_size == len(DATA)
        raise Refused("deleted meanwhile")

    with pytest.raises(Refused):
        restore(root, damaged, ready=no)
    assert (damaged.read_bytes(), left(root)) == (b"damaged", {"image"})


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_changed_meanwhile(root: Path, damaged: Path, change: str) -> None:
    """A file that Glance removed, or somebody replaced, while the new one was written is not overwritten."""

    def meanwhile() -> None:
        damaged.unlink()
        if change == "replaced":
            (root / "other").write_bytes(b"restored by hand")
            (root / "other").rename(damaged)

    with pytest.raises(Refused, match="replaced or removed meanwhile"):
        restore(root, damaged, ready=meanwhile)
    assert left(root) == ({"image"} if change == "replaced" else set())


def test_after_a_kill(root: Path, damaged: Path) -> None:
    """What a killed one left, longer than the image, is begun anew."""
    (root / STAGED.format("image")).write_bytes(bytes(5 << 20))
    restore(root, damaged)
    assert (damaged.read_bytes(), left(root)) == (DATA, {"image"})


def test_two_at_once(root: Path, damaged: Path) -> None:
    """The second is refused while the first is writing, and harms neither."""

    def second() -> None:
        with pytest.raises(Refused, match="another repair"):
            restore(root, damaged)

    restore(root, damaged, ready=second)
    assert (damaged.read_bytes(), left(root)) == (DATA, {"image"})


def test_a_name_that_is_somebody_elses(root: Path, damaged: Path) -> None:
    """A link or a second name where the new file would grow is not written through."""
    precious = root / "precious"
    precious.write_bytes(b"precious")
    (root / STAGED.format("image")).hardlink_to(precious)
    with pytest.raises(Refused):
        restore(root, damaged)
    (root / STAGED.format("image")).unlink()
    (root / STAGED.format("image")).symlink_to(precious)
    with pytest.raises(Unwritable):
        restore(root, damaged)
    assert precious.read_bytes() == b"precious"


def test_never_outside(root: Path, tmp_path: Path) -> None:
    """Outside the store's folder, by name, by `..` or by a link, nothing is written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    for path in (outside / "x", root / ".." / "outside" / "x", root / "link" / "x"):
        with pytest.raises(Denied):
            Writer([root]).rewrite(f"file://{path}", Original(DATA), lambda: None)
    assert not left(outside)


def test_a_folder_that_is_gone(root: Path) -> None:
    """Without its folder nothing is written, and it is said."""
    with pytest.raises(Unwritable, match="no such file"):
        restore(root, root / "folder" / "x")


def test_remove_takes_only_what_was_written(root: Path, damaged: Path) -> None:
    """The file goes again, but not another one that has its name by now."""
    first = restore(root, damaged)
    first.remove()  # type: ignore[attr-defined]
    assert left(root) == set()
    second = restore(root, root / "again")
    (root / "new").write_bytes(b"another")
    (root / "new").rename(root / "again")
    second.remove()  # type: ignore[attr-defined]
    assert left(root) == {"again"}
