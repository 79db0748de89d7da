"""kill -9 at every line of what changes disk, catalogue or ledger, and a short run of the random kills of chaos.py.

A child runs the real code of one scenario under a trace function that kills the process when a given line is reached.
Then one janitor pass has to put everything in agreement. This file, run as a program, does it for a share of all lines.
"""

import ast
import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from chaos import left_behind, violations
from services import environment
from services.databases.schema import add_image
from services.glance.site import GlanceSite
from support.worlds.cached import keep, leave, note

from glance_replicas import checksum
from glance_replicas.cache import partial_file
from glance_replicas.crash_points import MARKED
from glance_replicas.errors import CacheError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly, passes
from glance_replicas.ledger.orphans import DARK
from glance_replicas.ledger.prefetch_requests import HIGH, LOW, PrefetchRequests, State
from glance_replicas.location import replica_url
from glance_replicas.model import Host, Location, Pass
from glance_replicas.prefetch import queue, worker
from glance_replicas.settings import Settings
from glance_replicas.transfer import fill

pytestmark = pytest.mark.chaos

SIZE = checksum.BLOCK + 4321  # two chunks
QUOTA = 4 * SIZE
SHARES = 2  # processes that do them side by side
TRIES = 3

SPARED = re.compile(r"  # no crash test: \w")  # with a reason, as `crash_points` says

ROOT = Path(fill.__file__).parent.parent.parent
Point = tuple[str, int, int]  # file name, line, how many times it is reached before


def image_id(number: int) -> str:
    """The id of an image of these tests."""
    return f"70000000-0000-4000-8000-{number:012d}"


(OLD, IDLE, NEW, BAD, BARE, LOST, STOCK, WRONG, DELETED, ASKED, QUEUED, ROTTEN, LEFT, OTHERS) = map(image_id, range(14))
AWAY, GIVEN_UP = map(image_id, range(14, 16))  # their stores have lost them
REUSED = image_id(16)
NAMES = (REUSED, OLD, IDLE, NEW, BAD, BARE, LOST, STOCK, WRONG, DELETED, ASKED, QUEUED, ROTTEN, LEFT, OTHERS)

LOSSES = (AWAY, GIVEN_UP)


@functools.cache
def truth(name: str) -> bytes | None:
    """The bytes of an image; made once, as they are compared after every kill."""
    return random.Random(name).randbytes(SIZE) if name in NAMES else None


class World:
    """One host's directory, a catalogue and a ledger; what is in them is made once for each scenario, copied often."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.database = folder / "glance.sqlite"
        self.settings = dataclasses.replace(
            settings,
            cache_dir=folder / "cache",
            database=f"sqlite:///{self.database}",
            ledger=f"sqlite:///{folder / 'glance-replicas.sqlite'}",
            max_bytes=QUOTA,
        )
        self.local = LocalHost.assemble(self.settings)
        self.cache = self.local.cache

    def sql(self, statement: str, **values: Any) -> None:
        """A change behind everybody's back."""
        from services.databases.schema import query

        query(self.settings.database, statement, **values)

    def due_now(self) -> None:
        """What waits for its time to be copied waits no longer."""
        from services.databases.schema import query

        query(self.settings.ledger, "UPDATE replica_copies SET not_before = NULL")

    def keep(self, name: str, idle: float = 0.0, row: bool = True, data: bytes | None = None, age: float = 0.0) -> None:
        """A complete file, verified `age` seconds ago, last used `idle` seconds ago."""
        path = self.cache.path(name)
        keep(path, data or truth(name) or b"", claims=truth(name), age=age)
        os.utime(path, ns=(time.time_ns() - int(idle * 1e9), path.stat().st_mtime_ns))
        if row:
            self.local.catalogue.add(
                name, replica_url(self.settings.host_url or "", name), self.local.registration.metadata()
            )

    def restore(self) -> None:
        """The database is where it was."""
        away = self.database.with_suffix(".away")
        if away.exists():
            for path in self.folder.glob("glance.sqlite*"):
                path.unlink()
            away.rename(self.database)

    def fill(self, name: str) -> None:
        """The image is filled to the end."""
        image = self.local.catalogue.active(name)
        assert image is not None
        filler = fill.start(self.cache, self.local.fill_setup.plan(image))
        if filler:
            filler.join()


