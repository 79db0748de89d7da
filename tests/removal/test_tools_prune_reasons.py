"""`replica prune` for other reasons than damage, its bounds, and `replica audit log`, on a real site."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from services.databases.schema import query
from services.glance.site import GlanceSite
from support.programs import Desk, Done, Programs
from support.worlds.scenes import new_image, settle

from glance_replicas.ledger.ledger import Ledger, Withdrawal
from glance_replicas.ledger.pins import Pins
from glance_replicas.ledger.schema.tables import uses
from glance_replicas.ledger.usage import Usage
from glance_replicas.model import Host, Location, Use

pytest_plugins = ["support.desk"]

DATA = b"the bytes of an image" * 1000


@pytest.fixture(scope="module")
def ledger(desk: Desk) -> Iterator[Ledger]:
    """The ledger that the programs use."""
    made = desk.ledger
    yield made
    made.close()


def alive(ledger: Ledger, *hosts: str) -> None:
    for name in hosts:
        ledger.heartbeat(Host(name, None, f"http://{name}:9292"))


def hosts(number: int) -> list[str]:
    """Names that no other test has."""
    return [f"h{uuid.uuid4().hex[:8]}" for _ in range(number)]


def cached(desk: Desk, image: str, *names: str) -> None:
    for name in names:
        desk.add_replica(image, f"http://{name}:9292", host=name)


def on(desk: Desk, image: str) -> list[str]:
    """The hosts that have a registered copy."""
    return [one["metadata"]["replica_host"] for one in desk.site.locations(image) if "replica_host" in one["metadata"]]


def used(ledger: Ledger, host: str, image: str, downloads: int = 1, *, days_ago: int = 0) -> None:
    """So many downloads, today or so long ago."""
    Usage(ledger.database).add(host, {image: Use(downloads, 1, 1)})
    if days_ago:
        day = datetime.now(UTC).date() - timedelta(days=days_ago)
        this = uses.update().where(uses.c.host == host, uses.c.image_id == image)
        ledger.database.change(this.values(day=day))


def aged(desk: Desk, image: str, days: float) -> None:
    """Its locations were registered so long ago."""
    made = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")
    desk.site.rows("UPDATE image_locations SET created_at = :made WHERE image_id = :image", made=made, image=image)


def lines(ledger: Ledger, image: str) -> list[Withdrawal]:
    return ledger.withdrawals(image_ids=[image])


def test_copies_of_dead_hosts_go(desk: Desk, ledger: Ledger) -> None:
    """Of a host without a heartbeat, and of one nobody knows; a living host's stay, and no janitor is asked (82)."""
    image, (living, dead, unknown) = desk.image(DATA), hosts(3)
    alive(ledger, living, dead)
    long_ago = datetime.now(UTC) - timedelta(days=30)
    query(desk.ledger_url, "UPDATE replica_hosts SET heartbeat = :at WHERE name = :name", at=long_ago, name=dead)
    cached(desk, image, living, dead, unknown)
    done = desk.run("prune", image, "--dead-hosts", "--yes")
    assert (done.status, "2 removed" in done.out) == (0, True)
    assert on(desk, image) == [living]
    reasons = {line.host: line.reason for line in lines(ledger, image)}
    assert f"{dead} was last heard of" in reasons[dead]
    assert f"knows no host {unknown}" in reasons[unknown]
    assert all(line.finished_at for line in lines(ledger, image))
    assert desk.run("prune", image, "--dead-hosts", "--yes").out == "nothing to prune\n"


def test_nobody_is_dead_where_nobody_lives(desk: Desk, tmp_path: Path) -> None:
    """A ledger without hosts, as after a wrong `connection`, is no reason to withdraw all that there is."""
    image = desk.image(DATA)
    cached(desk, image, *hosts(1))
    conf = tmp_path / "glance-api.conf"
    conf.write_text(desk.host.config_file.read_text().replace(desk.ledger_url, f"sqlite:///{tmp_path}/empty.sqlite"))
    assert desk.programs.run("--config-file", conf, "db", "upgrade").status == 0
    done = desk.programs.run("--config-file", conf, "prune", "--all", "--dead-hosts", "--yes")
    assert done.status == 1
    assert "no living host at all" in done.err
    assert len(on(desk, image)) == 1


