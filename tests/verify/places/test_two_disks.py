"""Two running hosts with one store id and one path, and a disk of its own under it on each: nothing is planned."""

import subprocess
from collections.abc import Iterator

import pytest
from services import absent, need
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.programs import Done, Programs
from support.worlds.scenes import new_image, settle

pytest_plugins = ["support.desk"]

EACH = 8
SCRIPT = 'mount --bind "$0" "$1" && shift && exec "$@"'
HINT = "a folder that the hosts do not share"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GlanceHost, GlanceHost]]:
    """The second sees another folder where the first has its store."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as site:
        here, there = site.add_host("127.0.0.2", processes=1), site.add_host("127.0.0.3", processes=1, start=False)
        other = site.folder / "other-disk"
        other.mkdir()
        before = ["unshare", "--mount", "sh", "-c", SCRIPT, other, site.store_dir]
        if subprocess.run([*before, "true"], check=False).returncode:
            absent("mounting in a namespace of its own is not permitted here")
        words = [*before, *there.command()]
        there.command = lambda: words  # type: ignore[method-assign]
        there.start()
        site.wait_known()
        yield here, there


@pytest.fixture
def inside(hosts: tuple[GlanceHost, GlanceHost]) -> Iterator[Programs]:
    """The programs as they run on the second host's machine."""
    with Programs(before=[need("nsenter"), f"--mount=/proc/{hosts[1].process.pid}/ns/mnt"]) as made:
        yield made


def test_nothing_is_planned_against_the_other_disk(
    hosts: tuple[GlanceHost, GlanceHost], inside: Programs, programs: Programs, faulty: FaultyServer
) -> None:
    """Images uploaded through either host, all of them in another store, too: on each, verify, repair, prune, audit and
    check say once that the store may not be shared; no row goes, no file comes, and each host serves all of them."""
    images: dict[str, tuple[GlanceHost, bytes]] = {}
    for host in hosts:
        for _ in range(EACH):
            image_id, data = new_image(host, 50_000)
            host.site.add_location(image_id, faulty.put(f"/{image_id}", data), {"store": "web"})
            images[image_id] = host, data
    here, there = hosts

    def run(host: GlanceHost, *words: str) -> Done:
        return (programs if host is here else inside).run("--config-file", host.config_file, *words)

    site, before = here.site, {image_id: here.site.locations(image_id) for image_id in images}
    done = run(there, "verify", "--all", "--remote-reads")
    assert f"store fast: {EACH} missing of {2 * EACH} locations: {HINT}" in done.out, done
    assert (done.status, done.out.count("next:")) == (1, 1), done
    for host in hosts:
        for words in (["repair", "--all", "--max-repairs", "50"], ["prune", "--all", "--state", "missing"]):
            done = run(host, *words, "--yes", "-f", "json")
            assert done.rows == [], (host.name, words, done)
            assert host is here or f"{EACH} missing of {2 * EACH} locations; nothing is planned" in done.err, done
        audit = run(host, "audit", "--all", "--grace", "0s", "-f", "json")
        lost = [row for row in audit.rows if row["Kind"] == "lost" and "fast" in row["Place"]]
        assert {row["Image"] for row in lost} == {one for one, (owner, _) in images.items() if owner is not host}
        assert {row["Next"] for row in lost} == {"fix the store first"}
        newest = f"error: {EACH} of the {2 * EACH} newest files of store fast are not in its folder on this host"
        assert newest in run(host, "check").out
    assert {image_id: site.locations(image_id) for image_id in images} == before
    assert len(list(site.store_dir.iterdir())) == len(list((site.folder / "other-disk").iterdir())) == EACH
    for image_id, (owner, data) in images.items():
        reader = there if owner is here else here
        assert reader.client().download(image_id).content == data
        settle(lambda image_id=image_id: len(site.locations(image_id)) == 3)