# A scenario: what is there before, and what is done.


def full(world: World) -> None:
    """The quota is used up, and what would go first is pinned; what is to come is to stay."""
    for number, name in enumerate((OLD, IDLE, LOST, STOCK)):
        world.keep(name, idle=1000.0 - number)
    world.cache.complete.pin(OLD, True)
    world.local.pins.add([OLD, NEW], [world.settings.host_name], "a test")


def half(world: World) -> None:
    """A dead filler left half of it."""
    whole = truth(NEW) or b""
    leave(world.cache.partial_path(NEW), whole[: checksum.BLOCK], whole)


def half_of_another(world: World) -> None:
    """What a dead filler left is of an image that had the same id before."""
    leave(world.cache.partial_path(NEW), bytes(1000), b"another image's")


def before_boot(world: World) -> None:
    """What is left is from before a crash of the machine."""
    half(world)
    os.utime(world.cache.partial_path(NEW), (1, 1))


def fill_new(world: World) -> None:
    """The one used longest ago is evicted, and the new one is registered."""
    world.fill(NEW)


class Cancelled:
    """A fill in the background that is ended as soon as anything is written."""

    def written(self, length: int, is_wanted: Callable[[], bool]) -> None:
        """End it."""
        raise CacheError(f"cancelled after {length} bytes, wanted: {is_wanted()}")

    def ended(self, failure: Exception | None) -> None:
        """Nothing more."""


def fill_in_two_parts(world: World) -> None:
    """The first part is left by a fill in the background, the second goes on from there."""
    image = world.local.catalogue.active(NEW)
    assert image is not None
    filler = fill.start(world.cache, world.local.fill_setup.plan(image, background=True), Cancelled())
    if filler:
        filler.join()
    world.fill(NEW)


def fill_abandoned(world: World) -> None:
    """No client follows the fill: it ends, and its image is asked of the background."""
    fill._ALONE = -1.0
    world.fill(NEW)


def fill_bad(world: World) -> None:
    """The store has wrong bytes."""
    world.fill(BAD)


def fill_deleted(world: World) -> None:
    """The image is deleted while it is filled."""
    image = world.local.catalogue.active(NEW)
    if image is None:
        return
    plan = world.local.fill_setup.plan(image)
    world.sql("UPDATE images SET status = 'deleted', deleted = true WHERE id = :id", id=NEW)
    filler = fill.start(world.cache, plan)
    if filler:
        filler.join()


def fill_without_database(world: World) -> None:
    """The catalogue is away when the fill ends."""
    image = world.local.catalogue.active(NEW)
    assert image is not None
    plan = world.local.fill_setup.plan(image)
    world.database.rename(world.database.with_suffix(".away"))
    filler = fill.start(world.cache, plan)
    if filler:
        filler.join()


def everything(world: World) -> None:
    """One case of all that a pass puts right."""
    world.keep(OLD, idle=5000.0)
    world.keep(BARE, idle=4000.0, row=False)
    world.keep(LOST)
    world.cache.path(LOST).unlink()
    world.cache.path(STOCK).write_bytes(truth(STOCK) or b"")
    world.cache.path(WRONG).write_bytes(bytes(SIZE))
    world.keep(DELETED)
    world.sql("UPDATE images SET status = 'deleted', deleted = true WHERE id = :id", id=DELETED)
    world.keep(ASKED)
    world.local.ledger.request_withdrawal(own_row(world, ASKED), reason="a test", who="a test")
    for name in (QUEUED, BARE):
        (world.cache.folder / "queue" / name).touch()
    PrefetchRequests(world.local.ledger.database).request(
        [IDLE, DELETED], [world.settings.host_name], who="a test", pin=True
    )
    (world.cache.folder / "invalid" / BAD).write_bytes(bytes(1000))
    world.keep(ROTTEN, data=bytes(SIZE), age=30 * 86400)
    leave(world.cache.partial_path(LEFT), b"left", truth(LEFT) or b"")
    os.utime(world.cache.partial_path(LEFT), (time.time() - 7200,) * 2)
    half_written = world.cache.folder / "incomplete" / LEFT  # by version 0.1, or Glance's own cache
    half_written.write_bytes(b"left")
    os.utime(half_written, (time.time() - 7200,) * 2)
    world.cache.complete.pin(OLD, True)
    world.cache.path(OLD).chmod(0o440 | stat.S_ISVTX)  # as version 0.1 pinned
    world.keep(REUSED, row=False)
    note(world.cache.path(REUSED), b"another image's, of the same id")
    world.local.pins.add([ASKED, BARE, ROTTEN], [world.settings.host_name], "a test")
    other_hosts(world)


