"""What a complete file is known by, in a real Glance: ids used again, changed modes, Glance's writers, last use."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from services.databases.schema import query
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer
from support.worlds.cached import entry_of, rot
from support.worlds.scenes import new_bytes, new_image, settle
from test_janitor import run

from glance_replicas import settings
from glance_replicas.cache import Cache
from glance_replicas.host.local_host import LocalHost
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import default_ledger
from glance_replicas.signing import parse_keys, sign

MIB = 1 << 20
SIZE = 3 * MIB + 5
KEY = "a:0123456789abcdef0123456789abcdef"
OPTIONS = {"replicas": {"janitor": "false", "signing_keys": KEY, "max_withdrawals_per_pass": "9"}}
OLD_CLOCK = 1_000_000_000


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """One host whose janitor runs only when a test says so."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        Ledger(default_ledger(made.database_url)).upgrade()
        yield made.add_host("127.0.0.2", threads=16, options=OPTIONS)


def cached(host: GlanceHost) -> tuple[str, bytes, Path]:
    """An image with a complete, registered file."""
    image_id, data = new_image(host, SIZE)
    assert host.client().download(image_id).content == data
    settle(lambda: rows(host, image_id) == 1)
    return image_id, data, host.cache_dir / image_id


def rows(host: GlanceHost, image_id: str) -> int:
    return sum("/replicas/" in one["url"] for one in host.site.locations(image_id))


def direct(host: GlanceHost, image_id: str, method: str = "GET", **headers: str) -> requests.Response:
    """The per-host URL, signed."""
    url = sign(f"{host.url}/replicas/{image_id}", parse_keys([KEY]), 600)
    return requests.request(method, url, headers=headers, timeout=60)


def received(what: object) -> bytes | None:
    """A whole body; None: it was refused, or cut before its end."""
    try:
        answer = what()  # type: ignore[operator]
        return bytes(answer.content) if answer.status_code == 200 else None
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        return None


def reuse(host: GlanceHost, image_id: str, data: bytes) -> None:
    """The image was purged, its file stayed here, and somebody made another one with its id."""
    for table in ("image_locations", "image_properties", "image_tags", "image_members"):
        query(host.site.database_url, f"DELETE FROM {table} WHERE image_id = :id", id=image_id)
    query(host.site.database_url, "DELETE FROM images WHERE id = :id", id=image_id)
    host.site.store_file(image_id).unlink(missing_ok=True)
    host.client().create(data=data, id=image_id)


LEFT = ["read by us", "unread, old", "growing"]


def leave(host: GlanceHost, image_id: str, data: bytes, left: str) -> None:
    """The complete file becomes what else a host may have of an image when it is purged."""
    path = host.cache_dir / image_id
    if left == "unread, old":
        path.chmod(0o640)
        path.write_bytes(data)
        os.utime(path, (OLD_CLOCK, OLD_CLOCK))
    elif left == "growing":
        os.rename(path, host.partial_dir / image_id)


@pytest.mark.parametrize("size", [SIZE, SIZE - 7])
@pytest.mark.parametrize("left", LEFT)
def test_id_used_again(host: GlanceHost, size: int, left: str) -> None:
    """Nobody is sent a byte of the purged image by its per-host URL, nor after a pass; the file goes (OSSN-0075)."""
    image_id, old, path = cached(host)
    leave(host, image_id, old, left)
    new = new_bytes(size)
    reuse(host, image_id, new)
    answer = direct(host, image_id)
    assert answer.status_code == 404
    run(host)
    assert rows(host, image_id) == 0
    assert host.client().download(image_id).content == new
    settle(lambda: rows(host, image_id) == 1)
    assert path.read_bytes() == new
    assert received(lambda: direct(host, image_id)) == new


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=5-9"}], ids=["whole", "range"])
@pytest.mark.parametrize("left", LEFT)
def test_id_used_again_and_downloaded_at_once(host: GlanceHost, left: str, headers: dict[str, str]) -> None:
    """The first who asks Glance, before any pass and with the old file in its place, gets bytes of the new image."""
    image_id, old, path = cached(host)
    leave(host, image_id, old, left)
    new = new_bytes(SIZE)
    reuse(host, image_id, new)
    wanted = new[5:10] if headers else new
    assert host.client().download(image_id, headers=headers).content == wanted
    assert not path.exists() or path.read_bytes() == new
    assert host.client().download(image_id).content == new
    settle(lambda: rows(host, image_id) == 1)
    assert path.read_bytes() == new


