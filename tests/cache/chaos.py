"""kill -9 at random moments, and what one janitor pass makes of it: `make chaos`, or `chaos.py --rounds N --seed S`.

Two real hosts share a PostgreSQL catalogue and a back end that counts. Clients download all the time, images are
deleted and made, and processes of the real code fill, evict, scrub, register and do the janitor's work in the same
directories. A burst of kills later everything is started again, each janitor does one pass, and then:

    no body that ended well differed from its image       no row without a file, no active image's file without a row
    no file differs from its image                        no byte on disk that is not accounted for

A line for each burst, a summary, and exit status 1 with all the facts when anything was violated. `--forks` is how the
program starts the processes it kills.
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from services import environment, eventually
from services.databases.servers import Postgres, server_folder
from services.glance.site import GlanceHost, GlanceSite
from services.web.faulty import FaultyServer

from glance_replicas.cache import Cache
from glance_replicas.cache.eviction import Eviction
from glance_replicas.cache.partial_file import PartialFile
from glance_replicas.errors import ReplicaError
from glance_replicas.host.local_host import LocalHost
from glance_replicas.janitor import assembly
from glance_replicas.model import Image
from glance_replicas.transfer.follow import start_or_join

MIB = 1 << 20
QUOTA = 14 * MIB  # of a host; a third of all images
SIZES = (MIB // 2, 5 * MIB)
IMAGES = 14
RATE = 8 * MIB  # bytes per second of one connection to the back end
BURST = 20  # kills between two looks
CHILDREN = 2  # processes to be killed, on each host
CLIENTS = 5
OPTIONS = {"replicas": {"janitor": "false", "max_bytes": str(QUOTA), "stall_timeout_seconds": "3"}}
OURS = {"incomplete", "invalid", "queue", ".glance-replicas"}


def violations(local: LocalHost, truth: Callable[[str], bytes | None]) -> list[str]:
    """What is wrong on a host at rest after one pass of its janitor; `truth` gives the bytes of an image."""
    name = local.settings.host_name
    rows = Counter(one.image_id for one in local.catalogue.of_host(name))
    entries = {one.image_id: one for one in local.cache.complete.entries()}
    statuses = local.catalogue.statuses(entries)
    found = [f"image {image_id}: {count} rows" for image_id, count in rows.items() if count > 1]
    found += [f"image {image_id}: row without a file" for image_id in rows.keys() - entries.keys()]
    for image_id, entry in entries.items():
        if statuses.get(image_id) not in ("active", "deactivated"):
            found.append(f"image {image_id}: a file, but the image is {statuses.get(image_id)}")
        elif image_id not in rows:
            found.append(f"image {image_id}: file without a row")
        if not entry.verified:
            found.append(f"image {image_id}: file not verified after a pass")
        if local.cache.path(image_id).read_bytes() != truth(image_id):
            found.append(f"image {image_id}: the file differs from the image")
    found += leaks(local, truth)
    if local.settings.max_bytes and entries and local.eviction.used() > local.settings.max_bytes:
        found.append(f"{local.eviction.used()} bytes used of {local.settings.max_bytes}")
    return [f"host {name}: {one}" for one in found]


def leaks(local: LocalHost, truth: Callable[[str], bytes | None]) -> Iterator[str]:
    """Bytes that nobody accounts for."""
    folder, counted = local.cache.folder, dict[int, int]()  # by inode: a crash may leave one file under two names
    for path in (path for path in folder.rglob("*") if path.is_file()):
        facts, place = path.lstat(), path.parent.relative_to(folder).parts
        if len(path.name) != 36:
            if place != (".glance-replicas",):
                yield f"{path}: nobody's file"
            continue
        data = truth(path.name)
        if data is not None and facts.st_size > len(data):
            yield f"{path}: {facts.st_size} bytes of an image of {len(data)}"
        if data is not None and facts.st_blocks * 512 > len(data) + 65536:
            yield f"{path}: {facts.st_blocks * 512} bytes on disk of an image of {len(data)}"
        if place == (".glance-replicas", "partial"):
            counted.setdefault(facts.st_ino, max(facts.st_size, facts.st_blocks * 512))
        elif place in ((), ("invalid",)):
            counted[facts.st_ino] = facts.st_size
    if sum(counted.values()) != local.eviction.used():
        yield f"{sum(counted.values())} bytes are there, Eviction.used() says {local.eviction.used()}"


def left_behind(local: LocalHost, one_pass: Callable[[], object]) -> list[str]:
    """Partial files that are still there after a pass once nobody took them over for long enough."""
    for image_id, _ in local.cache.listed("partial"):
        os.utime(local.cache.partial_path(image_id), (time.time(), time.time() - 7200))
    one_pass()
    return [f"image {image_id}: partial file left behind" for image_id, _ in local.cache.listed("partial")]


# What is killed: forks of a process that has read one host's configuration.


class Victim:
    """One child: real work in random order until it is killed."""

    def __init__(self, config_file: str, folder: Path, seed: int) -> None:
        from glance_replicas import settings

        self._config_file, self.folder, self._random = config_file, folder, random.Random(seed)
        self.local = LocalHost.assemble(settings.load([config_file]))

    def truth(self, image_id: str) -> bytes | None:
        """The bytes of an image, None for one that was never finished."""
        path = self.folder / "truth" / image_id
        return path.read_bytes() if path.exists() else None

    def work(self) -> None:
        """Until the end."""
        actions = [self.fill] * 6 + [self.evict] * 2 + [self.janitor] * 2 + [self.scrub, self.register]
        while True:
            with contextlib.suppress(ReplicaError):
                self._random.choice(actions)()

    def _any(self) -> Image | None:
        return self.local.catalogue.active(self._random.choice(os.listdir(self.folder / "truth")))

    def fill(self) -> None:
        """Fill or follow, and compare."""
        image = self._any()
        if image is None or image.size is None:
            return
        with closing(start_or_join(self.local.cache, self.local.fill_setup.plan(image))) as follower:
            got = b"".join(follower.read(0, image.size))
        if got != self.truth(image.id):
            with (self.folder / "wrong").open("a") as file:
                file.write(f"{self.local.settings.host_name}: image {image.id}: a follower got wrong bytes\n")

    def evict(self) -> None:
        """As if the quota were lowered for a moment; not to nothing, since an empty directory may be unmounted."""
        bound = self._random.randrange(QUOTA // 2, QUOTA)
        Eviction(self.local.cache, bound, 0, withdraw=self.local.registration.withdraw).trim()

    def scrub(self) -> None:
        """Read a file again."""
        for entry in list(self.local.cache.complete.entries())[:1]:
            assembly.scrubber(self.local, lambda: None).verify(entry.image_id)

    def register(self) -> None:
        """Register what is there, as at the end of a fill."""
        image = self._any()
        copy = self.local.cache.complete.open(image.id) if image else None
        if image and copy:
            with closing(copy):
                if copy.entry.verified:
                    self.local.full_reads.verified(image)

    def janitor(self) -> int:
        """`replica janitor --once`, the program itself; its exit status."""
        from glance_replicas.tools.main import main

        sys.argv = ["replica", "--config-file", self._config_file, "janitor", "--once"]
        try:
            return main()
        except SystemExit as end:
            return int(end.code or 0)

    def check(self) -> list[str]:
        """One pass, and what is wrong then; then the same once partial files are old."""
        before = time.monotonic()
        status = self.janitor()
        found = [] if status == 0 else [f"{self.local.settings.host_name}: the janitor ended with status {status}"]
        found += violations(self.local, self.truth)
        if self._random.random() < 0.3:
            found += left_behind(self.local, self.janitor)
        logging.getLogger("chaos").info("checked in %.1f s", time.monotonic() - before)
        return found


def serve_forks(config_file: str, folder: Path) -> None:
    """Answers `start SEED`, `kill PID` and `check SEED`, each in a line; ends with its input."""
    Victim(config_file, folder, 0)  # all imports, before the first fork
    import glance_replicas.tools.commands.janitor
    import glance_replicas.tools.main  # noqa: F401

    children: set[int] = set()
    for line in sys.stdin:
        what, number = line.split()
        answer: Any = None
        if what == "kill":
            os.kill(int(number), signal.SIGKILL)
            os.waitpid(int(number), 0)
            children.discard(int(number))
        else:
            answer = _fork(what, int(number), config_file, folder)
            children |= {answer} if what == "start" else set()
        print(json.dumps(answer), flush=True)
    for child in children:
        os.kill(child, signal.SIGKILL)


def _fork(what: str, seed: int, config_file: str, folder: Path) -> Any:
    """The pid of a child at work, or what a check found."""
    answer = folder / f"answer-{os.getpid()}"
    child = os.fork()
    if child:
        if what == "check":
            os.waitpid(child, 0)
            return json.loads(answer.read_text())
        return child
    try:
        log = os.open(f"{config_file}.victims.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
        victim = Victim(config_file, folder, seed)
        answer.write_text(json.dumps(["the check ended without an answer"]))
        answer.write_text(json.dumps(victim.check())) if what == "check" else victim.work()
    except BaseException:
        logging.exception("victim")
        (folder / "broke").write_text(f"see {config_file}.victims.log\n")
    finally:
        os._exit(1)


class Forks:
    """The other end of `serve_forks`, for one host."""

    def __init__(self, host: GlanceHost, folder: Path) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--forks", str(host.config_file), str(folder)]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        self.running: list[int] = []

    def ask(self, what: str, number: int) -> Any:
        """One line each way."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(f"{what} {number}\n")
        self._server.stdin.flush()
        readable, _, _ = select.select([self._server.stdout], [], [], 120)
        if not readable:
            raise RuntimeError(f"no answer to {what} in two minutes")
        return json.loads(self._server.stdout.readline())

    def start(self, seed: int) -> None:
        """One more child."""
        self.running.append(self.ask("start", seed))

    def kill(self, pid: int) -> None:
        """One less."""
        self.running.remove(pid)
        self.ask("kill", pid)

    def close(self) -> None:
        """None is left."""
        self._server.communicate(timeout=20)