def asked_anew(world: World) -> None:
    """A copy that `replica repair` wants fetched anew, and one that an audit took for dark before it was registered."""
    world.keep(IDLE)
    world.local.ledger.request_withdrawal(own_row(world, IDLE), reason=DARK, who="a test", proof={"bytes": SIZE})
    world.keep(ASKED)
    world.local.ledger.request_withdrawal(own_row(world, ASKED), reason="a test", who="a test", proof={"refill": True})


def own_row(world: World, name: str) -> Location:
    """This host's row for an image."""
    return next(one for one in world.local.catalogue.of_host(world.settings.host_name) if one.image_id == name)


def of_the_stock_cache(world: World) -> None:
    """What the stock cache left: a right file, a wrong one and a short one."""
    world.cache.path(STOCK).write_bytes(truth(STOCK) or b"")
    world.cache.path(WRONG).write_bytes(bytes(SIZE))
    world.cache.path(IDLE).write_bytes(b"short")


def other_hosts(world: World) -> None:
    """This host had another URL before, and another host is long dead; both have rows."""
    for name, url in ((world.settings.host_name, "http://127.0.0.99:1"), ("dead", "http://127.0.0.98:1")):
        world.local.ledger.heartbeat(Host(name, None, url))
        metadata = {**world.local.registration.metadata(), "replica_host": name}
        world.local.catalogue.add(OTHERS, replica_url(url, OTHERS), metadata)
    from services.databases.schema import query

    query(world.settings.ledger, "UPDATE replica_hosts SET heartbeat = '2001-01-01 00:00:00' WHERE name = 'dead'")


def one_pass(world: World) -> None:
    """The janitor, once."""
    passes.Janitor(world.local).run_once()


def removals(world: World) -> None:
    """That step of a pass alone."""
    passes.Janitor(world.local)._removals(Pass())


def orders_of_all_kinds(world: World) -> None:
    """What a host can be asked for, and partial files that were left: one of each kind."""
    copies, here = PrefetchRequests(world.local.ledger.database), [world.settings.host_name]
    for name in (OLD, IDLE, DELETED, REUSED):
        world.keep(name, row=name != REUSED)
    note(world.cache.path(REUSED), b"another image's, of the same id")
    for name in (DELETED, STOCK):
        world.sql("UPDATE images SET status = 'deleted', deleted = true WHERE id = :id", id=name)
    world.sql("UPDATE images SET os_hash_algo = NULL, os_hash_value = NULL, checksum = NULL WHERE id = :id", id=BARE)
    copies.request([NEW, BAD, DELETED, STOCK, AWAY, GIVEN_UP, WRONG, ASKED, BARE, REUSED], here, who="a test")
    copies.request([OLD], here, who="a test", pin=True, priority=HIGH)
    world.local.pins.add([OLD], here, "a test")
    copies.put_off(GIVEN_UP, here[0], "seven times", 0, 7)
    copies.put_off(ASKED, here[0], "it waits", 3600, 1)
    copies.cancel([WRONG])
    (world.cache.folder / "invalid" / ROTTEN).write_bytes(bytes(1000))
    for name in (ROTTEN, OLD, STOCK):
        (world.cache.folder / "queue" / name).touch()
    for name, idle in ((LEFT, 90), (IDLE, 90), (WRONG, 90), (ASKED, 90), (LOST, 7200)):
        path = world.cache.partial_path(name)
        leave(path, (truth(name) or b"")[:100], truth(name) or b"")
        os.utime(path, (time.time() - idle,) * 2)