@pytest.mark.parametrize("left", LEFT[:2])
def test_id_used_again_and_a_pass_comes_first(host: GlanceHost, left: str) -> None:
    """A pass that is the first to see the old file registers nothing and removes it."""
    image_id, old, path = cached(host)
    leave(host, image_id, old, left)
    reuse(host, image_id, new_bytes(SIZE))
    run(host)
    assert (rows(host, image_id), path.exists()) == (0, False)


def test_id_used_again_while_it_is_filled(host: GlanceHost, faulty: FaultyServer) -> None:
    """What a fill brings of an image that is purged meanwhile is never a location of the one that has its id now."""
    image_id, _ = new_image(host, SIZE)
    host.site.move_to(faulty, image_id, rate=MIB)
    path, seen, new = host.cache_dir / image_id, [], new_bytes(SIZE)
    with host.client().download(image_id, stream=True):
        settle((host.partial_dir / image_id).exists)
        reuse(host, image_id, new)
        settle(lambda: seen.append(rows(host, image_id)) or path.exists())
    end = time.monotonic() + 2
    while time.monotonic() < end:
        seen.append(rows(host, image_id))
    assert set(seen) == {0}
    assert direct(host, image_id).status_code == 404
    assert host.client().download(image_id).content == new
    settle(lambda: rows(host, image_id) == 1)


def test_a_file_that_is_right_by_now_stays(host: GlanceHost) -> None:
    """What took the place of a file that was found wrong is not set aside in its stead."""
    from glance_replicas.cache import Cache

    image_id, data, path = cached(host)
    copy = Cache(host.cache_dir).complete.open(image_id)
    assert copy is not None
    other = path.with_suffix(".new")
    other.write_bytes(data)
    os.rename(other, path)
    Cache(host.cache_dir).complete.set_aside(image_id, copy)
    Cache(host.cache_dir).complete.remove_copy(image_id, copy)
    copy.close()
    assert path.read_bytes() == data


def test_modes_say_nothing(host: GlanceHost) -> None:
    """`chmod -R a-w` over a wrong file that the stock cache left: it never ends well and is never registered."""
    image_id, data = new_image(host, SIZE)
    path = host.cache_dir / image_id
    wrong = bytearray(data)
    wrong[MIB] ^= 1
    path.write_bytes(wrong)
    subprocess.run(["chmod", "-R", "a-w", path], check=True)
    assert received(lambda: direct(host, image_id)) is None
    path.write_bytes(wrong)
    path.chmod(0o440)
    assert received(lambda: host.client().download(image_id)) is None
    path.write_bytes(wrong)
    path.chmod(0o440)
    run(host)
    assert rows(host, image_id) == 0
    assert received(lambda: direct(host, image_id)) is None, "after a pass, too"
    assert host.client().download(image_id).content == data


def test_innocent_changes_of_mode(host: GlanceHost) -> None:
    """`chmod -R u=rw,g=r,o=` and `chown -R`, as containers do at their start, cost neither a pin, nor a per-host URL,
    nor a range, nor a second read of the file."""
    image_id, data, path = cached(host)
    assert Cache(host.cache_dir).complete.pin(image_id, True)
    before = entry_of(path)
    subprocess.run(["chmod", "-R", "u=rwX,g=rX,o=", host.cache_dir], check=True)
    subprocess.run(["chown", "-R", str(os.geteuid()), host.cache_dir], check=True)
    assert entry_of(path) == before
    assert (before.pinned, before.verified) == (True, True)
    assert direct(host, image_id).content == data
    part = direct(host, image_id, Range="bytes=5-9")
    assert (part.status_code, part.content) == (206, data[5:10])
    assert run(host)["adopted"] == 0


def test_changes_of_mode_under_load(host: GlanceHost) -> None:
    """`chmod -R` again and again while clients read: every hit, range and per-host URL is whole, no file is read anew,
    and an eviction in the middle takes the other image, not the pinned one."""
    (pinned, data, kept), (other, _, gone) = cached(host), cached(host)
    assert Cache(host.cache_dir).complete.pin(pinned, True)
    ended = threading.Event()

    def change() -> int:
        for times in itertools.count(1):
            subprocess.run(["chmod", "-R", "u=rwX,g=rX,o=" if times % 2 else "a-w", kept, gone.parent], check=False)
            if ended.wait(0.05):
                return times
        raise AssertionError

    def read(_: int) -> bool:
        part = host.client().download(pinned, {"Range": "bytes=5-9"})
        whole = host.client().download(pinned)
        is_hit = "; hit" in whole.headers["Cache-Status"]
        return is_hit and (part.content, whole.content, direct(host, pinned).content) == (data[5:10], data, data)

    local = LocalHost.assemble(
        replace(settings.load([str(host.config_file)]), max_bytes=SIZE + 1, low_watermark_percent=100)
    )
    with ThreadPoolExecutor(5) as pool, closing(local.ledger), closing(local.catalogue):
        changes = pool.submit(change)
        try:
            assert list(pool.map(read, range(12))) == [True] * 12
            local.eviction.trim()
            assert list(pool.map(read, range(12))) == [True] * 12
            assert entry_of(kept).pinned
            assert run(host)["adopted"] == 0  # and takes the pin away, of which no ledger knows
        finally:
            ended.set()
        assert changes.result() > 3
    assert (kept.exists(), rows(host, pinned)) == (True, 1)
    assert (gone.exists(), rows(host, other)) == (False, 0)


