"""`replica audit` over a real catalogue and real folders: what is dark or lost, what is neither, and what may go."""

import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Done, Programs

from glance_replicas.audit.flow import Auditor, AuditReport
from glance_replicas.catalogue.images import Catalogue
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.model import Host
from glance_replicas.stores.contract import Listed
from glance_replicas.stores.file import listing as file_listing
from glance_replicas.stores.file.reader import Reader
from glance_replicas.stores.sources import Sources

pytest_plugins = ["support.desk"]

_ids = itertools.count(1)


class Place:
    """A site whose Glance never runs: a catalogue, a file store, and one host's directory."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.site = GlanceSite(folder)
        self.host = self.site.add_host("127.0.0.2", start=False)
        self.store, self._programs = self.site.store_dir, programs
        self.ledger = Ledger(self.site.ledger_url)

    def run(self, *words: object) -> Done:
        return self._programs.run("--config-file", self.host.config_file, "audit", *words)

    def rows(self, *words: object, status: int) -> list[dict[str, Any]]:
        done = self.run(*words, "-f", "json")
        assert done.status == status, done.err
        return list(done.rows)

    def image(self, status: str = "active", *, has_file: bool = True, url: str = "{path}") -> str:
        """An image in this status, registered in the store at this URL, unless it is deleted; its id."""
        name = f"80000000-0000-4000-8000-{next(_ids):012d}"
        add_image(self.site.database_url, name, b"bytes", status)
        if status in ("active", "deactivated"):
            path = url.format(path=self.store / name, store=self.store, name=name)
            self.site.add_location(name, f"file://{path}", {"store": "fast"})
        if has_file:
            (self.store / name).write_bytes(b"bytes")
        return name

    def withdrawals(self) -> list[str]:
        return [one.image_id for one in self.ledger.withdrawals() if one.reason == "dark" and one.finished_at]

    def audited(self, listing: file_listing.Listing) -> AuditReport:
        """One audit of a listing of the test's own."""
        with closing(Catalogue(self.site.database_url)) as catalogue:
            auditor = Auditor(catalogue, self.ledger, Sources([Reader([self.store])]), grace_seconds=0)
            return auditor.audit([listing])[0]


@pytest.fixture
def place(tmp_path: Path, programs: Programs) -> Iterator[Place]:
    made = Place(tmp_path / "site", programs)
    with closing(made.ledger):
        yield made


STORE = ("--store", "fast", "--grace", "0s")
REMOVE = (*STORE, "--remove-dark", "--yes", "--max-share", "100")


def test_in_agreement(place: Place) -> None:
    """Every file has its row and every row its file: exit 0, and the sum."""
    place.image()
    place.image("deactivated")
    done = place.run(*STORE)
    assert (done.status, done.out) == (0, "store:fast: 2 listed, 2 in the catalogue: 0 dark, 0 lost\n")


def test_dark_and_lost_are_named(place: Place) -> None:
    """Each line has the place, the name, the size, since when, and the next command; exit 1."""
    place.image()
    dark, lost = place.image("deleted"), place.image(has_file=False)
    found = {row["Kind"]: row for row in place.rows(*STORE, status=1)}
    assert (found["dark"]["Place"], found["dark"]["Name"]) == ("store:fast", str(place.store / dark))
    assert (found["dark"]["Image"], found["dark"]["Status"], found["dark"]["Size"]) == (dark, "deleted", 5)
    assert found["dark"]["Since"].endswith("+00:00")
    assert found["dark"]["Next"] == "seen by 1 audit: later again replica audit --store fast"
    assert (found["lost"]["Name"], found["lost"]["Image"]) == (str(place.store / lost), lost)
    assert found["lost"]["Next"] == f"replica repair {lost}"
    again = {row["Kind"]: row for row in place.rows(*STORE, status=1)}
    assert (again["dark"]["Seen"], again["dark"]["Since"]) == (2, found["dark"]["Since"])
    assert again["dark"]["Next"] == "replica audit --store fast --remove-dark --yes"


def test_dark_twice_before_it_goes(place: Place) -> None:
    """The first audit removes nothing, nor does one without --yes; the next does, and it is written down."""
    place.image()
    dark = place.image("deleted")
    assert [row["Action"] for row in place.rows(*REMOVE, status=1)] == ["keep"]
    assert [row["Action"] for row in place.rows(*STORE, "--remove-dark", "--max-share", "50", status=1)] == ["remove"]
    assert (place.store / dark).exists()
    assert [row["Action"] for row in place.rows(*REMOVE, status=0)] == ["removed"]
    assert not (place.store / dark).exists()
    assert place.withdrawals() == [dark]
    assert place.run(*STORE).status == 0


def test_what_changes_between_two_audits_begins_anew(place: Place) -> None:
    """A dark file that grows is somebody's who is at work."""
    place.image()
    dark = place.image("deleted")
    place.run(*STORE)
    (place.store / dark).write_bytes(b"more bytes")
    assert [row["Action"] for row in place.rows(*REMOVE, status=1)] == ["keep"]