def copying(world: World) -> None:
    """All that is asked for is fetched, or it is said why not."""
    path = world.cache.partial_path(ASKED)
    waiting = partial_file.PartialFile.lock(path, SIZE)
    if waiting is not None:  # what is reserved is not copied with a file
        waiting.reserve(SIZE)
        waiting.close()
    os.utime(path, (time.time() - 90,) * 2)
    once = assembly.prefetch_worker(LocalHost.assemble(dataclasses.replace(world.settings, max_bytes=3 * QUOTA)))
    once.step()
    once.finish(lambda: None)


def told_to_end(world: World) -> None:
    """Of two copies that run one is cancelled, and the hours of the other end; a third has no room."""
    slow = dataclasses.replace(world.settings, copy_bytes_per_second=1, copies_at_once=3, max_bytes=5 * SIZE // 2)
    one = assembly.prefetch_worker(LocalHost.assemble(slow))
    copies = PrefetchRequests(world.local.ledger.database)
    copies.request([NEW, IDLE], [slow.host_name], who="a test")
    copies.request([LOST], [slow.host_name], who="a test", priority=LOW)
    one.step()
    end = time.monotonic() + 10
    while min(map(size_of, (world.cache.partial_path(name) for name in (NEW, IDLE)))) == 0:
        assert time.monotonic() < end, "no fill has begun"
        time.sleep(0.01)
    copies.cancel([NEW])
    now = datetime.now()
    one._settings = dataclasses.replace(
        slow, copy_hours=((now + timedelta(hours=1)).time(), (now + timedelta(hours=2)).time())
    )
    one.step()
    one.finish(lambda: None)


def size_of(path: Path) -> int:
    """None at all when there is no such file."""
    return path.stat().st_size if path.exists() else 0


def nothing(world: World) -> None:
    """An empty directory."""


SCENARIOS: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
    "fill with eviction": (full, fill_new),
    "janitor": (everything, one_pass),
    "stock files": (of_the_stock_cache, one_pass),
    "refill": (asked_anew, removals),
    "told to end": (nothing, told_to_end),
    "copies": (orders_of_all_kinds, copying),
    "background": (nothing, fill_in_two_parts),
    "abandoned": (nothing, fill_abandoned),
    "takeover": (half, fill_new),
    "before boot": (before_boot, fill_new),
    "id used again": (half_of_another, fill_new),
    "wrong bytes": (nothing, fill_bad),
    "deleted meanwhile": (nothing, fill_deleted),
    "database away": (nothing, fill_without_database),
}


# Lines, and dying at one of them.


