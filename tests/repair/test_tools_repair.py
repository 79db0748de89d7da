"""`replica repair` on a real site: what is made good, what is left alone, and what a kill leaves behind."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import environment
from services.web.faulty import FaultyServer
from support.programs import Desk
from support.worlds.scenes import new_bytes, settle

from glance_replicas.catalogue.images import Catalogue
from glance_replicas.errors import Refused
from glance_replicas.model import Image, Location
from glance_replicas.repair.rewrite import Rewriter
from glance_replicas.stores.file import reader as file_reader
from glance_replicas.stores.file import writer as file_writer
from glance_replicas.stores.file.writer import STAGED
from glance_replicas.stores.http import reader as http_reader
from glance_replicas.stores.sources import Sources
from glance_replicas.stores.writers import Writers

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as made:
        yield made


def history(desk: Desk, image: str) -> list[tuple[str, str]]:
    """The looks at this image's durable copies in the ledger, oldest first: verdict and detail."""
    ledger = desk.ledger
    try:
        return [(str(one.verdict), one.detail) for one in reversed(ledger.history(image))]
    finally:
        ledger.close()


def leftovers(desk: Desk, image: str) -> list[str]:
    return [one.name for one in desk.site.store_dir.iterdir() if image in one.name and one.name.startswith(".")]


def test_the_plan_changes_nothing(desk: Desk) -> None:
    """Without --yes the plan names the copy, its fault, where it would come from, and the command; exit 1."""
    image = desk.image(DATA, "alpine")
    path = desk.add_file(image, DATA[::-1])
    done = desk.run("repair", image)
    assert done.status == 1
    assert f"image {image} (alpine): corrupt in store fast at file://{path}" in done.out
    assert f"next: replica repair {image} --yes writes it anew from the one in store fast at file://" in done.out
    assert "1 restore; nothing was done, add --yes to do it" in done.out
    assert path.read_bytes() == DATA[::-1]


@pytest.mark.parametrize(("damage", "before"), [(DATA[::-1], "corrupt"), (b"short", "wrong_size"), (None, "missing")])
def test_a_file_is_restored_in_place(desk: Desk, damage: bytes | None, before: str) -> None:
    """The verdict before and the one after are shown and recorded, with who did it and from where; Glance serves it."""
    image = desk.image(DATA)
    path = desk.add_file(image, damage)
    done = desk.run("repair", image, "--yes", "-f", "json")
    (row,) = done.rows
    assert done.status == 0
    assert (row["Action"], row["Before"], row["After"], row["From"]) == ("restored", before, "intact", "fast")
    assert path.read_bytes() == DATA
    seen = history(desk, image)
    assert [verdict for verdict, _ in seen if verdict != "intact"] == [before]
    assert "restored in place by " in seen[-1][1]
    assert leftovers(desk, image) == []
    assert desk.run("verify", image).status == 0


