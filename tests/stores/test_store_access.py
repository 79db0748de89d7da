"""A file that root, who runs the tools, can read and Glance's user cannot: no copy that counts, and its remedy."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from services.web.faulty import FaultyServer
from support.places.originals import Original
from support.programs import Programs
from support.worlds.crowd import DATA, Crowd

from glance_replicas import checksum
from glance_replicas.model import Image, Location, Result
from glance_replicas.removal import proof
from glance_replicas.removal.causes import Damaged
from glance_replicas.stores.file import access
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.file.options import FileHabits
from glance_replicas.stores.file.writer import Writer
from glance_replicas.stores.sources import Sources
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.probe import probe

pytest_plugins = ["support.desk"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what is not for it, and gives files away")

OWNER, STRANGER = 64321, 64322  # users that no machine has
ID = "71000000-0000-4000-8000-000000000001"


@pytest.fixture
def root() -> Iterator[Path]:
    """A store's folder that belongs to Glance's user and that everybody can reach."""
    top = Path(tempfile.mkdtemp(prefix="glance-replicas-store-"))
    top.chmod(0o755)
    folder = top / "store"
    folder.mkdir(mode=0o750)
    os.chown(folder, OWNER, OWNER)
    yield folder
    shutil.rmtree(top)


def put(path: Path, mode: int = 0o640, uid: int = OWNER, gid: int = OWNER, data: bytes = DATA) -> Path:
    path.write_bytes(data)
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def image(*paths: Path) -> Image:
    rows = [Location(ID, f"file://{path}", {"store": "fast"}, number) for number, path in enumerate(paths)]
    return Image(ID, "active", len(DATA), checksum.of([DATA], "sha512")[0], tuple(rows))


def see(root: Path, path: Path, evidence: Evidence = Evidence.FULL) -> Result:
    wanted = image(path)
    return probe(Sources([file_reader.Reader([root])]), wanted, wanted.locations[0], evidence)


def can_read(path: Path) -> bool:
    """What the kernel says, to the user himself."""
    who = {"user": OWNER, "group": OWNER, "extra_groups": []}
    return subprocess.run(["cat", path], capture_output=True, check=False, **who).returncode == 0  # type: ignore[call-overload]


MODES = [
    ((0o640, OWNER, OWNER), True),
    ((0o400, OWNER, STRANGER), True),
    ((0o040, STRANGER, OWNER), True),
    ((0o004, STRANGER, STRANGER), True),
    ((0o600, 0, 0), False),
    ((0o640, 0, 0), False),
    ((0o044, OWNER, OWNER), False),
    ((0o604, STRANGER, OWNER), False),
    ((0o000, OWNER, OWNER), False),
]


@pytest.mark.parametrize(("rights", "good"), MODES)
@pytest.mark.parametrize("evidence", [Evidence.FULL, Evidence.SIZE])
def test_as_the_kernel_says(root: Path, rights: tuple[int, int, int], good: bool, evidence: Evidence) -> None:
    """Intact only where the owner of the folder can really read the file; else denied, and the command helps."""
    path = put(root / ID, *rights)
    found = see(root, path, evidence)
    assert can_read(path) is good
    assert found.verdict is (Verdict.INTACT if good else Verdict.DENIED), found.detail
    if not good:
        assert f"cannot be read by {OWNER}:{OWNER}, the owner of {root}" in found.detail
        subprocess.run(found.detail.partition(access.REMEDY)[2], shell=True, check=True)
        assert can_read(path)
        assert see(root, path, evidence).verdict is Verdict.INTACT


@pytest.mark.parametrize(("above", "mode"), [("inside", 0o700), ("root", 0o600), ("top", 0o700)])
def test_a_folder_on_the_way(root: Path, above: str, mode: int) -> None:
    """A folder that he may not enter, in the store, the store's own, or above it: denied, and the command helps."""
    folder = {"inside": root / "inside", "root": root, "top": root.parent}[above]
    folder.mkdir(exist_ok=True)
    path = put(root / "inside" / ID if above == "inside" else root / ID)
    folder.chmod(mode)
    found = see(root, path)
    assert (found.verdict, can_read(path)) == (Verdict.DENIED, False), found.detail
    assert f"{folder} (" in found.detail
    subprocess.run(found.detail.partition(access.REMEDY)[2], shell=True, check=True)
    assert can_read(path)
    assert see(root, path).verdict is Verdict.INTACT


