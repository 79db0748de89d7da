"""Half of a store missing at once is one problem of the store: said once, and no plan is made against it."""

from pathlib import Path

import pytest
from services.glance.site import GlanceHost
from services.web.faulty import FaultyServer
from support.programs import Done, Programs
from support.worlds.crowd import DATA, Crowd

pytest_plugins = ["support.desk"]


class Split:
    """Images in the folder of a store and, intact, at a web server; of some another host has the file."""

    def __init__(self, crowd: Crowd, here: int, elsewhere: int) -> None:
        self.crowd, self.folder = crowd, crowd.site.folder / "disk"
        self.folder.mkdir()
        self.machine: GlanceHost = crowd.machine()
        self.machine.configure({"fast": {"filesystem_store_datadir": str(self.folder)}})
        self.mine, self.theirs = crowd.add(here), crowd.add(elsewhere)
        for name in self.mine:
            (self.folder / name).write_bytes(DATA)
        for name in (*self.mine, *self.theirs):
            crowd.site.add_location(name, f"file://{self.folder}/{name}", {"store": "fast"})

    def run(self, *words: object) -> Done:
        return self.crowd.programs.run("--config-file", self.machine.config_file, *words)

    def files(self) -> int:
        return len(list(self.folder.iterdir()))


@pytest.fixture
def crowd(tmp_path: Path, programs: Programs, faulty: FaultyServer) -> Crowd:
    return Crowd(tmp_path / "crowd", programs, faulty)


def test_half_of_a_store(crowd: Crowd) -> None:
    """Verify says it once, with the hint; repair and prune plan nothing, and name the option; with it they do."""
    split = Split(crowd, 6, 6)
    done = split.run("verify", "--all", "--store", "fast")
    assert done.status == 1
    assert "store fast: 6 missing of 12 locations: a folder that the hosts do not share" in done.out, done
    assert done.out.count("next:") == 1
    for words in (
        ("repair", "--all", "--max-repairs", 50),
        ("prune", "--all"),
        ("prune", "--all", "--state", "missing"),
    ):
        done = split.run(*words, "--yes", "-f", "json")
        assert (done.status, done.rows) == (1, []), done
        assert "store fast: 6 missing of 12 locations; nothing is planned against them" in done.err
        assert "or add --max-share 100" in done.err
    assert split.files() == 6
    assert len(split.run("prune", "--all", "--max-share", 100, "-f", "json").rows) == 6
    done = split.run("repair", "--all", "--max-repairs", 6, "--max-share", "100", "--yes", "-f", "json")
    assert [row["Action"] for row in done.rows] == ["restored"] * 6, done
    assert split.files() == 12


def test_an_audit_says_it_once(crowd: Crowd) -> None:
    """`replica audit` there lists what is lost, and names the store, and no repair, as what to see to."""
    split = Split(crowd, 6, 6)
    words = ("audit", "--store", "fast", "--grace", "0s")
    done = split.run(*words, "-f", "json")
    assert done.status == 1
    assert {row["Image"] for row in done.rows if row["Kind"] == "lost"} == set(split.theirs)
    assert {row["Next"] for row in done.rows if row["Kind"] == "lost"} == {"fix the store first"}
    assert split.run(*words).out.count("a folder that the hosts do not share") == 1
    (split.folder / split.theirs[0]).write_bytes(DATA)
    assert "replica repair" in split.run(*words).out, "less than half is lost one by one"


def test_check_finds_it(crowd: Crowd) -> None:
    """`replica check` says so before anybody verifies, where half of the newest files are not in the folder here."""
    split = Split(crowd, 6, 6)
    said = split.run("check").out
    assert "error: 6 of the 12 newest files of store fast are not in its folder on this host" in said
    crowd.site.rows("DELETE FROM image_locations WHERE image_id = :id AND value LIKE 'file:%'", id=split.theirs[0])
    assert "newest files" not in split.run("check").out, "less than half is a loss, and for verify to tell"


def test_named_images_are_meant(crowd: Crowd) -> None:
    """Who names the images has looked."""
    split = Split(crowd, 1, 6)
    assert split.run("verify", "--all", "--store", "fast").status == 1
    done = split.run("repair", *split.theirs, "--yes", "-f", "json")
    assert [row["Action"] for row in done.rows] == ["restored"] * 6, done


def test_a_few_missing_are_told_one_by_one(crowd: Crowd) -> None:
    """Less than half, or very few, are each a loss of its own, and are repaired."""
    split = Split(crowd, 7, 6)
    done = split.run("verify", "--all", "--store", "fast")
    assert done.out.count("next:") == 6, done
    done = split.run("repair", "--all", "--max-repairs", 6, "--yes", "-f", "json")
    assert [row["Action"] for row in done.rows] == ["restored"] * 6, done


def test_other_damage_there_is_repaired(crowd: Crowd) -> None:
    """Only what is missing is held back: a corrupt file of that store is there, and is the image's."""
    split = Split(crowd, 6, 6)
    (split.folder / split.mine[0]).write_bytes(DATA[::-1])
    assert split.run("verify", "--all", "--store", "fast").status == 1
    done = split.run("repair", "--all", "--yes", "-f", "json")
    assert [(row["Image"], row["Action"]) for row in done.rows] == [(split.mine[0], "restored")], done
    assert (split.folder / split.mine[0]).read_bytes() == DATA
    assert split.files() == 6