# Who must not notice.


class Clients:
    """Download all the time, from both hosts; every body that ended well is compared."""

    def __init__(self, site: GlanceSite, images: dict[str, bytes], seed: int) -> None:
        self._site, self._images = site, images
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.streams: deque[tuple[str, str, list[float]]] = deque(maxlen=2000)  # host, image, when chunks arrived
        self._go, self._end = threading.Event(), threading.Event()
        self._idle = [threading.Event() for _ in range(CLIENTS)]
        self._threads = [
            threading.Thread(target=self._run, args=(idle, random.Random(f"{seed} {number}")), daemon=True)
            for number, idle in enumerate(self._idle)
        ]
        for thread in self._threads:
            thread.start()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def pause(self) -> None:
        """Nobody downloads."""
        self._go.clear()
        if not all(idle.wait(90) for idle in self._idle):
            raise RuntimeError("a download did not end within 90 seconds")

    def close(self) -> None:
        """Nobody ever will."""
        self.pause()
        self._end.set()
        self._go.set()
        for thread in self._threads:
            thread.join()

    def _run(self, idle: threading.Event, dice: random.Random) -> None:
        while True:
            if not self._go.is_set():
                idle.set()
                self._go.wait()
                idle.clear()
            if self._end.is_set():
                return
            try:
                self._download(dice)
            except OSError:  # requests' errors are; hosts die under it
                self.counts["broken"] += 1
                time.sleep(0.05)

    def _download(self, dice: random.Random) -> None:
        host, images = dice.choice(self._site.hosts), dict(self._images)
        partial_file = [path.name for path in host.partial_dir.glob("????????-*") if path.name in images]
        image_id = dice.choice(partial_file if partial_file and dice.random() < 0.6 else list(images))
        expected, headers = images[image_id], {}
        if dice.random() < 0.2:
            start = dice.randrange(len(expected))
            headers["Range"] = f"bytes={start}-"
            expected = expected[start:]
        client = host.client()
        client.timeout = 30.0
        answer = client.download(image_id, headers=headers, stream=True)
        arrived, got = [time.monotonic()], bytearray()
        with closing(answer):
            for chunk in answer.iter_content(65536):
                arrived.append(time.monotonic())
                got += chunk
        if answer.status_code not in (200, 206):
            self.counts[f"status {answer.status_code}"] += 1
            return
        self.counts["whole"] += 1
        self.streams.append((host.name, image_id, arrived))
        if got != expected:
            facts = f"{len(got)} of {len(expected)} bytes, {headers}, {dict(answer.headers)}"
            self.wrong.append(f"host {host.name}: image {image_id}: wrong body that ended well: {facts}")