def test_an_access_control_list_is_not_judged(root: Path) -> None:
    """What the mode alone does not decide is not called denied."""
    path = put(root / ID, 0o600, 0, 0)
    entries = ((1, 6, 0xFFFFFFFF), (2, 4, OWNER), (4, 0, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
    raw = b"\x02\x00\x00\x00" + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, bits, who in entries
    )
    try:
        os.setxattr(path, "system.posix_acl_access", raw)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error}")
    assert can_read(path)
    assert see(root, path).verdict is Verdict.INTACT


def test_damage_comes_first(root: Path) -> None:
    """Wrong bytes that Glance cannot read either are corrupt, not merely denied."""
    assert see(root, put(root / ID, 0o600, 0, 0, DATA[::-1])).verdict is Verdict.CORRUPT


def test_a_folder_of_root_denies_nothing(root: Path) -> None:
    """Where root owns the folder, as whom Glance runs is not known."""
    os.chown(root, 0, 0)
    assert see(root, put(root / ID, 0o600, STRANGER, STRANGER)).verdict is Verdict.INTACT


def test_it_is_no_copy_that_stays(root: Path) -> None:
    """Prune refuses the damaged copy while the only other one is closed to Glance, and allows it afterwards."""
    good, bad = put(root / ID, 0o600, 0, 0), put(root / "bad", data=DATA[::-1])
    wanted = image(good, bad)

    def answer() -> proof.Proof | proof.Refusal:
        results = [probe(Sources([file_reader.Reader([root])]), wanted, one, Evidence.FULL) for one in wanted.locations]
        now = datetime.now(UTC)
        return proof.removable(wanted, wanted.locations[1], results, now=now, judged=wanted.digest, cause=Damaged())

    refused = answer()
    assert isinstance(refused, proof.Refusal)
    assert refused.unknown
    put(good)
    assert isinstance(answer(), proof.Proof)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((0o600, 0, 0), (0o440, OWNER, OWNER)),
        (None, (0o440, OWNER, OWNER)),
        ((0o644, 0, 0), (0o644, 0, 0)),
        ((0o600, OWNER, STRANGER), (0o600, OWNER, STRANGER)),
    ],
)
def test_repair_leaves_it_readable(
    root: Path, before: tuple[int, int, int] | None, after: tuple[int, int, int]
) -> None:
    """Written anew it is the owner's, in the mode that Glance writes, unless he could read the old one as it was."""
    path = root / ID
    if before:
        put(path, *before, data=b"damaged")
    Writer([root], {root: FileHabits(mode=0o440)}).rewrite(f"file://{path}", Original(DATA), lambda: None)
    facts = path.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == after
    assert can_read(path)


def test_the_programs_say_so(tmp_path: Path, programs: Programs, faulty: FaultyServer, root: Path) -> None:
    """Verify: status 3 and the command. Repair and prune: the other, damaged copy is kept for want of an answer. Where
    another copy is intact, repair leaves the file intact and readable for the store's owner."""
    crowd = Crowd(tmp_path / "crowd", programs, faulty)
    machine = crowd.machine()
    machine.configure({"fast": {"filesystem_store_datadir": str(root)}})
    (name,) = crowd.add(1)
    good = put(root / name, 0o600, 0, 0)
    crowd.web.put(crowd.paths[name][0], DATA[::-1])
    crowd.site.add_location(name, f"file://{good}", {"store": "fast"})
    done = crowd.verify(machine, name, "--store", "fast")
    assert done.status == 3, done
    assert "1 denied" in done.out
    assert f"next: chown {OWNER}:{OWNER} {good}; then: replica verify {name}" in done.out
    done = programs.run("--config-file", machine.config_file, "repair", name)
    assert "no copy is known to be intact, and some could not be asked" in done.out, done
    assert f"next: chown {OWNER}:{OWNER} {good}" in done.out
    assert crowd.verify(machine, name).status in (1, 3)
    done = programs.run("--config-file", machine.config_file, "prune", name, "--state", "corrupt", "--yes")
    assert (done.status, len(crowd.site.locations(name))) == (3, 2), done
    crowd.web.put(crowd.paths[name][0], DATA)
    put(good, 0o600, 0, 0, DATA[::-1])
    assert crowd.verify(machine, name).status == 1
    done = programs.run("--config-file", machine.config_file, "repair", name, "--yes", "-f", "json")
    assert [row["Action"] for row in done.rows] == ["restored"], done
    assert (good.read_bytes(), can_read(good)) == (DATA, True)
    assert crowd.verify(machine, name).status == 0
