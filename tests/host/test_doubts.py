"""A database that is behind, purged or another one: what an answer of Glance's costs a host's files, and what not."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from services.databases.schema import query
from support.worlds.cloud import DATA, Cloud

from glance_replicas.cache.doubts import Doubts
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly
from glance_replicas.model import Image, Pass

pytest_plugins = ["support.worlds.cloud"]

MOST = 4  # max_withdrawals_per_pass


def reconciled(local: LocalHost) -> Pass:
    """What one pass makes of disk and catalogue."""
    done = Pass()
    assembly.reconciler(local).reconcile(done)
    return done


def behind(local: LocalHost, copy: Path) -> LocalHost:
    """The same host on a database that has not heard of anything since the copy was made."""
    return LocalHost.assemble(replace(local.settings, database=f"sqlite:///{copy}"))


def copied(cloud: Cloud, name: str) -> Path:
    """Glance's database as it is now."""
    copy = cloud.site.folder / name
    shutil.copy(cloud.site.database_url.removeprefix("sqlite:///").split("?")[0], copy)
    return copy


def image(local: LocalHost, name: str) -> Image:
    """As the catalogue has it."""
    found = local.catalogue.image(name)
    assert found is not None
    return found


def purge(cloud: Cloud, names: list[str]) -> None:
    """What `glance-manage db purge` leaves of deleted images: nothing."""
    for name in names:
        for table, column in (("image_locations", "image_id"), ("images", "id")):
            query(cloud.site.database_url, f"DELETE FROM {table} WHERE {column} = :name", name=name)


def set_status(cloud: Cloud, name: str, status: str) -> None:
    """Behind Glance's back."""
    query(
        cloud.site.database_url,
        "UPDATE images SET status = :status, deleted = :gone WHERE id = :name",
        status=status,
        gone=status == "deleted",
        name=name,
    )


def has(local: LocalHost, name: str) -> bool:
    """Whether the complete file is there."""
    return local.cache.complete.exists(name)


def test_a_pass_on_a_database_that_is_behind(cloud: Cloud) -> None:
    """Passes over a replica that has not heard of the image yet remove nothing; nor do they when it reads `queued`."""
    here = cloud.host("here")
    cloud.cached(here)
    before = copied(cloud, "before.sqlite")
    name = cloud.cached(here)
    set_status(cloud, name, "queued")
    queued = copied(cloud, "queued.sqlite")
    set_status(cloud, name, "active")
    for copy in (before, queued):
        late = behind(here, copy)
        assert [reconciled(late).removed for _ in range(3)] == [0, 0, 0]
    assert has(here, name)
    assert cloud.rows(name) == ["here"]
    assert reconciled(here).registered == 0


def test_registering_on_a_database_that_is_behind(cloud: Cloud) -> None:
    """A fill that ends while the database does not know the image, or not as active, keeps its file; a later pass
    registers it. Of an image that is deleted the file goes at once."""
    here = cloud.host("here")
    before = copied(cloud, "before.sqlite")
    name = cloud.cached(here)
    known = image(here, name)
    here.registration.withdraw(name)
    behind(here, before).registration.register(known)
    assert has(here, name)
    set_status(cloud, name, "queued")
    here.registration.register(known)
    assert has(here, name)
    set_status(cloud, name, "active")
    assert reconciled(here).registered == 1
    assert cloud.rows(name) == ["here"]
    here.registration.withdraw(name)
    set_status(cloud, name, "deleted")
    here.registration.register(known)
    assert not has(here, name)


@pytest.mark.parametrize("status", ["deleted", "pending_delete", "killed"])
def test_what_is_deleted_goes_at_once(cloud: Cloud, status: str) -> None:
    """No grace for what is final."""
    here = cloud.host("here")
    name = cloud.cached(here)
    set_status(cloud, name, status)
    assert reconciled(here).removed == 1
    assert not has(here, name)


def test_what_stays_unknown_goes_in_time(cloud: Cloud) -> None:
    """The file of a purged image goes when it was unknown in every pass of the time of grace, over restarts; an image
    that was known again in between begins anew."""
    here = cloud.host("here", doubt_seconds=1)
    cloud.cached(here)
    name = cloud.cached(here)
    before, whole = copied(cloud, "whole.sqlite"), cloud.site.database_url
    purge(cloud, [name])
    assert reconciled(here).removed == 0
    time.sleep(1.1)
    assert reconciled(behind(here, before)).removed == 0, "known again"
    assert reconciled(here).removed == 0
    time.sleep(1.1)
    again = LocalHost.assemble(here.settings)
    assert again.settings.database == whole
    assert reconciled(again).removed == 1
    assert not has(here, name)


def test_a_clock_that_is_set_removes_nothing(cloud: Cloud) -> None:
    """A first sight long ago by the clock is one sight; a file of doubts that is none is the first sight of all."""
    here = cloud.host("here", doubt_seconds=3600)
    doubts = Doubts(here.cache, 0)
    assert doubts.overdue({"a"}) == set()
    assert doubts.overdue({"a", "b"}) == {"a"}
    here.cache.own("doubts").write_text("no JSON")
    assert doubts.overdue({"a"}) == set()
    assert doubts.overdue(set()) == set()
    assert doubts.overdue({"a"}) == set()


def test_many_purged_images_hold_nothing_up(cloud: Cloud) -> None:
    """More of them than one pass removes go in portions, and meanwhile the rest of the pass is done."""
    here = cloud.host("here", max_withdrawals_per_pass=MOST, doubt_seconds=0)
    purged = [cloud.cached(here) for _ in range(2 * MOST + 1)]
    new, lost = cloud.cached(here), cloud.cached(here)
    here.registration.withdraw(new)
    here.cache.path(lost).unlink()
    purge(cloud, purged)
    first = reconciled(here)
    assert (first.registered, first.withdrawn, first.problems) == (1, 1, [])
    assert (cloud.rows(new), cloud.rows(lost)) == (["here"], [])
    assert [reconciled(here).removed for _ in range(4)] == [MOST, MOST, 1, 0]
    assert [one.image_id for one in here.cache.complete.entries()] == [new]


@pytest.mark.parametrize("number", [1, 2 * MOST])
def test_another_database_removes_nothing(cloud: Cloud, tmp_path: Path, number: int) -> None:
    """None of the files is known to it, few or many: all stay, and one line names the order that removes them."""
    here = cloud.host("here", max_withdrawals_per_pass=MOST, doubt_seconds=0)
    empty = copied(cloud, "another.sqlite")
    names = [cloud.cached(here) for _ in range(number)]
    other = behind(here, empty)
    done = [reconciled(other) for _ in range(3)]
    assert sum(one.removed for one in done) == 0
    assert all(has(here, name) for name in names)
    (line,) = done[-1].problems
    assert "another database" in line
    assert "replica audit --host here --remove-dark" in line


def test_files_without_a_history_hold_nothing_up(cloud: Cloud) -> None:
    """Many files that neither Glance nor the ledger ever heard of stay and are named; the rest of the pass is done."""
    here = cloud.host("here", max_withdrawals_per_pass=MOST, doubt_seconds=0)
    new = cloud.cached(here)
    here.registration.withdraw(new)
    strange = [f"50000000-0000-4000-8000-{number:012d}" for number in range(2 * MOST)]
    for name in strange:
        here.cache.path(name).write_bytes(DATA)
    done = [reconciled(here) for _ in range(3)]
    assert [one.removed for one in done] == [0, 0, 0]
    assert sum(one.registered for one in done) == 1
    assert f"{len(strange)} files" in done[-1].problems[0]
    assert all(has(here, name) for name in strange)