def fills_of(pid: int) -> list[str]:
    """The images a process fills: partial files it has open for writing."""
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                path = link.readlink()
                flags = int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split("flags:")[1].split()[0], 8)
                if path.parent.name == "partial" and len(path.name) == 36 and flags & os.O_RDWR:
                    found.append(path.name)
    return found


class Chaos:
    """The whole run."""

    def __init__(self, seed: int, folder: Path, site: GlanceSite, backend: FaultyServer) -> None:
        self._dice, self.folder, self._site, self._backend = random.Random(seed), folder, site, backend
        (folder / "truth").mkdir()
        self._images: dict[str, bytes] = {}
        self.kills: Counter[str] = Counter()
        self.pauses: list[float] = []  # seconds a client waited for its next bytes when the filler was killed
        self.found: list[str] = []
        self._killed: list[tuple[float, str, str]] = []  # when, host, image
        while len(self._images) < IMAGES:
            self._make()
        self._forks = {host.name: Forks(host, folder) for host in site.hosts}
        self.clients = Clients(site, self._images, seed)

    def burst(self, kills: int) -> str:
        """Kill so often, put everything up again, look; a line that says what happened."""
        before, counted = Counter(self.kills), Counter(self.clients.counts)
        self.clients.resume()
        for forks in self._forks.values():
            while len(forks.running) < CHILDREN:
                forks.start(self._dice.randrange(1 << 30))
        while (self.kills - before).total() < kills - CHILDREN * len(self._forks):
            time.sleep(self._dice.expovariate(1 / 0.15))
            self._kill()
            if self._dice.random() < 0.15:
                self._replace_image()
        self._rest()
        found = self._look()
        self.found += found
        done, got = self.kills - before, self.clients.counts - counted
        return f"{done.total()} kills {dict(done)}, downloads {dict(got)}: {'VIOLATED' if found else 'ok'}"

    def _kill(self) -> None:
        host = self._dice.choice(self._site.hosts)
        forks, kind = self._forks[host.name], self._dice.choices(("child", "worker", "host"), (88, 9, 3))[0]
        if kind == "child":
            victim = self._dice.choice(forks.running)
            self._note(host, victim)
            forks.kill(victim)
            forks.start(self._dice.randrange(1 << 30))
        elif not host.running() or not host.pids():
            return
        elif kind == "worker":
            victim = self._dice.choice(host.pids())
            self._note(host, victim)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        else:
            host.kill()
        self.kills[kind] += 1

    def _note(self, host: GlanceHost, pid: int) -> None:
        self._killed += [(time.monotonic(), host.name, image_id) for image_id in fills_of(pid)]

    def _make(self) -> None:
        data = self._dice.randbytes(self._dice.randrange(*SIZES))
        host = next(host for host in self._site.hosts if host.running())
        image_id = host.client().create(data=data)["id"]
        (self.folder / "truth" / image_id).write_bytes(data)
        self._site.move_to(self._backend, image_id, rate=RATE)
        self._images[image_id] = data

    def _replace_image(self) -> None:
        """One is deleted, another one made, on whatever host lives; a host that is killed meanwhile is no fault."""
        if not any(host.running() for host in self._site.hosts):
            return
        gone = self._dice.choice(list(self._images))
        with contextlib.suppress(OSError):
            self._dice.choice(self._site.hosts).client().delete(gone)
            del self._images[gone]
        with contextlib.suppress(OSError):
            while len(self._images) < IMAGES:
                self._make()

    def _rest(self) -> None:
        """All hosts are up, nobody downloads, nothing is filled."""
        for forks in self._forks.values():
            while forks.running:
                forks.kill(forks.running[0])
                self.kills["child"] += 1
        self.clients.pause()
        for host in self._site.hosts:
            if not host.running():
                host.start(wait=False)
        for host in self._site.hosts:
            host.wait_ready()
            if not eventually(lambda host=host: not _filling(host), 60):
                raise RuntimeError(f"{host.name}: a fill goes on for a minute without anybody who reads")
        time.sleep(0.3)  # a fill that has just ended registers

    def _look(self) -> list[str]:
        found, self.clients.wrong = list(self.clients.wrong), []
        for name in ("wrong", "broke"):
            if (self.folder / name).exists():
                found += (self.folder / name).read_text().splitlines()
                (self.folder / name).unlink()
        for forks in self._forks.values():
            found += forks.ask("check", self._dice.randrange(1 << 30))
        for when, host, image_id in self._killed:
            self.pauses += [
                pause
                for one, other, arrived in self.clients.streams
                if (one, other) == (host, image_id) and (pause := longest_pause(arrived, when)) is not None
            ]
        self._killed, _ = [], self.clients.streams.clear()
        return found

    def close(self) -> None:
        """Nothing is left running."""
        self.clients.close()
        for forks in self._forks.values():
            forks.close()


