"""What the tools cost: verification beside openssl and curl, memory, and catalogues of a million locations.

Full verification reads and hashes what `openssl dgst -sha512` hashes on as many cores in the same round; http and
Swift locations beside curl piped into openssl. Listing and skipping read 1,000,000 locations of 100,000 images.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from report import Row, at_least, at_most, main
from stage import MIB, GlanceHost, Stage, _nginx, note, p50

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import default_ledger

ROUNDS = 4
EACH = 10  # locations of an image in the large catalogue
REPLICA = Path(sys.executable).with_name("replica")
IMAGES = (
    "INSERT INTO images (id, name, size, status, created_at, updated_at, deleted, min_disk, min_ram, protected,"
    " visibility, os_hidden, os_hash_algo, os_hash_value, owner)"
    " SELECT CAST(CAST(md5(CAST(n AS text)) AS uuid) AS text), 'image-' || n, :size, 'active', now(), now(), false,"
    " 0, 0, false, 'shared', false, 'sha512', repeat('0', 128), 'p1' FROM generate_series(1, :number) n"
)


def run(scale: float = 1.0) -> list[Row]:
    """Medians over the rounds, the first round dropped."""
    rows = []
    with Stage() as stage:
        stage.hosts("stock", processes=1)
        with note("tools: reading"):
            rows += _reading(stage, int(512 * scale) * MIB)
        with note("tools: memory"):
            rows += _memory(stage, int(1024 * scale) * MIB)
    with Stage() as stage, note("tools: a large catalogue"):
        rows += _catalogue(stage, int(100_000 * scale))
    with Stage() as stage, note("tools: size checks"):
        rows += _sizes(stage, int(10_000 * scale))
    return rows


class Program:
    """`replica` run to its end, watched."""

    def __init__(self, stage: Stage, *words: str, host: GlanceHost | None = None) -> None:
        if host is None:
            host = stage.site.hosts[0] if stage.site.hosts else stage.site.add_host("127.0.0.2", start=False)
        self.path = stage.folder / "out"
        began = time.monotonic()
        with self.path.open("wb") as file:
            command = [REPLICA, "--config-file", host.config_file, *words]
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE)
            self.peak = _peak(process)
        self.seconds = time.monotonic() - began
        self.error = process.stderr.read().decode() if process.stderr else ""
        with self.path.open() as file:
            self.lines = sum(1 for _ in file)
        if process.returncode not in (0, 1):
            raise RuntimeError(f"{words}: {process.returncode}: {self.error}")


def _peak(process: "subprocess.Popen[bytes]") -> int:
    """The most memory it ever had, in bytes, once it has ended."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(int(line.split()[1]) << 10 for line in found)])
        time.sleep(0.05)
    process.wait()
    return peak


def _reading(stage: Stage, size: int) -> list[Row]:
    """File, http and Swift locations, all processors busy, in MiB/s."""
    cores = os.cpu_count() or 1
    host = stage.site.hosts[0]
    data, origin = stage.data(size), stage.origin(size)
    local = [stage.image(host, size) for _ in range(cores)]
    remote = [stage.image(host, size, origin) for _ in range(cores)]
    cloud, swift, objects = stage.swift(size, cores)
    token = f"-H 'X-Auth-Token: {swift.keystone.token()[0]}'"
    hashed = "openssl dgst -sha512"
    contestants: dict[str, Callable[[], float]] = {
        "openssl dgst -sha512": lambda: _shell([f"{hashed} {data}"] * cores),
        "replica verify, file": lambda: _verified(stage, host, local),
        "curl of http | openssl": lambda: _shell([f"curl -s {origin.url}/x | {hashed}"] * cores),
        "replica verify, http": lambda: _verified(stage, host, remote),
        "curl of Swift | openssl": lambda: _shell(
            [f"curl -s {token} {swift.url}{swift.account_path}/{swift.container}/{one} | {hashed}" for one in objects]
        ),
        "replica verify, Swift": lambda: _verified(stage, cloud, objects),
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS + 1):
        for name, work in contestants.items():
            taken[name].append(work())
    rates = {name: [cores * size / MIB / one for one in found[1:]] for name, found in taken.items()}
    rows = [
        Row("full verification", name, {"MiB/s": p50(one), "min": min(one), "max": max(one)})
        for name, one in rates.items()
    ]
    for (theirs, ours), row, limit in zip(_pairs(list(rates)), rows[1::2], (0.9, 0.8, 0.8), strict=True):
        ratio = p50([mine / its for mine, its in zip(rates[ours], rates[theirs], strict=True)])
        row.values["of the peer"] = ratio
        row.goals = [at_least(f"{ours}: part of {theirs}", ratio, limit)]
    return rows