def test_duplicates_go_and_their_copy_stays(desk: Desk, ledger: Ledger) -> None:
    """Another spelling, a hard link, a host's copy with other metadata: the oldest row of each stays (8, 14)."""
    image, (host,) = desk.image(DATA), hosts(1)
    path = desk.site.store_file(image)
    link = desk.site.store_dir / f"link-{image}"
    link.hardlink_to(path)
    for url in (f"file://{path}".replace(image, f"/{image}"), f"file://{link}"):
        desk.site.add_location(image, url, {"store": "fast"})
    cached(desk, image, host)
    url = f"http://{host}:9292/replicas/{image}"
    desk.site.add_location(image, url, {"store": "web", "replica_host": host, "replica_zone": "moved"})
    done = desk.run("prune", image, "--duplicates", "--yes")
    assert (done.status, "3 removed" in done.out) == (0, True)
    assert desk.urls(image) == [f"file://{path}", url]
    assert path.read_bytes() == DATA
    assert link.exists()
    assert ledger.pending_withdrawals(host) == [], "the janitor would remove the file of the row that stays"


def test_both_names_of_a_bad_copy_stay(desk: Desk) -> None:
    """What stays must be proven intact: with the copy damaged nothing is a mere duplicate, exit 1."""
    image = desk.image(DATA)
    path = desk.site.store_file(image)
    desk.site.add_location(image, f"file://{path}".replace(image, f"/{image}"), {"store": "fast"})
    path.write_bytes(DATA[::-1])
    done = desk.run("prune", image, "--duplicates", "--yes")
    assert (done.status, len(desk.urls(image))) == (1, 2)
    assert "not proven intact" in done.out


def test_surplus_copies(desk: Desk, ledger: Ledger) -> None:
    """The least used go, so that exactly so many stay; a pinned one stays, and counts."""
    image, names = desk.image(DATA), hosts(4)
    alive(ledger, *names)
    cached(desk, image, *names)
    for number, name in enumerate(names):
        used(ledger, name, image, downloads=number + 1)
    Pins(ledger.database).add([image], [names[0]], "somebody")
    done = desk.run("prune", image, "--keep-cached", "2", "--yes")
    assert done.status == 0
    assert on(desk, image) == [names[0], names[3]]
    assert lines(ledger, image)[0].reason.startswith("surplus: ")


def test_unused_copies(desk: Desk, ledger: Ledger) -> None:
    """Unused and old: gone. Used within that time, or younger than it: there."""
    (host, other), images = hosts(2), [desk.image(DATA) for _ in range(3)]
    idle, busy, young = images
    for image in images:
        cached(desk, image, host, other)
        aged(desk, image, 1 if image == young else 20)
    used(ledger, host, busy, days_ago=3)
    used(ledger, host, idle, days_ago=15)
    used(ledger, "anybody", str(uuid.uuid4()), days_ago=40)
    done = desk.run("prune", "--host", host, "--unused", "14d", "--yes")
    assert done.status == 0, done.err
    assert [on(desk, image) for image in images] == [[other], [host, other], [host, other]]
    for wrong in ("31d", "1h"):
        assert desk.run("prune", "--host", host, "--unused", wrong).status == 2


def test_unused_for_how_long_must_be_known(desk: Desk, ledger: Ledger, tmp_path: Path) -> None:
    """Counts of use that began yesterday show nothing of the fortnight before: refused, exit 1."""
    image, (host,) = desk.image(DATA), hosts(1)
    cached(desk, image, host)
    aged(desk, image, 30)
    conf = tmp_path / "glance-api.conf"
    conf.write_text(desk.host.config_file.read_text().replace(desk.ledger_url, f"sqlite:///{tmp_path}/new.sqlite"))
    assert desk.programs.run("--config-file", conf, "db", "upgrade").status == 0
    done = desk.programs.run("--config-file", conf, "prune", image, "--unused", "14d", "--yes")
    assert done.status == 1
    assert "not known what was unused for 14 d" in done.err
    assert on(desk, image) == [host]


def stocked(desk: Desk, ledger: Ledger, number: int) -> tuple[str, list[str]]:
    """A host with copies of so many images, the first the least used."""
    (host,), images = hosts(1), [desk.image(DATA) for _ in range(number)]
    for rank, image in enumerate(images):
        cached(desk, image, host)
        used(ledger, host, image, downloads=rank + 1)
    return host, images