def longest_pause(arrived: Sequence[float], when: float) -> float | None:
    """Seconds a reader waited for its next bytes about a moment; None: it did not read then."""
    if not arrived[0] < when < arrived[-1]:
        return None
    return max(b - a for a, b in itertools.pairwise(arrived) if b >= when and a <= when + 0.5)


def _filling(host: GlanceHost) -> bool:
    cache = Cache(host.cache_dir)
    for image_id, facts in cache.listed("partial"):
        try:
            partial_file = PartialFile.lock(host.partial_dir / image_id, max(facts.st_size, 1 << 40))
        except OSError:
            return True
        if partial_file is None:
            return True
        partial_file.close()
    return False


def run(rounds: int, seed: int, folder: Path) -> int:
    """The exit status."""
    print(f"seed {seed}, {rounds} kills; logs in {folder}", flush=True)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(Postgres(stack.enter_context(server_folder("chaos"))))
        backend, url = stack.enter_context(FaultyServer()), postgres.create_glance("chaos")
        site = stack.enter_context(GlanceSite(folder / "site", url, options=OPTIONS))
        for number, sendfile in ((2, "off"), (3, "uwsgi")):
            options = {"replicas": {"sendfile": sendfile}}
            host = site.add_host(f"127.0.0.{number}", zone=f"zone-{number}", threads=12, options=options, start=False)
            host.start(wait=False)
        for host in site.hosts:
            host.wait_ready()
        chaos, began, number = Chaos(seed, folder, site, backend), time.monotonic(), 0
        try:
            while chaos.kills.total() < rounds and len(chaos.found) < 20:
                number += 1
                left = rounds - chaos.kills.total()
                print(f"burst {number}: {chaos.burst(min(left, BURST))}", flush=True)
        finally:
            chaos.close()
    return report(chaos, time.monotonic() - began)