def test_a_living_images_file_is_never_removed(place: Place) -> None:
    """Of an image in any status but deleted, though no row names the file: reported, kept."""
    place.image()
    statuses = ("queued", "saving", "importing", "active", "deactivated", "killed")
    images = {place.image(status, url="{store}/elsewhere-{name}"): status for status in statuses}
    place.run(*REMOVE)
    rows = [row for row in place.rows(*REMOVE, status=1) if row["Kind"] == "dark"]
    assert {row["Image"]: row["Status"] for row in rows} == images
    assert {row["Action"] for row in rows} == {"keep"}
    assert all(f"never removed by us, the image is {row['Status']}" in row["Next"] for row in rows)
    assert all((place.store / image).exists() for image in images)


def test_delayed_delete_is_the_scrubbers(place: Place) -> None:
    """An image in pending_delete, and a row in that status of a living one, make nothing dark or lost."""
    image = place.image()
    place.image("pending_delete")
    place.site.rows(
        "UPDATE image_locations SET status = 'pending_delete', deleted = true WHERE image_id = :id", id=image
    )
    assert place.run(*STORE).status == 0


def test_young_files_are_not_dark(place: Place) -> None:
    """What is younger than --grace may be an upload; by default that is a day."""
    place.image()
    place.image("deleted")
    assert place.run("--store", "fast").status == 0
    assert place.run("--store", "fast", "--grace", "1h").status == 0


def test_comes_and_goes_during_the_listing(place: Place) -> None:
    """A file with its row that arrives while the folder is read is not dark, one that is deleted is not lost."""
    place.image()
    going = place.image()

    class Busy(file_listing.Listing):
        def entries(self) -> Iterator[Listed]:
            (place.store / going).unlink()
            place.site.rows(
                "UPDATE image_locations SET deleted = true, status = 'deleted' WHERE image_id = :id", id=going
            )
            place.image()
            return super().entries()

    report = place.audited(Busy("store:fast", "fast", [place.store]))
    assert (report.problem, report.findings, report.listed) == (None, (), 2)


def test_a_listing_that_is_behind_loses_nothing(place: Place) -> None:
    """What a listing leaves out is asked for by itself before it is called lost."""
    image = place.image()
    place.image()

    class Behind(file_listing.Listing):
        def entries(self) -> Iterator[Listed]:
            return (one for one in super().entries() if one.image_id != image)

    assert place.audited(Behind("store:fast", "fast", [place.store])).findings == ()


@pytest.mark.parametrize(("dark", "removed"), [(2, True), (3, False)])
def test_the_share_from_both_sides(place: Place, dark: int, removed: bool) -> None:
    """20 files: 2 dark are 10 %, and go; 3 are more than --max-share 10, and none goes."""
    for _ in range(20 - dark):
        place.image()
    names = [place.image("deleted") for _ in range(dark)]
    words = (*STORE, "--remove-dark", "--yes", "--max-share", "10")
    place.run(*words)
    done = place.run(*words)
    assert done.status == (0 if removed else 1)
    assert ("3 of 20 listed are dark, more than 10 %" in done.out) is not removed
    assert [(place.store / name).exists() for name in names] == [not removed] * dark


def test_the_wrong_root(place: Place) -> None:
    """Another file system in the store's place: all is dark and all is lost, and nothing goes."""
    images = [place.image() for _ in range(3)]
    others = [place.image("deleted") for _ in range(3)]
    for image in images:
        (place.store / image).unlink()
    words = (*STORE, "--remove-dark", "--yes")
    place.run(*words)
    done = place.run(*words)
    assert done.status == 1
    assert "nothing was removed: 3 of 3 listed are dark, more than 10 %: is it the right one?" in done.out
    assert all((place.store / name).exists() for name in others)


def test_an_empty_root(place: Place) -> None:
    """Nothing is there though rows name files: unmounted, so nothing is judged, and exit 3. Empty by right is 0."""
    assert place.run(*STORE).status == 0
    image = place.image()
    (place.store / image).unlink()
    done = place.run(*STORE)
    assert done.status == 3
    assert f"store:fast: nothing was judged: {place.store} is empty" in done.out
    assert "next: fix that, then: replica audit --store fast" in done.out


def test_a_folder_that_cannot_be_read(place: Place) -> None:
    """One folder of many fails to list: nothing of the store is judged or removed, though it was dark before."""
    place.image()
    dark = place.image("deleted")
    place.run(*REMOVE)
    inside = place.store / "inside"
    inside.mkdir()

    class Failing(file_listing.Listing):
        def entries(self) -> Iterator[Listed]:
            for one in super().entries():
                shutil.rmtree(inside, ignore_errors=True)  # it was listed in its parent, and is gone when it is opened
                yield one

    report = place.audited(Failing("store:fast", "fast", [place.store]))
    assert report.problem is not None
    assert f"inside in {place.store}: no such file" in report.problem
    assert (place.store / dark).exists()


