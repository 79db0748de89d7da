"""The whole loop on two real glance-api hosts: cache, register, serve, list, verify, repair, prune, report.

    demo/run.py          run it, end everything
    KEEP=1 demo/run.py   run it, leave the hosts up
    demo/run.py --stop   end what KEEP=1 left up

Exit status 1 when a step does not show what it should.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import hosts
from shell import Shell, Unexpected, eventually, expect, show

from glance_replicas.ledger.ledger import Ledger
from glance_replicas.settings import default_ledger

RUN = Path(os.environ.get("DEMO_RUN") or Path(__file__).resolve().parent / "run")
ISO = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
LARGE = 256 << 20  # bytes
OCTETS = "-H 'Content-Type: application/octet-stream'"
JSON = "-H 'Content-Type: application/json'"
TABLE = "-c Name -c Kind -c Host -c Zone -c Size -c Verdict -c Evidence -c URL"
HEADERS = " \\\n    ".join(f"--header '{name}: {value}'" for name, value in hosts.IDENTITY.items())


class Demo:
    """The steps, in order; each leaves what the next one needs."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.hosts = hosts.prepare(RUN)
        self.sh = Shell(RUN, hosts.environment())
        self.images: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        """Everything, in order."""
        for step in (self.start, self.check, self.upload, self.download, self.locations, self.fetch, self.damage,
                     self.repair, self.prune, self.again):  # fmt: skip
            step()

    def start(self) -> None:
        """Two hosts that answer."""
        sh = self.sh
        sh.say("One database for both hosts: Glance's tables, then ours.")
        sh("glance-manage --config-file api1/glance-api.conf db_sync 2>/dev/null", lines=2)
        sh("replica --config-file api1/glance-api.conf db upgrade")
        sh.say("Two glance-api hosts under uWSGI, with the pipeline of etc/glance-api-paste.ini less Keystone.")
        for number, host in enumerate(self.hosts, 1):
            print(f"$ {host.start_command} >{host.log.name} 2>&1 &")
            hosts.start(host, self.keep)
            sh.set(f"API{number}", host.url)
        for host in self.hosts:
            eventually(host.answers, f"an answer of {host.name}", seconds=60)
        sh.say("Who we are, in place of a token: four headers in a file. Only a demo may believe them.")
        sh("cat identity")

    def check(self) -> None:
        """What is wrong with this set-up is said, and nothing else."""
        sh = self.sh
        ledger = Ledger(default_ledger(f"sqlite:///{RUN}/glance.sqlite"))
        eventually(lambda: len(ledger.hosts()) == 2, "a heartbeat of both hosts")
        sh.say("What would bite on a real site? Here: everything is on one machine, and the database is SQLite.")
        found = sh("replica --config-file api1/glance-api.conf check", status=1, lines=20)
        lines = [line for line in found.splitlines() if line.startswith(("error:", "warning:"))]
        errors = [line for line in lines if "of the disk" not in line]  # of a small one, and true there
        expected = all("loopback" in line or "SQLite" in line for line in errors)
        expect(len(errors) == 2 and expected, "two errors, loopback and SQLite, and no other")
        sh.say("Their janitors have told the ledger that they live.")
        listed = sh("replica --config-file api1/glance-api.conf host -c Name -c Zone -c URL -c State -c Files")
        expect(listed.count("alive") == 2, "two hosts alive")

    def upload(self) -> None:
        """Two images in the file store."""
        sh = self.sh
        sh.say("A real bootable image, Debian's GRUB rescue disc as qcow2, and a large raw one that does not compress.")
        sh(f"qemu-img convert -O qcow2 {ISO} rescue.qcow2 && qemu-img info rescue.qcow2 | head -3")
        sh(f"head -c {LARGE} /dev/urandom >large.raw && ls -lh *.qcow2 *.raw")
        for name, file, kind in (("rescue", "rescue.qcow2", "qcow2"), ("large", "large.raw", "raw")):
            sh.say(f"Upload {file} through api1, as to any Glance.")
            body = json.dumps({"name": name, "disk_format": kind, "container_format": "bare"})
            image = json.loads(sh(f"curl -sS -H @identity {JSON} -d '{body}' $API1/v2/images"))
            sh.set(name.upper(), image["id"])
            url = f"$API1/v2/images/${name.upper()}/file"
            sh(f"curl -sS -H @identity {OCTETS} -T {file} -w '%{{http_code}} in %{{time_total}} s' {url}")
            self.images[name] = self._get(f"/v2/images/{image['id']}")
            expect(self.images[name]["status"] == "active", f"image {name} active")
            sh.set(f"{name.upper()}_SHA512", self.images[name]["os_hash_value"])

    def download(self) -> None:
        """Through both hosts, twice through the first: a miss, a hit, and a miss that another host serves."""
        sh = self.sh
        for name in self.images:
            self._download(name, 1, "The first download misses: api1 reads the store and keeps a copy.", "stored")
            self._registered(name, {"api1"})
            self._download(name, 1, "The second one is a hit.", "hit")
            self._download(name, 2, "api2 misses too, and reads from api1, not from the store.", "stored")
            self._registered(name, {"api1", "api2"})
        sh.say(
            "The log of api1 shows it: api2 fetched the copy from there. (The query, with its signature, is not logged;"
            " of a body that the kernel sends uWSGI counts the first piece only.)"
        )
        served = sh("grep 'GET /replicas/' api1.log")
        expect(all(image["id"] in served for image in self.images.values()), "both images read from api1 by api2")

    def locations(self) -> None:
        """One durable and two cached locations of each image."""
        sh = self.sh
        sh.say("Each cached copy is one more location of its image.")
        listed = sh(f"replica list --config-file api1/glance-api.conf {TABLE}", lines=20)
        expect(listed.count("/replicas/") == 4 and listed.count("file://") == 2, "two stored and four cached copies")
        sh.say("Every byte of every copy held against its image's digest. Exit status 0: all are intact.")
        found = sh(
            "replica-verify --config-file api1/glance-api.conf --all -c Name -c Kind -c Host -c Verdict -c Seconds"
        )
        expect("6 locations verified: 6 intact" in found, "6 locations verified, 6 intact")

    def fetch(self) -> None:
        """One by curl from its signed URL, one by `replica get`."""
        sh = self.sh
        sh.say("Whoever may download an image may ask for its replicas: best first, with signed per-host URLs.")
        url = "$API1/v2/images/$RESCUE/replicas?zone=zone-b"
        answer = sh(f"curl -sS -H @identity '{url}' | python3 -m json.tool".replace("'", '"'), lines=24)
        best = json.loads(answer)["replicas"][0]
        expect(best["host"] == "api2", "api2, which is in zone-b, first")
        sh.say("The URL is its own permission: no token, no identity, for an hour.")
        sh.set("URL", f"'{best['url']}'")
        sh.environment["URL"] = best["url"]
        sh("curl -sS -D - -o direct.qcow2 \"$URL\" | grep -iE 'HTTP/|cache-status|repr-digest|content-length'")
        sh('echo "$RESCUE_SHA512  direct.qcow2" | sha512sum --check')
        refused = sh("curl -sS -o /dev/null -w '%{http_code}' \"${URL%%\\?*}\"")
        expect(refused == "403", "403 without the signature")
        sh.say("Or let a client do all that: choose, read, move on when a copy fails, verify.")
        sh.set("OS_AUTH_TYPE", "none")
        sh.set("OS_ENDPOINT", self.hosts[0].url)
        columns = "-c Priority -c Kind -c Host -c Zone -c Verdict -c Why"
        sh(f"replica choose $LARGE --zone zone-b {columns} \\\n    {HEADERS}")
        sh(f"replica get $LARGE --zone zone-b -o large.img \\\n    {HEADERS}")
        sh('echo "$LARGE_SHA512  large.img" | sha512sum --check')

    def damage(self) -> None:
        """One byte of one cached copy differs, and is found by its own host."""
        sh = self.sh
        sh.say(f"Damage the copy on api2: one byte of {LARGE} flipped, as a failing disk would do it.")
        self._flip("api2/cache/$LARGE", "440")
        sh.say("A look at the lengths finds nothing; reading every byte does. Exit status 1: damage.")
        columns = "-c Name -c Kind -c Host -c Verdict -c Evidence -c Seconds"
        sh(f"replica-verify --config-file api1/glance-api.conf $LARGE --evidence size {columns}")
        sh.say("Each host reads its own copies: no byte crosses the network. What it finds wrong it serves no more.")
        found = sh(f"replica-verify --config-file api1/glance-api.conf $LARGE {columns}", status=1)
        expect("3 locations verified: 2 intact, 1 corrupt" in found, "3 locations verified: 2 intact, 1 corrupt")
        expect(self._cached("large") == {"api1"}, "only the copy on api1 left in the catalogue")
        sh("ls api2/cache/$LARGE", status=2)
        sh.say("Have api2 fetch a good copy, from wherever it is best had: no byte of it passes through here.")
        columns = "-c Host -c State -c Done -c Bytes -c Size"
        copied = sh(f"replica copy --config-file api1/glance-api.conf $LARGE --to api2 --wait {columns}")
        expect("done" in copied, "a copy done")
        self._registered("large", {"api1", "api2"})

    def repair(self) -> None:
        """The store's own file is damaged, and made good in place from a copy on a host."""
        sh = self.sh
        columns = "-c Name -c Action -c Kind -c Before -c After"
        sh.say("Now the store itself: one byte of its only file of this image.")
        self._flip("store/$LARGE", "640")
        sh.say("The plan first. The copies on hosts are intact, so that the file can be written anew from one of them.")
        plan = sh(f"replica repair --config-file api1/glance-api.conf $LARGE {columns}", status=1)
        expect("corrupt" in plan, "one corrupt copy in the plan")
        done = sh(f"replica repair --config-file api1/glance-api.conf $LARGE --yes {columns}")
        expect("restored" in done, "the file restored")
        sh('echo "$LARGE_SHA512  store/$LARGE" | sha512sum --check')

    def prune(self) -> None:
        """A copy goes, row and file, with proof."""
        sh = self.sh
        columns = "-c Name -c Action -c Kind -c Host -c Reason -c Proof"
        sh.say("What may go from api2, and what proves that enough stays? Nothing is done yet.")
        plan = sh(f"replica-prune --config-file api1/glance-api.conf $LARGE --host api2 {columns}")
        expect("1 location can go; nothing was done" in plan, "a plan of one removal")
        expect(len(self._cached("large")) == 2, "nothing removed by a plan")
        sh.say("Do it. The row goes now, the file with the next pass of its host's janitor.")
        sh(f"replica-prune --config-file api1/glance-api.conf $LARGE --host api2 --yes {columns}")
        expect(self._cached("large") == {"api1"}, "only the copy on api1 left in the catalogue")
        line = f"image {self.images['large']['id']}: removed as asked"
        eventually(lambda: line in self.hosts[1].log.read_text(), "the file of api2 removed by its janitor")
        sh("ls api2/cache/$LARGE", status=2)
        sh.say("Who removed what, when, and why is kept.")
        sh("replica audit log --config-file api1/glance-api.conf -c Requested -c Image -c Host -c Reason -c Who")

    def again(self) -> None:
        """Everything is in order, and a deleted image is gone everywhere."""
        sh = self.sh
        sh.say("Everything is in order again.")
        found = sh("replica-verify --config-file api1/glance-api.conf --all -c Name -c Kind -c Host -c Verdict")
        expect("5 locations verified: 5 intact" in found, "5 locations verified, 5 intact")
        sh.say("Delete an image through api1: its replicas go with it, on both hosts. (SQLite may be busy.)")
        curl = "curl -sS -o deleted --retry 5 -H @identity -X DELETE -w '%{http_code}'"
        deleted = sh(f"{curl} $API1/v2/images/$RESCUE")
        expect(deleted == "204", "204 of the deletion")
        copies = [host.run / host.name / "cache" / self.images["rescue"]["id"] for host in self.hosts]
        eventually(lambda: not any(copy.exists() for copy in copies), "no file of the deleted image left")
        sh("ls api1/cache api2/cache")
        sh.say("Do stores and hosts hold what the catalogue says, and nothing else? And how is it all?")
        sh("replica audit --config-file api1/glance-api.conf --store fast")
        sh("replica report --config-file api1/glance-api.conf", lines=40)

    def _flip(self, path: str, mode: str) -> None:
        """One byte of this file of the large image is another one; its times and notes are as before."""
        place = LARGE // 2 + 4711
        with (RUN / "large.raw").open("rb") as file:
            file.seek(place)
            wrong = file.read(1)[0] ^ 0xFF
        self.sh(f"cp --archive {path} damaged && chmod u+w damaged")
        self.sh(f"printf '\\x{wrong:02x}' | dd of=damaged bs=1 seek={place} conv=notrunc status=none")
        self.sh(f"chmod {mode} damaged && touch -r {path} damaged && mv -f damaged {path}")

    def _download(self, name: str, number: int, why: str, status: str) -> None:
        sh, variable = self.sh, name.upper()
        sh.say(why)
        target = f"{name}-{number}.img"
        timing = "-w '%{size_download} bytes, first after %{time_starttransfer} s, all after %{time_total} s'"
        url = f"$API{number}/v2/images/${variable}/file"
        sh(f"curl -sS -H @identity -D headers -o {target} {timing} {url}")
        said = sh("grep -i '^cache-status' headers")
        expect(status in said and f"api{number}" in said, f"Cache-Status of api{number} with {status}")
        sh(f'echo "${variable}_SHA512  {target}" | sha512sum --check')

    def _registered(self, name: str, names: set[str]) -> None:
        """The row comes a moment after the last byte: once the file is safely on disk."""
        eventually(lambda: self._cached(name) == names, f"copies of image {name} registered on {sorted(names)}")

    def _cached(self, name: str) -> set[str]:
        replicas = self._get(f"/v2/images/{self.images[name]['id']}/replicas")["replicas"]
        return {one["host"] for one in replicas if not one["durable"]}

    def _get(self, path: str) -> Any:
        status, body = hosts.fetch(self.hosts[0].url + path)
        expect(status == 200, f"200 of GET {path}, which answered {status}: {body[:200]!r}")
        return json.loads(body)