def happened(folder: Path) -> dict[str, int]:
    """How often our code says that it did this or that: a run in which nothing happened proves nothing."""
    text = "".join(path.read_text(errors="replace") for path in folder.glob("site/*/*.log"))
    words = {"fills": ": filled, ", "evictions": ": evicted, ", "registrations": ": registered on host"}
    words |= {"withdrawals": ": withdrawn from host", "takeovers": "taken over at byte", "deletes": ": deleted, "}
    return {name: text.count(phrase) for name, phrase in words.items()}


def report(chaos: Chaos, seconds: float) -> int:
    """The summary on standard output; the exit status."""
    pauses = sorted(chaos.pauses)
    took = "no reader was there when a filler died"
    if pauses:
        p99 = pauses[min(len(pauses) - 1, int(len(pauses) * 0.99))]
        took = f"max {pauses[-1]:.2f} s, p99 {p99:.2f} s, median {pauses[len(pauses) // 2]:.2f} s of {len(pauses)}"
    print(f"{chaos.kills.total()} kills {dict(chaos.kills)} in {seconds:.0f} s")
    print(f"downloads {dict(chaos.clients.counts)}; {happened(chaos.folder)}")
    print(f"takeover, as a reader of the killed filler sees it: {took}")
    print(f"{len(chaos.found)} violations")
    for one in chaos.found:
        print(f"  {one}")
    return 1 if chaos.found else 0


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=1000, help="kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--forks", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.forks:
        serve_forks(asked.forks[0], Path(asked.forks[1]))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="glance-replicas-chaos-"))
    status = run(asked.rounds, asked.seed, folder)
    if status == 0:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
