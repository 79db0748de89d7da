"""docs/add-a-backend.md, done: a kind of store from another distribution, and what the real `replica` does in it."""

import itertools
import json
import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from services import environment, need
from services.configuration import conf_text
from services.databases.schema import add_image, add_ledger, query, sqlite_database
from services.web.faulty import FaultyServer
from support import outside
from support.programs import Done, Programs

from glance_replicas import settings
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.client.choose import Here, order
from glance_replicas.errors import ConfigError
from glance_replicas.model import Location, Result
from glance_replicas.settings import default_ledger
from glance_replicas.stores import kinds, sources
from glance_replicas.stores.sources import Sources
from glance_replicas.verdict import Evidence, Verdict
from glance_replicas.verify.copy_identities import CopyIdentities
from glance_replicas.verify.retry import is_suspect

ONE_OBJECT = """
from glance_replicas.stores.contract import Kind
from glance_replicas.stores.identity import ObjectIdentity
class Made(Kind):
    schemes = ("shed",)
    cost = 0
    is_web = True
    denies_for_good = True
    def seen_here(self, url):
        return ObjectIdentity("the only one")
"""
DATA = random.Random(41).randbytes(300_000)
_ids = itertools.count(1)


class Loft:
    """A catalogue without a Glance; a file store `fast`, and the store `far` of the kind that was installed."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.fast, self.far, self._programs = folder / "fast", folder / "far", programs
        for path in (self.fast, self.far):
            path.mkdir(parents=True)
            (path / "other").write_bytes(b"so that it does not look unmounted")
        self.database = sqlite_database(folder / "glance.sqlite")
        add_ledger(default_ledger(self.database))
        self.conf = folder / "glance-api.conf"
        options = {
            "DEFAULT": {"enabled_backends": "fast:file, web:http, far:attic"},
            "database": {"connection": self.database},
            "fast": {"filesystem_store_datadir": str(self.fast)},
            "far": {"attic_folder": str(self.far)},
        }
        self.conf.write_text(conf_text(options))

    def run(self, *words: object) -> Done:
        """`replica` with this configuration."""
        return self._programs.run("--config-file", self.conf, *words)

    def image(self, *urls: str, status: str = "active") -> str:
        """An image of DATA at these URLs, `{}` in them for its id; its id."""
        name = f"41000000-0000-4000-8000-{next(_ids):012d}"
        add_image(self.database, name, DATA, status)
        catalogue = Catalogue(self.database)
        for url in urls:
            store = {"attic": "far", "file": "fast", "http": "web"}[url.partition(":")[0]]
            host = {"replica_host": "api9"} if store == "web" else {}
            catalogue.add(name, url.format(name), {"store": store, **host})
        catalogue.close()
        return name

    def urls(self, image: str) -> list[str]:
        found = "SELECT value FROM image_locations WHERE image_id = :image AND deleted = :no ORDER BY id"
        return [one["value"] for one in query(self.database, found, image=image, no=False)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return outside.install(tmp_path_factory.mktemp("attic"))


@pytest.fixture(scope="module")
def attic(installed: Path) -> Iterator[Programs]:
    """`replica` where it is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(installed))
        programs = Programs()
    with programs:
        yield programs


@pytest.fixture(scope="module")
def loft(attic: Programs, tmp_path_factory: pytest.TempPathFactory) -> Loft:
    return Loft(tmp_path_factory.mktemp("loft") / "site", attic)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as made:
        yield made


def test_listed_verified_repaired(loft: Loft) -> None:
    """An image in it is listed with its kind, read in full, found damaged, and written anew from another store."""
    image = loft.image("attic://{}", f"file://{loft.fast}/{{}}")
    (loft.fast / image).write_bytes(DATA)
    (loft.far / image).write_bytes(DATA[::-1])
    rows = loft.run("list", image, "-f", "json").rows
    assert [(one["Kind"], one["Store"]) for one in rows] == [("attic", "far"), ("file", "fast")]
    done = loft.run("verify", image, "-f", "json")
    assert (done.status, [one["Verdict"] for one in done.rows]) == (1, ["corrupt", "intact"])
    done = loft.run("repair", image, "--yes", "-f", "json")
    assert (done.status, [one["Action"] for one in done.rows]) == (0, ["restored"]), done.err
    assert (loft.far / image).read_bytes() == DATA
    assert sorted(path.name for path in loft.far.iterdir()) == sorted([image, "other"])