def test_a_file_of_version_0_1(host: GlanceHost) -> None:
    """Its mode says verified, no note does: served at once, read on its way, known from then on."""
    image_id, data, path = cached(host)
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o440)
    assert not entry_of(path).verified
    assert direct(host, image_id, "HEAD").status_code == 200
    assert direct(host, image_id, Range="bytes=0-9").status_code == 503, "a part of it is better had elsewhere"
    assert host.client().download(image_id, headers={"Range": "bytes=1-9"}).content == data[1:10]
    assert not entry_of(path).verified
    assert received(lambda: direct(host, image_id)) == data
    settle(lambda: entry_of(path).verified)
    assert rows(host, image_id) == 1


def test_unread_files_are_read_at_the_bounded_rate(host: GlanceHost) -> None:
    """A pass reads what nobody has read yet, registers it, and keeps `scrub_bytes_per_second`."""
    image_id, data = new_image(host, SIZE)
    (host.cache_dir / image_id).write_bytes(data)
    host.configure({"replicas": {"scrub_bytes_per_second": str(MIB)}})  # for the program alone
    began = time.monotonic()
    done = run(host)
    assert time.monotonic() - began > SIZE / MIB
    assert done["adopted"] == 1
    assert rows(host, image_id) == 1
    assert entry_of(host.cache_dir / image_id).verified


def test_written_to_since(host: GlanceHost) -> None:
    """A file that somebody wrote to is an unread one again; the next who asks for all of it does not get its end."""
    image_id, data, path = cached(host)
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    assert not entry_of(path).verified
    assert received(lambda: host.client().download(image_id)) is None
    assert rows(host, image_id) == 0
    assert host.client().download(image_id).content == data


def test_only_what_is_sent_to_clients_is_use(host: GlanceHost) -> None:
    """HEAD, a verification, a copy ahead of need and a pass leave the order of eviction alone, a download does not."""
    image_id, data, path = cached(host)
    run(host)  # the ledger knows the host, so that its URL is signed
    os.utime(path, ns=(OLD_CLOCK * 10**9, path.stat().st_mtime_ns))
    replica = Path(sys.prefix) / "bin" / "replica"
    assert direct(host, image_id, "HEAD").status_code == 200
    assert direct(host, image_id, Priority="u=7").content == data
    command = [replica, "--config-file", host.config_file, "verify", image_id, "--remote-reads"]
    subprocess.run(command, check=True, timeout=120)
    run(host)
    assert path.stat().st_atime == OLD_CLOCK
    assert host.client().download(image_id, headers={"Range": "bytes=0-0"}).content == data[:1]
    settle(lambda: path.stat().st_atime > OLD_CLOCK)


def test_queued_by_glance_during_a_fill(host: GlanceHost) -> None:
    """`PUT /v2/cache/ID` at half of a fill spoils neither the bodies nor the file, which has no hole (LP zed spec)."""
    image_id, data = new_image(host, 12 * MIB)
    with FaultyServer() as slow:
        host.site.move_to(slow, image_id, rate=6 * MIB)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: host.client().download(image_id).content)
            partial_file = host.partial_dir / image_id
            settle(lambda: partial_file.exists() and partial_file.stat().st_size > 5 * MIB)
            host.client().request("PUT", f"/v2/cache/{image_id}")
            second = pool.submit(lambda: host.client().download(image_id).content)
            assert (first.result(), second.result()) == (data, data)
        settle((host.cache_dir / image_id).exists)
        assert host.client().download(image_id).content == data
        facts = (host.cache_dir / image_id).stat()
        assert facts.st_blocks * 512 >= len(data), "no hole"
        assert received(lambda: direct(host, image_id)) == data


def test_rot_keeps_its_note(host: GlanceHost) -> None:
    """What the disk itself changed is known only once it is read: that is what the scrubber is for."""
    image_id, _, path = cached(host)
    rot(path, 10, b"x")
    assert entry_of(path).verified
    assert host.client().request("DELETE", f"/v2/images/{image_id}").status_code == 204