def _verified(stage: Stage, host: GlanceHost, images: Sequence[str]) -> float:
    """Seconds that looking at all of them at once took, by the program's own clock: without its start."""
    limits = ["--workers", str(len(images)), "--workers-per-backend", str(len(images))]
    done = Program(stage, "verify", *images, *limits, "-f", "json", host=host)
    found = json.loads(done.path.read_text())
    if [one["Verdict"] for one in found] != ["intact"] * len(images):
        raise RuntimeError(f"{found}: {done.error}")
    return max(float(one["Seconds"]) for one in found)


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(names[::2], names[1::2], strict=True))


def _shell(commands: Sequence[str]) -> float:
    began = time.monotonic()
    running = [subprocess.Popen(one, shell=True, stdout=subprocess.DEVNULL) for one in commands]
    for one in running:
        one.wait()
    return time.monotonic() - began


def _memory(stage: Stage, size: int) -> list[Row]:
    """The peak for a small image and for a large one."""
    small, large = (
        Program(stage, "verify", stage.image(stage.site.hosts[0], one), "-f", "json").peak / MIB for one in (MIB, size)
    )
    row = Row("memory of replica verify", f"1 MiB, then {size // MIB} MiB", {"small MiB": small, "large MiB": large})
    row.goals = [at_most("verify: memory more for a large image, MiB", large - small, 8)]
    return [row]


def _catalogue(stage: Stage, number: int) -> list[Row]:
    """Listing all, and a second run that skips all."""
    fill(stage, number)
    total = number * EACH
    listed = Program(stage, "list", "-f", "jsonl")
    skipped = Program(stage, "verify", "--all", "--max-age", "7d", "-f", "jsonl")
    if listed.lines != total or f"{total} skipped" not in skipped.error:
        raise RuntimeError(f"{listed.lines} of {total} lines; {skipped.error}")
    rates = [total / one.seconds for one in (listed, skipped)]
    peaks = [one.peak / MIB for one in (listed, skipped)]
    names = ("replica list -f jsonl", "replica verify --max-age, all recent")
    rows = [
        Row(f"{total} locations of {number} images", name, {"locations/s": rate, "peak MiB": peak})
        for name, rate, peak in zip(names, rates, peaks, strict=True)
    ]
    rows[0].goals = [at_least("list: locations/s", rates[0], 30_000), at_most("list: peak MiB", peaks[0], 200)]
    rows[1].goals = [at_least("verify: locations skipped/s", rates[1], 50_000)]
    return rows


def fill(stage: Stage, number: int) -> None:
    """So many images with a durable location and nine cached ones, all of them verified a moment ago."""
    ledger = Ledger(default_ledger(stage.site.database_url))
    ledger.upgrade()
    ledger.close()
    stage.site.rows(IMAGES, number=number, size=1_000_000)
    stage.site.rows(
        "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, deleted) SELECT id,"
        " CASE k WHEN 0 THEN 'file:///srv/images/' || id ELSE 'http://10.0.0.' || k || '\\:9292/replicas/' || id END,"
        f" CASE k WHEN 0 THEN {_json(store='fast')} ELSE {_json(replica_host='api1', store='web')} END,"
        " 'active', now(), false"
        " FROM images, generate_series(0, :last) k",
        last=EACH - 1,
    )
    stage.site.rows(
        "INSERT INTO replica_states (image_id, place, url, host, verdict, evidence, detail, size, seconds, checked_at,"
        " full_verdict, full_checked_at) SELECT image_id, encode(sha256(convert_to(chr(10) || value, 'UTF8')), 'hex'),"
        " value, CAST(meta_data AS json) ->> 'replica_host', 'intact', 'full', '', 1000000,"
        " 0.5, now(), 'intact', now() FROM image_locations",
    )
    stage.site.rows("ANALYZE")


def _json(**metadata: str) -> str:
    """As a literal for SQLAlchemy's text, where a colon begins a parameter."""
    return "'" + json.dumps(metadata).replace(":", "\\:") + "'"


def _sizes(stage: Stage, number: int) -> list[Row]:
    """HEAD requests to a server on this machine, recorded in the ledger."""
    root = stage.folder / "www"
    root.mkdir()
    (root / "blob").write_bytes(bytes(1000))
    server = _nginx(stage, f"location / {{ root {root}; try_files /blob =404; }}")
    stage.site.rows(IMAGES, number=number, size=1000)
    stage.site.rows(
        "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, deleted) SELECT id, :url || id,"
        f" {_json(store='web')}, 'active', now(), false FROM images",
        url=f"{server.url}/",
    )
    words = ["--all", "--evidence", "size", "--workers", "16", "--workers-per-backend", "16", "-f", "jsonl"]
    done = Program(stage, "verify", *words)
    if f"{number} intact" not in done.error:
        raise RuntimeError(done.error)
    row = Row("size checks of http locations", "replica verify --evidence size", {"locations/s": number / done.seconds})
    row.goals = [at_least("verify --evidence size: locations/s", number / done.seconds, 1000)]
    return [row]


if __name__ == "__main__":
    main(__doc__, run)
