"""The file reader: what it refuses, and when a file that is not there is missing."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from glance_replicas.errors import Absent, Denied, SourceError, Unreachable, WrongAnswer
from glance_replicas.stores.file import reader as file_reader


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A healthy root with one image `x`, beside it a folder with a `secret`."""
    for name in ("root", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "root" / "x").write_bytes(b"bytes of x")
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path / "root"


def read(root: Path, url: str) -> bytes:
    with file_reader.Reader([root]).open(url) as body:
        return b"".join(body)


def error(root: Path, url: str) -> type[SourceError]:
    """What `open` raises, and `size` as well."""
    kinds = set()
    for call in (file_reader.Reader([root]).open, file_reader.Reader([root]).size):
        with pytest.raises(SourceError) as caught:
            call(url)
        kinds.add(type(caught.value))
    assert len(kinds) == 1
    return kinds.pop()


def test_spellings(root: Path) -> None:
    """The spellings of a path that Glance's driver takes: both schemes, doubled slashes, nothing decoded."""
    (root / "a%20b").write_bytes(b"percent")
    assert read(root, f"file://{root}/x") == read(root, f"filesystem://{root}/x") == b"bytes of x"
    assert read(root, f"file://{root}//x") == b"bytes of x"
    assert read(root, f"file://{root}/a%20b") == b"percent"


def test_root_behind_a_link(root: Path, tmp_path: Path) -> None:
    """A root that is itself a link, in the options or in the URL, is the same root."""
    link = tmp_path / "link"
    link.symlink_to(root)
    assert read(link, f"file://{root}/x") == read(root, f"file://{link}/x") == b"bytes of x"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/../outside/secret",
        "{root}/..",
        "{root}",
        "{root}/.",
        "x",
        "",
        "{root}-other/x",
        "{root}\0",
    ],
)
def test_outside(root: Path, path: str) -> None:
    """Nothing outside the root is read, whether it is there or not, and it is never called missing."""
    assert error(root, "file://" + path.format(root=root)) is Denied


def test_links_out(root: Path, tmp_path: Path) -> None:
    """A link in the root, as a file or as a folder, does not lead out of it."""
    (root / "file").symlink_to(tmp_path / "outside" / "secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "inside").symlink_to(root / "x")
    assert error(root, f"file://{root}/file") is Denied
    assert error(root, f"file://{root}/folder/secret") is Denied
    assert error(root, f"file://{root}/inside") is Denied  # the last component is never a link


def test_no_regular_file(root: Path) -> None:
    """A folder and a pipe are no images, and the pipe is not waited for."""
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    assert error(root, f"file://{root}/folder") is WrongAnswer
    assert error(root, f"file://{root}/pipe") is WrongAnswer


def test_missing_in_a_healthy_root(root: Path) -> None:
    """Below a root that holds something, what is not there is Absent, in a folder that is not there either."""
    assert error(root, f"file://{root}/y") is Absent
    assert error(root, f"file://{root}/folder/y") is Absent


def test_root_gone_or_unmounted(root: Path) -> None:
    """A root that is empty, holds only what a new file system holds, or is not there makes nothing Absent."""
    (root / "x").unlink()
    assert error(root, f"file://{root}/x") is Unreachable
    (root / "lost+found").mkdir()
    assert error(root, f"file://{root}/x") is Unreachable
    shutil.rmtree(root)
    assert error(root, f"file://{root}/x") is Unreachable


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A root with an image, for a process without root's rights."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    folder = Path(tempfile.mkdtemp())
    (folder / "x").write_bytes(b"x")
    folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


def change_mode(path: Path, mode: int) -> None:
    os.seteuid(0)
    path.chmod(mode)
    os.seteuid(65534)


def test_no_permission(as_nobody: Path) -> None:
    """A file or a root that may not be opened is Denied; one that may not be listed leaves "missing" undecided."""
    change_mode(as_nobody / "x", 0o600)
    assert error(as_nobody, f"file://{as_nobody}/x") is Denied
    change_mode(as_nobody, 0o711)
    assert error(as_nobody, f"file://{as_nobody}/y") is Unreachable
    change_mode(as_nobody, 0o700)
    assert error(as_nobody, f"file://{as_nobody}/x") is Denied


def test_several_roots(root: Path, tmp_path: Path) -> None:
    """Each root is judged by itself: an empty one says nothing, a healthy one beside or within it does."""
    empty = tmp_path / "empty"
    empty.mkdir()
    reader = file_reader.Reader([empty, tmp_path, root])
    with pytest.raises(Unreachable):
        reader.open(f"file://{empty}/y")
    with pytest.raises(Absent):
        reader.open(f"file://{root}/y")


def test_cut_off_while_read(root: Path) -> None:
    """A file that shrinks under the reader raises; one that grows ends at the size that was stated."""
    (root / "big").write_bytes(bytes(3 << 20))
    with file_reader.Reader([root]).open(f"file://{root}/big") as body:
        chunks = iter(body)
        next(chunks)
        os.truncate(root / "big", 2 << 20)
        with pytest.raises(Unreachable, match="cut off"):
            list(chunks)
    with file_reader.Reader([root]).open(f"file://{root}/x") as body:
        with (root / "x").open("ab") as partial_file:
            partial_file.write(b" and more")
        assert b"".join(body) == b"bytes of x"


def test_replaced_while_read(root: Path) -> None:
    """A body is of the file as it was opened, whatever takes its name meanwhile."""
    with file_reader.Reader([root]).open(f"file://{root}/x") as body:
        (root / "x").unlink()
        (root / "x").write_bytes(b"other thing")
        assert b"".join(body) == b"bytes of x"