def main() -> int:
    """Run, and leave nothing running, unless asked to."""
    if sys.argv[1:] not in ([], ["--stop"]):
        sys.exit(__doc__)
    ended = hosts.stop(RUN)
    if sys.argv[1:] == ["--stop"]:
        print(f"{ended} servers ended" if ended else "nothing was running")
        return 0
    if not ISO.exists() or not shutil.which("qemu-img"):
        sys.exit("demo: grub-rescue-pc and qemu-utils are needed: run bin/system-packages as root, or with sudo")
    shutil.rmtree(RUN, ignore_errors=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    return _guarded(Demo(keep=os.environ.get("KEEP", "") not in ("", "0")))


def _guarded(demo: Demo) -> int:
    began, good = time.monotonic(), False
    try:
        demo.run()
        good = True
    except Unexpected as error:
        print(f"\nFAILED, expected: {error}")
        for host in demo.hosts:
            print(f"\nThe end of {host.log}:")
            show("\n".join(host.log.read_text(errors="replace").splitlines()[-12:]) if host.log.exists() else "")
    finally:
        if not (good and demo.keep):
            hosts.stop(RUN)
    if good:
        print(f"\nAll steps showed what they should, in {time.monotonic() - began:.0f} s.", end=" ")
        _kept(demo) if demo.keep else _gone()
    return 0 if good else 1


def _gone() -> None:
    shutil.rmtree(RUN)
    print("Both hosts have ended; nothing is left.")


def _kept(demo: Demo) -> None:
    pids = " ".join(line.split()[0] for line in (RUN / "pids").read_text().splitlines())
    exports = "\n".join(f"    export API{number}={host.url}" for number, host in enumerate(demo.hosts, 1))
    print(
        f"Both hosts are up.\n\nTo talk to them:\n    cd {RUN}\n    export PATH={sys.prefix}/bin:$PATH\n{exports}\n"
        f"    export LARGE={demo.images['large']['id']}\n"
        "    curl -H @identity $API1/v2/images\n"
        "    curl -H @identity $API2/v2/images/$LARGE/replicas\n"
        "    replica list --config-file api1/glance-api.conf\n"
        f"To stop them:\n    {sys.executable} {Path(__file__).resolve()} --stop    (or: kill {pids})"
    )


if __name__ == "__main__":
    sys.exit(main())