def test_no_catalogue_no_judgement(place: Place, tmp_path: Path) -> None:
    """The catalogue does not answer: exit 3, and nothing goes."""
    place.image()
    dark = place.image("deleted")
    place.run(*REMOVE)
    place.host.configure(
        {
            "database": {"connection": f"sqlite:///{tmp_path}/no/such.sqlite"},
            "replicas": {"connection": place.site.ledger_url},
        }
    )
    assert place.run(*REMOVE).status == 3
    assert (place.store / dark).exists()


def test_spellings_and_links(place: Place, tmp_path: Path) -> None:
    """Doubled slashes name the same file; a link is no file and leads nowhere; one above the root does no harm."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "80000000-0000-4000-8000-00000000ffff").write_bytes(b"not ours")
    place.image(url="{store}//{name}")
    place.image(url="/{store}/{name}")
    (place.store / "link").symlink_to(outside)
    (place.store / "80000000-0000-4000-8000-00000000fffe").symlink_to(outside / "80000000-0000-4000-8000-00000000ffff")
    os.mkfifo(place.store / "pipe")
    above = tmp_path / "above"
    above.symlink_to(place.store.parent)
    place.image(url=f"{above}/store/{{name}}")
    done = place.run(*STORE)
    assert (done.status, done.out) == (0, "store:fast: 3 listed, 3 in the catalogue: 0 dark, 0 lost\n")


def test_names_that_glance_does_not_give(place: Place) -> None:
    """Sidecars and strangers are reported with their real size, and never removed; data alone may be lost."""
    image = place.image(has_file=False)
    (place.store / f"{image}.md5").write_bytes(b"sidecar")
    (place.store / "stranger").write_bytes(b"")
    place.run(*REMOVE)
    rows = {row["Name"].rpartition("/")[2]: row for row in place.rows(*REMOVE, status=1)}
    assert {name: (row["Kind"], row["Size"], row["Action"]) for name, row in rows.items()} == {
        f"{image}.md5": ("dark", 7, "keep"),
        "stranger": ("dark", 0, "keep"),
        image: ("lost", None, "keep"),
    }
    assert "remove it by hand" in rows["stranger"]["Next"]


def test_somebody_elses_folders_inside(place: Place) -> None:
    """Glance's staging, and a cache below the store's folder, are not the store's."""
    place.image()
    for name in ("staging", "cache"):
        (place.store / name).mkdir()
        (place.store / name / "80000000-0000-4000-8000-00000000fffd").write_bytes(b"growing")
    place.host.configure(
        {
            "DEFAULT": {"image_cache_dir": str(place.store / "cache")},
            "os_glance_staging_store": {"filesystem_store_datadir": str(place.store / "staging")},
        }
    )
    assert place.run(*STORE).status == 0


def cached(place: Place, name: str, folder: str = "") -> Path:
    path = place.host.cache_dir / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"bytes")
    return path


def test_this_hosts_directory(place: Place) -> None:
    """Complete files of no row are dark; what grows, what is wrong and requests are the janitor's, and no strays."""
    kept, dark = place.image(), place.image("deleted", has_file=False)
    place.site.add_location(kept, f"{place.host.url}/replicas/{kept}", {"replica_host": "api1"})
    cached(place, kept)
    path = cached(place, dark)
    others = [
        cached(place, place.image("deleted", has_file=False), name) for name in ("incomplete", "invalid", "queue")
    ]
    words = ("--host", "api1", "--grace", "0s", "--remove-dark", "--yes", "--max-share", "50")
    assert [row["Name"] for row in place.rows(*words, status=1)] == [dark]
    assert [row["Action"] for row in place.rows(*words, status=0)] == ["removed"]
    assert not path.exists()
    assert all(one.exists() for one in others)


def test_another_host_is_asked(place: Place, faulty: FaultyServer) -> None:
    """What another host does not list, and answers 404 for, is lost; an error says nothing, silence neither."""
    there, gone = place.image(), place.image()
    place.ledger.heartbeat(Host("api9", None, faulty.url))
    for image in (there, gone):
        place.site.add_location(image, f"{faulty.url}/replicas/{image}", {"replica_host": "api9"})
    faulty.put(f"/replicas/{there}", b"bytes")
    faulty.put("/replicas/", f"{there} 5 1000000000.0\nend 1\n".encode())
    rows = place.rows("--host", "api9", status=1)
    assert [(row["Kind"], row["Image"], row["Next"]) for row in rows] == [("lost", gone, f"replica repair {gone}")]
    faulty.put(f"/replicas/{gone}", b"bytes", status=503)
    done = place.run("--host", "api9")
    assert done.status == 3
    assert "host:api9: nothing was judged" in done.out
    assert place.run("--all", "--grace", "0s").status == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one of the arguments --host --store --all is required"),
        (("--store", "moon"), "store:moon cannot be audited from here; there are: host:api1, store:fast"),
        (("--all", "--max-share", "101"), "not a percentage"),
    ],
)
def test_what_is_asked_wrongly(place: Place, words: Sequence[str], said: str) -> None:
    """Exit 2 and the reason."""
    done = place.run(*words)
    assert done.status == 2
    assert said in done.err