def test_a_quota_is_met_exactly(desk: Desk, ledger: Ledger) -> None:
    """The least used go until the rest fits, and no copy more; pinned ones and those without proof are passed over."""
    host, images = stocked(desk, ledger, 5)
    Pins(ledger.database).add([images[0]], [host], "somebody")
    desk.site.store_file(images[1]).write_bytes(DATA[::-1])
    done = desk.run("prune", "--host", host, "--quota", str(3 * len(DATA) + 1), "--yes")
    assert done.status == 1, "one was refused"
    assert "2 removed, 1 kept" in done.out
    assert [bool(on(desk, image)) for image in images] == [True, True, False, False, True]
    assert desk.run("prune", "--host", host, "--quota", str(3 * len(DATA)), "--yes").out == "nothing to prune\n"


def test_quota_plans_are_bounded_before_anything_is_read(desk: Desk, ledger: Ledger) -> None:
    """As many as must go at least."""
    host, _ = stocked(desk, ledger, 3)
    done = desk.run("prune", "--host", host, "--quota", "1", "--max-removals", "2")
    assert done.status == 1
    assert "3 removals are more than --max-removals 2" in done.err


def test_pinned_copies_stay_unless_named(desk: Desk, ledger: Ledger) -> None:
    """--host leaves them and says so; --pinned, or the image's id, takes them."""
    (host,), image, other = hosts(1), desk.image(DATA), desk.image(DATA)
    for one in (image, other):
        cached(desk, one, host)
    Pins(ledger.database).add([image, other], [host], "somebody")
    done = desk.run("prune", "--host", host, "--yes")
    assert (done.status, on(desk, image)) == (0, [host])
    assert "left alone, it is pinned on host" in done.err
    assert desk.run("prune", image, "--cached", "--yes").status == 0
    assert on(desk, image) == []
    assert desk.run("prune", "--host", host, "--pinned", "--yes").status == 0
    assert on(desk, other) == []


@pytest.mark.parametrize(("share", "status"), [("40%", 0), ("39.9", 1)])
def test_too_large_a_share_is_refused(desk: Desk, ledger: Ledger, share: str, status: int) -> None:
    """Two of five copies are forty per cent: allowed at exactly that, refused as a whole just below (49)."""
    (host,), images = hosts(1), [desk.image(DATA) for _ in range(5)]
    for image in images:
        cached(desk, image, host)
    done = desk.run("prune", "--host", host, "--quota", str(3 * len(DATA)), "--max-share", share, "--yes")
    assert done.status == status
    assert sum(bool(on(desk, image)) for image in images) == (3 if status == 0 else 5)
    if status:
        assert (
            "2 removals are more than --max-share 39.9% of the 5 locations looked through, and none was done"
            in done.err
        )


@pytest.mark.parametrize("share", ["0%", "101%", "a few", "-1"])
def test_what_is_no_share(desk: Desk, share: str) -> None:
    """Exit 2."""
    assert desk.run("prune", "--all", f"--max-share={share}").status == 2


def test_the_table_fits_a_terminal(desk: Desk) -> None:
    """No line of it is wider than 150 characters; with -c, and for programs, every column is there."""
    image = desk.image(DATA)
    desk.add_file(image, DATA[::-1])
    table = [line for line in desk.run("prune", image).out.splitlines() if line[:1] in "+|"]
    assert table
    assert max(map(len, table)) <= 150
    assert "URL" in desk.run("prune", image, "-c", "URL").out
    assert len(desk.run("prune", image, "-f", "json").rows[0]) == 9


def removed(desk: Desk, **rest: Any) -> str:
    """An image of which a damaged copy was removed."""
    image = desk.image(DATA, **rest)
    desk.add_file(image, b"bad")
    assert desk.run("prune", image, "--yes").status == 0
    return image


def test_the_log_has_the_whole_proof(desk: Desk) -> None:
    """Who, when, why; for programs every copy it rests on; for people their stores."""
    image = removed(desk)
    (row,) = desk.run("audit", "log", image, "-f", "json").rows
    assert row["Finished"] >= row["Requested"]
    assert row["Reason"].startswith("wrong_size")
    assert "@" in row["Who"]
    (kept,) = row["Proof"]["keeps"]
    assert (kept["store"], kept["verdict"], kept["evidence"]) == ("fast", "intact", "full")
    assert row["Proof"]["cause"] == "damaged"
    done = desk.run("audit", "log", image)
    assert (done.status, "1 intact copy: fast" in done.out) == (0, True)
    assert max(map(len, done.out.splitlines())) <= 160
    assert "1 removal, 0 open" in done.out