def test_the_only_durable_copy_from_a_cached_one(desk: Desk, server: FaultyServer) -> None:
    """With no other durable copy the bytes come from a host."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"gone bad")
    server.put(f"/replicas/{image}", DATA)
    desk.add_replica(image, server.url)
    done = desk.run("repair", image, "--yes")
    assert done.status == 0
    assert f"restored: image {image} (image): wrong_size in store fast" in done.out
    assert "intact again: read back in full" in done.out
    assert desk.site.store_file(image).read_bytes() == DATA
    assert desk.host.client().download(image).content == DATA


def test_a_lost_image_is_not_touched(desk: Desk) -> None:
    """No intact copy: LOST, exit 1, and every byte stays as it is."""
    image = desk.image(DATA)
    desk.site.store_file(image).write_bytes(b"bad")
    path = desk.add_file(image, DATA[::-1])
    done = desk.run("repair", image, "--yes")
    assert done.status == 1
    assert done.out.count("no copy of the image is intact; nothing was touched") == 2
    assert "restore the image from where it came from" in done.out
    assert (desk.site.store_file(image).read_bytes(), path.read_bytes()) == (b"bad", DATA[::-1])


@pytest.mark.parametrize("faults", [{"status": 503}, {"status": 403}, {"truncate_at": 100}])
def test_what_could_not_be_asked_is_no_damage(desk: Desk, server: FaultyServer, faults: dict[str, object]) -> None:
    """A copy that does not answer is not repaired: exit 3, and what to see to."""
    image = desk.image(DATA)
    desk.site.add_location(image, server.put(f"/plain/{image}", DATA, **faults), {"store": "web"})
    done = desk.run("repair", image, "--yes")
    assert done.status == 3
    assert "its state is not known, and only damage is repaired" in done.out
    assert re.search("next: (make sure that|check) .*store web", done.out)


def test_what_nothing_here_can_write(desk: Desk, server: FaultyServer) -> None:
    """A damaged http location is said to be beyond this program, with what can be done instead; exit 1."""
    image = desk.image(DATA)
    desk.site.add_location(image, server.put(f"/plain/{image}", DATA[::-1]), {"store": "web"})
    done = desk.run("repair", image, "--yes")
    assert done.status == 1
    assert "cannot: " in done.out
    assert "nothing here writes http URLs" in done.out
    assert f"next: replica prune {image} --state corrupt" in done.out


def test_an_object_of_another_image_is_never_written_to(desk: Desk) -> None:
    """A row whose URL is the object of another image, as users may write some: that image's bytes stay."""
    theirs, mine = desk.image(DATA[::-1]), desk.image(DATA)
    path = desk.site.store_file(theirs)
    desk.site.add_location(mine, f"file://{path}", {"store": "fast"})
    done = desk.run("repair", mine, "--yes", "-f", "json")
    (row,) = done.rows
    assert path.read_bytes() == DATA[::-1]
    assert (done.status, row["Action"], row["Before"]) == (1, "cannot", "corrupt")
    assert f"file://{path} does not bear the image's id in its name" in desk.run("repair", mine).out
    assert desk.run("verify", theirs).status == 0


def test_a_host_that_is_not_known(desk: Desk, server: FaultyServer) -> None:
    """A damaged copy of a host that the ledger does not know is left alone."""
    image = desk.image(DATA)
    server.put(f"/replicas/{image}", DATA[::-1])
    desk.add_replica(image, server.url, host="stranger")
    done = desk.run("repair", image, "--yes")
    assert done.status == 1
    assert "no registration of a host that the ledger knows (stranger)" in done.out


def test_too_many_at_once_are_none(desk: Desk) -> None:
    """One more than --max-repairs: nothing is written, exit 1; exactly as many are repaired."""
    owner = {"owner": "p7"}
    images = [desk.image(DATA, **owner) for _ in range(2)]
    paths = [desk.add_file(image, DATA[::-1]) for image in images]
    assert desk.run("verify", *images).status == 1
    done = desk.run("repair", "--owner", "p7", "--max-repairs", "1", "--yes")
    assert done.status == 1
    assert "2 damaged copies are more than --max-repairs 1, and none was repaired" in done.err
    assert [path.read_bytes() for path in paths] == [DATA[::-1]] * 2
    assert desk.run("repair", "--owner", "p7", "--max-repairs", "2", "--yes").status == 0
    assert [path.read_bytes() for path in paths] == [DATA] * 2


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [([], 2, "nothing named"), (["--owner", "nobody", "--yes"], 0, "nothing to repair: the ledger knows of no damage")],
)
def test_what_is_asked_wrongly(desk: Desk, words: list[str], status: int, said: str) -> None:
    """Nothing named is usage; nothing damaged is said."""
    done = desk.run("repair", *words)
    assert (done.status, said in done.out + done.err) == (status, True)