def watch(seen: Callable[[types.FrameType], None]) -> None:
    """Call `seen` before every line of what is marked, in all threads from now on."""
    wanted = {(code.co_filename, code.co_firstlineno) for code in MARKED}

    def within(frame: types.FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            seen(frame)
        return within

    def entered(frame: types.FrameType, _event: str, _argument: object) -> Any:
        return within if (frame.f_code.co_filename, frame.f_code.co_firstlineno) in wanted else None

    threading.settrace(entered)
    sys.settrace(entered)


def points(world: World, scenario: str, out: Path) -> list[Point]:
    """Every place a scenario comes by, the first time and the last.

    Of what is done again and again until something has ended, the first time.
    """
    turning = {worker.__file__, queue.__file__}
    child = os.fork()
    if not child:
        counts: Counter[tuple[str, int]] = Counter()

        def count(frame: types.FrameType) -> None:
            counts[frame.f_code.co_filename, frame.f_lineno] += 1

        die_with(lambda: (watch(count), SCENARIOS[scenario][1](world), sys.settrace(None), threading.settrace(None)))
        out.write_text(json.dumps([[*place, number] for place, number in counts.items()]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, f"{scenario} fails by itself"
    visits: list[Point] = json.loads(out.read_text())
    last = {(file, line, number - 1) for file, line, number in visits if file not in turning}
    return sorted({(file, line, 0) for file, line, _ in visits} | last)


def killed(world: World, scenario: str, point: Point) -> bool:
    """Whether the scenario was killed there; otherwise it came to its end."""
    child = os.fork()
    if not child:
        left = point[2]

        def kill(frame: types.FrameType) -> None:
            nonlocal left
            if (frame.f_code.co_filename, frame.f_lineno) == point[:2]:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        die_with(lambda: (watch(kill), SCENARIOS[scenario][1](world)))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die_with(work: Callable[[], object]) -> None:
    """Do it; an exception ends the process."""
    try:
        work()
    except BaseException as error:  # noqa: BLE001  outermost edge of a process
        print(f"a scenario raised {error!r}", file=sys.stderr, flush=True)
        os._exit(3)


def aftermath(world: World) -> list[str]:
    """What is wrong after one pass; then a download of the new image, and a pass when partial files are old."""
    world.restore()
    world.due_now()
    done = passes.Janitor(world.local).run_once()
    found = [f"the pass met problems: {done.problems}"] if done.problems else []
    found += violations(world.local, truth)
    if world.local.catalogue.active(NEW) is not None:
        if not world.cache.complete.exists(NEW):
            world.fill(NEW)
        found += [f"afterwards: {one}" for one in violations(world.local, truth)]
        if not world.cache.complete.exists(NEW):
            found.append("afterwards the image cannot be filled")
    world.due_now()
    found += left_behind(world.local, passes.Janitor(world.local).run_once)
    open_yet = PrefetchRequests(world.local.ledger.database).list(states=[State.WAITING, State.RUNNING])
    return found + [f"image {one.image_id}: still {one.state}" for one in open_yet if one.image_id not in LOSSES]


class Stage:
    """A site without a server: its configuration, its schema, its file store."""

    def __init__(self, folder: Path) -> None:
        from glance_replicas import settings

        self.folder = folder
        self.site = GlanceSite(folder / "site")
        host = self.site.add_host("127.0.0.2", start=False)
        loaded = settings.load([str(host.config_file)])
        self.world = World(folder / "world", loaded)
        for name in NAMES:
            self.site.store_file(name).write_bytes(bytes(SIZE) if name == BAD else truth(name) or b"")
        for name in NAMES + LOSSES:
            self._image(name)

    def _image(self, name: str) -> None:
        add_image(self.site.database_url, name, truth(name) or bytes(SIZE))
        self.site.add_location(name, f"file://{self.site.store_file(name)}", {"store": "fast"})

    def template(self, scenario: str) -> Path:
        """A copy of the state before a scenario."""
        self.world.folder.mkdir()
        for name in ("glance.sqlite", "glance-replicas.sqlite"):
            shutil.copy(self.folder / "site" / name, self.world.folder / name)
        self.world.cache.prepare()
        self.world.cache.own("since").touch()
        SCENARIOS[scenario][0](self.world)
        return self.world.folder.rename(self.folder / scenario.replace(" ", "-"))

    def reset(self, template: Path) -> World:
        """The world is in that state."""
        shutil.rmtree(self.world.folder, ignore_errors=True)
        shutil.copytree(template, self.world.folder, copy_function=copied)
        return self.world


def copied(source: str, target: str) -> None:
    """The file with its mode, notes and times; reading it changed the time of its last use."""
    facts = os.stat(source)
    shutil.copy2(source, target)  # with what is noted on it
    for path in (source, target):
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def share(folder: Path, which: int) -> Iterator[dict[str, Any]]:
    """What was wrong after a kill at each point; of the later scenarios only at lines where nothing was killed by then.

    Whether a scenario comes by some lines depends on time: those that it missed are left to the later ones.
    """
    stage, met = Stage(folder), set[tuple[str, int]]()
    for scenario in SCENARIOS:
        template = stage.template(scenario)
        everywhere = points(stage.reset(template), scenario, folder / "points")
        for point in [one for one in everywhere if one[:2] not in met]:
            if point[1] % SHARES == which:
                for _ in range(TRIES):  # what the ledger's answers are worth, and so the way taken, depends on time
                    world = stage.reset(template)
                    if hit := killed(world, scenario, point):
                        break
                met |= {point[:2]} if hit else set()
                yield {"scenario": scenario, "point": point, "killed": hit, "found": aftermath(world)}
        shutil.rmtree(stage.world.folder)


def lines_of(code: types.CodeType) -> Iterator[int]:
    """The numbers of the lines of a function, and of what is defined in it."""
    yield from (line for _, _, line in code.co_lines() if line and line != code.co_firstlineno)
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from lines_of(one)


def excused(path: str) -> set[int]:
    """The lines of a file that no scenario needs to come by: `crash_points` says which."""
    text = Path(path).read_text()
    noted = {number for number, line in enumerate(text.splitlines(), 1) if SPARED.search(line)}
    found = set(noted)
    for node in ast.walk(ast.parse(text)):
        block = getattr(node, "body", None)
        if isinstance(node, ast.ExceptHandler):
            found.add(node.lineno)
        if isinstance(node, ast.Raise | ast.Break) or (isinstance(node, ast.Return) and is_constant(node.value)):
            found |= set(range(node.lineno, (node.end_lineno or 0) + 1))
        if isinstance(node, ast.stmt | ast.ExceptHandler) and isinstance(block, list) and noted & heads(node):
            found |= set(range(block[0].lineno, (block[-1].end_lineno or 0) + 1))
    return found


def heads(node: ast.stmt | ast.ExceptHandler) -> set[int]:
    """The lines from the beginning of a statement to its colon."""
    return set(range(node.lineno, max(node.lineno + 1, node.body[0].lineno)))  # type: ignore[union-attr]


def is_constant(value: ast.expr | None) -> bool:
    """Of a return: nothing, or nothing that has to be found out."""
    return value is None or isinstance(value, ast.Constant) or (isinstance(value, ast.Tuple) and not value.elts)


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where fsync costs nothing: a kill loses nothing that was written, and these are thousands of files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="glance-replicas-", dir=memory) as folder:
        yield Path(folder)


def test_killed_at_every_line(in_memory: Path) -> None:
    """Wherever a fill, an eviction, a registration or a janitor pass is killed, one pass puts everything right.

    (promises 1, 7 and 8)
    """
    outs = [in_memory / f"out-{which}" for which in range(SHARES)]
    with contextlib.ExitStack() as stack:
        running = []
        for which, out in enumerate(outs):
            command = [sys.executable, "-W", "ignore", __file__, str(in_memory / f"share-{which}"), str(which)]
            process = subprocess.Popen(command, stdout=stack.enter_context(out.open("wb")), env=environment())
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
        assert [one.wait(1200) for one in running] == [0] * SHARES
    outcomes = [json.loads(line) for out in outs for line in out.read_text().splitlines()]
    bad = [one for one in outcomes if one["found"]]
    assert not bad, f"{len(bad)} of {len(outcomes)}:\n" + "\n".join(map(str, bad[:20]))
    met = {(one["point"][0], one["point"][1]) for one in outcomes if one["killed"]}
    left = [
        f"{Path(code.co_filename).name}:{line} in {code.co_qualname}"
        for code in MARKED
        for line in sorted(set(lines_of(code)) - excused(code.co_filename))
        if (code.co_filename, line) not in met
    ]
    assert not left, "no scenario was killed at these lines:\n" + "\n".join(left)


def test_every_mark_is_tried() -> None:
    """A mark in a module that no scenario loads would say that a test kills there, and none would."""
    written = sum(path.read_text().count("@crash_points\n") for path in ROOT.glob("*/**/*.py"))
    assert len(MARKED) == written > 0


def test_killed_at_random() -> None:
    """The program of `make chaos`, short: no wrong byte, no row without a file, no leak (promises 1, 2 and 7)."""
    program = Path(__file__).with_name("chaos.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), "--rounds", "20"],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    assert "0 violations" in done.stdout


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir()
    for outcome in share(Path(sys.argv[1]), int(sys.argv[2])):
        print(json.dumps(outcome), flush=True)