def test_the_log_is_filtered(desk: Desk, ledger: Ledger) -> None:
    """By image, host, time, number and what is open; an open one says what comes next."""
    (host,), image = hosts(1), removed(desk)
    cached(desk, image, host)
    assert desk.run("prune", image, "--cached", "--yes").status == 0

    def found(*words: str) -> list[str | None]:
        return [row["Host"] for row in desk.run("audit", "log", *words, "-f", "json").rows]

    assert found(image) == [host, None]
    assert found("--host", host) == [host]
    assert found(image, "--open") == [host]
    assert found(image, "--limit", "1") == [host]
    assert found(image, "--since", "1h") == [host, None]
    query(
        desk.ledger_url,
        "UPDATE replica_withdrawals SET requested_at = '2020-01-01 00:00:00.000000'"
        " WHERE image_id = :image AND host IS NULL",
        image=image,
    )
    assert found(image, "--since", "1h") == [host]
    assert f"see that it runs: replica host {host}" in desk.run("audit", "log", image).out


def test_an_interrupted_removal_is_in_the_log(desk: Desk, ledger: Ledger) -> None:
    """With the command that takes it up; and that command closes it."""
    image = desk.image(DATA)
    desk.add_file(image, b"bad")
    found = desk.site.locations(image)[1]
    row = Location(image, found["url"], found["metadata"], found["id"])
    ledger.request_withdrawal(row, reason="corrupt", who="somebody", row_only=True)
    done = desk.run("audit", "log", image)
    assert f"next: it was interrupted; prove it once more, or close it: replica prune {image} --yes" in done.out
    assert "was begun and not finished" in desk.run("prune", image, "-f", "json").rows[0]["Reason"]
    assert desk.run("prune", image, "--yes").status == 0
    assert len(desk.urls(image)) == 1
    assert desk.run("prune", image, "--yes").status == 0
    assert all(line.finished_at for line in lines(ledger, image))


def test_two_programs_at_once(desk: Desk, ledger: Ledger) -> None:
    """Two processes prune the same images to the same quota: what stays is what fits, exactly (11, 21, 23)."""
    host, images = stocked(desk, ledger, 4)

    def prune(programs: Programs) -> Done:
        words = ("prune", "--host", host, "--quota", str(2 * len(DATA)), "--yes")
        return programs.run("--config-file", desk.host.config_file, *words)

    with Programs() as others, ThreadPoolExecutor(2) as pool:
        done = list(pool.map(prune, [desk.programs, others]))
    assert all(one.status in (0, 1, 3) for one in done)
    left = sum(bool(on(desk, image)) for image in images)
    assert left >= 2
    desk.run("prune", "--host", host, "--quota", str(2 * len(DATA)), "--yes")
    assert sum(bool(on(desk, image)) for image in images) == 2


def test_readers_of_a_pruned_copy_read_on(site: GlanceSite, programs: Programs) -> None:
    """A copy is pruned, and its file gone, while a client and another host read it: every byte comes (19, 20)."""
    host = site.add_host("127.0.0.2")
    other = site.add_host("127.0.0.3", options={"replicas": {"copy_bytes_per_second": str(3 << 19)}})
    site.wait_known()
    image, data = new_image(host, 12 << 20)

    def run(*words: str) -> Done:
        done = programs.run("--config-file", host.config_file, *words)
        assert done.status == 0, done.out + done.err
        return done

    def copying() -> Any:
        (row,) = run("copy", "list", image, "-f", "json").rows
        return row

    host.client().download(image)
    settle(lambda: any(one["metadata"].get("replica_host") == host.name for one in site.locations(image)), 60)
    body = requests.get(f"{host.url}/v2/images/{image}/file", headers=host.client().identity, stream=True, timeout=60)
    first = body.raw.read(1000)
    run("copy", image, "--to", other.name)
    settle(lambda: copying()["State"] in ("running", "done"), 60)
    run("prune", image, "--host", host.name, "--yes")
    settle(lambda: not (host.cache_dir / image).exists(), 60)
    assert first + body.raw.read() == data
    settle(lambda: copying()["State"] == "done", 120)
    assert (other.cache_dir / image).read_bytes() == data