def test_killed_in_the_middle(desk: Desk, server: FaultyServer) -> None:
    """kill -9 while the file is written: the damaged one is as it was, and the next repair finishes the work."""
    data = new_bytes(3 * MIB)
    image = desk.image(data)
    path = desk.site.store_file(image)
    path.write_bytes(b"damaged")
    server.put(f"/replicas/{image}", data, rate=4 * MIB)
    desk.add_replica(image, server.url)
    command = [Path(sys.prefix) / "bin" / "replica", "--config-file", desk.host.config_file, "repair", image, "--yes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    staged = path.with_name(STAGED.format(image))
    settle(lambda: staged.exists() and staged.stat().st_size > 0, 60)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert path.read_bytes() == b"damaged"
    assert 0 < staged.stat().st_size < len(data)
    assert desk.run("repair", image, "--yes").status == 0
    assert path.read_bytes() == data
    assert leftovers(desk, image) == []


@pytest.fixture
def catalogue(desk: Desk) -> Iterator[Catalogue]:
    made = Catalogue(desk.site.database_url)
    yield made
    made.close()


def restorer(desk: Desk, catalogue: Catalogue) -> Rewriter:
    roots = [desk.site.store_dir]
    return Rewriter(
        catalogue, Sources([file_reader.Reader(roots), http_reader.Reader()]), Writers([file_writer.Writer(roots)])
    )


def damaged(desk: Desk, catalogue: Catalogue) -> tuple[Image, Location, Location, Path]:
    """An image with an intact copy and one that is not: the image, the two, and the file of the second."""
    name = desk.image(DATA)
    path = desk.add_file(name, DATA[::-1])
    image = catalogue.image(name)
    assert image is not None
    intact, bad = image.locations
    return image, intact, bad, path


@pytest.mark.parametrize("change", ["image deleted", "location removed", "other digest", "being deleted"])
def test_the_catalogue_has_the_last_word(desk: Desk, catalogue: Catalogue, change: str) -> None:
    """What changed while the bytes were read: nothing is switched, and nothing is left behind."""
    image, intact, bad, path = damaged(desk, catalogue)
    changes = {
        "image deleted": lambda: desk.host.client().delete(image.id),
        "location removed": lambda: catalogue.withdraw(bad),
        "other digest": lambda: desk.site.rows(
            "UPDATE images SET os_hash_value = :value WHERE id = :id", value="00" * 64, id=image.id
        ),
        "being deleted": lambda: desk.site.rows(
            "UPDATE images SET status = 'pending_delete' WHERE id = :id", id=image.id
        ),
    }
    todo = [changes[change]]

    def meanwhile(_: int) -> None:
        if todo:
            todo.pop()()

    with pytest.raises(Refused):
        restorer(desk, catalogue).restore(image, bad, [intact], meanwhile)
    assert not path.exists() if change == "image deleted" else path.read_bytes() == DATA[::-1]
    assert leftovers(desk, image.id) == []


def test_deleted_between_the_switch_and_the_look(desk: Desk, catalogue: Catalogue) -> None:
    """Glance had removed the object and now the rows: what was written goes again."""
    image, intact, bad, path = damaged(desk, catalogue)
    made = restorer(desk, catalogue)
    restored = made.restore(image, bad, [intact])
    desk.site.rows("UPDATE images SET status = 'deleted', deleted = :yes WHERE id = :id", yes=True, id=image.id)
    with pytest.raises(Refused, match="what was written has been removed"):
        made.keep_or_remove(image, restored, is_intact=True)
    assert not path.exists()


def test_a_row_that_was_lost_takes_no_bytes_along(desk: Desk, catalogue: Catalogue) -> None:
    """Only the location went from the catalogue, as a stale save of Glance's may do: the restored bytes stay."""
    image, intact, bad, path = damaged(desk, catalogue)
    made = restorer(desk, catalogue)
    restored = made.restore(image, bad, [intact])
    catalogue.withdraw(bad)
    made.keep_or_remove(image, restored, is_intact=True)
    assert path.read_bytes() == DATA


def test_a_source_that_went_bad_since_its_look(desk: Desk, catalogue: Catalogue) -> None:
    """The read is guarded: a copy that was intact and no longer is restores nothing."""
    image, intact, bad, path = damaged(desk, catalogue)
    desk.site.store_file(image.id).write_bytes(b"!" * len(DATA))
    with pytest.raises(Exception, match="differs from the image's"):
        restorer(desk, catalogue).restore(image, bad, [intact])
    assert path.read_bytes() == DATA[::-1]
    assert leftovers(desk, image.id) == []


def test_an_image_without_a_location_is_lost(desk: Desk, catalogue: Catalogue) -> None:
    """Nobody can download it: said, exit 1."""
    image = desk.image(DATA)
    found = catalogue.image(image)
    assert found is not None
    catalogue.withdraw(found.locations[0])
    done = desk.run("repair", image, "--yes")
    assert done.status == 1
    assert f"image {image} is lost: it has no location at all" in done.err