def test_put_back(loft: Loft, server: FaultyServer) -> None:
    """An image of which a host alone has a copy is put into it, where its kind says that Glance would."""
    server.put("/replicas/", DATA)
    image = loft.image(f"{server.url}/replicas/{{}}")
    server.put(f"/replicas/{image}", DATA)
    done = loft.run("repair", image, "--to-store", "far", "--yes")
    assert done.status == 0, done
    assert (loft.far / image).read_bytes() == DATA
    assert f"attic://{image}" in loft.urls(image)


def test_audited(attic: Programs, tmp_path: Path) -> None:
    """What is dark in it and what is lost are named; the dark goes after two audits."""
    loft = Loft(tmp_path / "site", attic)
    kept, lost, dark = loft.image("attic://{}"), loft.image("attic://{}"), loft.image(status="deleted")
    for name in (kept, dark):
        (loft.far / name).write_bytes(DATA)
    (loft.far / "other").unlink()
    words = ("audit", "--store", "far", "--grace", "0s", "--remove-dark", "--max-share", "100", "--yes", "-f", "json")
    rows = loft.run(*words).rows
    assert {(one["Kind"], one["Name"], one["Action"]) for one in rows} == {
        ("dark", dark, "keep"),
        ("lost", lost, "keep"),
    }
    assert {(one["Name"], one["Action"]) for one in loft.run(*words).rows} == {(dark, "removed"), (lost, "keep")}
    assert [path.name for path in loft.far.iterdir()] == [kept]


def register(folder: Path, kind: str, text: str, distribution: str = "broken") -> None:
    """A distribution with an entry point for this kind, and its module."""
    (folder / f"{kind}_{distribution}.py").write_text(text)
    facts = folder / f"{distribution}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[glance_replicas.stores]\n{kind} = {kind}_{distribution}:Made\n")


def test_a_broken_one(loft: Loft, tmp_path: Path) -> None:
    """The program, started as an operator starts it: exit 2, one line with entry point, reason and remedy.

    `replica check` says the same as a finding.
    """
    register(tmp_path, "attic", "import no_such_library")
    what = (
        "store kind attic: entry point glance_replicas.stores: attic = attic_broken:Made of broken 1.0 cannot be "
        "loaded: ModuleNotFoundError: No module named 'no_such_library'"
    )
    command = [need("replica"), "--config-file", loft.conf]
    begin = partial(subprocess.run, capture_output=True, text=True, env=environment(PYTHONPATH=str(tmp_path)))
    done = begin([*command, "verify", loft.image("attic://{}")], timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"replica: error: {what}; {kinds.REMEDY}"
    assert "Traceback" not in done.stderr
    checked = begin([*command, "check", "-f", "json"], timeout=60)
    assert {what: kinds.REMEDY}.items() <= {one["What"]: one["Remedy"] for one in json.loads(checked.stdout)}.items()


def test_its_registration_says_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How dear it is, what its answers are worth and which names are one copy: no other module knows of the kind."""
    register(tmp_path, "shed", ONE_OBJECT, "shed")
    monkeypatch.syspath_prepend(tmp_path)
    kinds.load("shed")
    first, second, swift = (Location("i", url) for url in ("shed://a/1", "shed://b/1", "swift://a/b"))
    dear, cheap = (choice.location for choice in order([swift, first], Here())[::-1])
    assert (cheap, dear) == (first, swift)
    found = {one: Result(first, one, Evidence.FULL) for one in Verdict}
    suspects = {Verdict.MISSING, Verdict.WRONG_SIZE}
    assert {one for one in (*suspects, Verdict.DENIED) if is_suspect(found[one])} == suspects
    places = CopyIdentities(Sources([]))
    assert places.surely(first, second)
    assert places.identity(first) != places.identity(swift)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("dict", "Made = dict", "is no glance_replicas.stores.contract.Kind"),
        (
            "none",
            "from glance_replicas.stores.contract import Kind\nclass Made(Kind):\n    readers = None",
            "failed: Type",
        ),
    ],
)
def test_what_else_may_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, reason: str
) -> None:
    """Something else than a kind, and one whose readers cannot be made, are told in the same way."""
    register(tmp_path, kind, text)
    monkeypatch.syspath_prepend(tmp_path)
    conf = tmp_path / "glance-api.conf"
    conf.write_text(f"[DEFAULT]\nenabled_backends = far:{kind}\n[database]\nconnection = sqlite://\n")
    with pytest.raises(ConfigError, match=rf"{kind} = {kind}_broken:Made of broken 1\.0 {reason}.* \(pip check\)"):
        sources.from_settings(settings.load([str(conf)]))


def test_two_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two distributions is meant is not guessed: both are named."""
    for name in ("first", "second"):
        register(tmp_path, "twice", "", name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"first:Made of first 1\.0.*second:Made of second 1\.0.*uninstall"):
        kinds.load("twice")
