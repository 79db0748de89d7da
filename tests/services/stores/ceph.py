"""A real Ceph on one disk: a monitor and an OSD (BlueStore in a sparse file), with cephx, without a manager."""

import contextlib
import importlib.util
import json
import mmap
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import absent, free_port, need
from ..configuration import conf_text
from ..process import Process, run

DISK = 1 << 30  # bytes of the OSD's disk, a sparse file
MONITOR = {"mon": "allow *"}
ADMIN = {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}


class Ceph:
    """A started cluster with a pool for images, and a client `glance` that may use this pool alone."""

    pool, user = "images", "glance"

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        if not importlib.util.find_spec("rados"):
            absent("Debian's python3-rados for this Python is not installed; bin/system-packages installs it")
        self.folder, self.address, self.port = folder, address, free_port(address)
        self.fsid, self.conf = str(uuid.uuid4()), folder / "ceph.conf"
        self.processes: dict[str, Process] = {}
        self._initialise()
        self.start()
        self.add_pool(self.pool)
        self.add_client(self.user, self.pool)

    def _initialise(self) -> None:
        for name in ("mon", "osd"):
            (self.folder / name).mkdir(parents=True)
        self.conf.write_text(conf_text(self._options()))
        first, keys = self.folder / "first.keyring", self.keyring("admin")
        monmap = self.folder / "monmap"
        authtool = need("ceph-authtool")
        for path, name, caps in ((keys, "client.admin", ADMIN), (first, "mon.", MONITOR)):
            words = [word for service, cap in caps.items() for word in ("--cap", service, cap)]
            run([authtool, "--create-keyring", path, "--gen-key", "--name", name, *words])
        run([authtool, first, "--import-keyring", keys])
        place = f"[v2:{self.address}:{self.port}]"
        run([need("monmaptool"), "--create", "--fsid", self.fsid, "--addv", "a", place, monmap])
        run([need("ceph-mon"), *self._daemon("a"), "--mkfs", "--keyring", first, "--monmap", monmap])
        self._start_monitor()
        self._new_osd()

    def _options(self) -> dict[str, dict[str, str]]:
        shared = {
            "fsid": self.fsid,
            "mon host": f"v2:{self.address}:{self.port}",
            "public addr": self.address,
            "cluster addr": self.address,
            "ms bind ipv6": "false",
            "ms bind msgr1": "false",
            **dict.fromkeys(("auth cluster required", "auth service required", "auth client required"), "cephx"),
            "auth allow insecure global id reclaim": "false",
            **dict.fromkeys(("run dir", "crash dir"), str(self.folder)),
            **dict.fromkeys(("admin socket", "pid file"), ""),
            "log file": f"{self.folder}/$name.log",
            "keyring": f"{self.folder}/$name.keyring",
            **dict.fromkeys(("osd pool default size", "osd pool default min size"), "1"),
            "osd pool default pg num": "8",
            "osd crush chooseleaf type": "0",
            # A monitor that is alone has nobody to wait for.
            "paxos propose interval": "0.05",
            "paxos min wait": "0.02",
        }
        mon = {"keyring": f"{self.folder}/mon/keyring", "mon data": f"{self.folder}/mon"}
        mon |= {"mon allow pool size one": "true", "mon allow pool delete": "true"}
        mon |= dict.fromkeys(("mon data avail warn", "mon data avail crit"), "0")
        osd = {"keyring": f"{self.folder}/osd/keyring", "osd data": f"{self.folder}/osd"}
        osd |= {"osd objectstore": "bluestore", "bluestore block size": str(DISK)}
        osd |= {"bluestore prefer deferred size hdd": "0"}  # what is written is on the disk, not in a log
        osd |= {"bluestore cache size": str(64 << 20)}
        return {"global": shared, "mon": mon, "osd": osd}

    def _daemon(self, name: str) -> list[str | Path]:
        return ["--conf", self.conf, "--id", name]

    def _start_monitor(self) -> None:
        command = [need("ceph-mon"), *self._daemon("a"), "--foreground"]
        self.processes["mon"] = Process(command, self.folder / "mon.out", cwd=self.folder)
        self.processes["mon"].wait(self._answers)

    def _new_osd(self) -> None:
        """An empty disk, known to the monitor."""
        keyring, name = self.folder / "osd" / "keyring", str(uuid.uuid4())
        run([need("ceph-authtool"), "--create-keyring", keyring, "--gen-key", "--name", "osd.0"])
        secret = run([need("ceph-authtool"), keyring, "--name", "osd.0", "--print-key"]).strip()
        self.command("osd new", uuid=name, stdin=json.dumps({"cephx_secret": secret}))
        run([need("ceph-osd"), *self._daemon("0"), "--mkfs", "--osd-uuid", name])

    def start(self) -> None:
        """Both daemons answer."""
        if "mon" not in self.processes:
            self._start_monitor()
        command = [need("ceph-osd"), *self._daemon("0"), "--foreground"]
        self.processes["osd"] = Process(command, self.folder / "osd.out", cwd=self.folder)
        self.processes["osd"].wait(self._stores)

    def _answers(self) -> bool:
        return self._done(lambda cluster: cluster.get_fsid())

    def _stores(self) -> bool:
        """Whether the OSD is up, and serves the pools there are."""
        state = json.loads(self.command("osd stat", format="json"))
        pools = json.loads(self.command("osd pool ls", format="json"))
        return state["num_up_osds"] == 1 and all(map(self._serves, pools))

    def _serves(self, pool: str) -> bool:
        def ask(cluster: Any) -> None:
            import rados

            with cluster.open_ioctx(pool) as objects, contextlib.suppress(rados.ObjectNotFound):
                objects.stat("nothing")

        return self._done(ask)

    def _done(self, ask: Any) -> bool:
        import rados

        try:
            with self.cluster(timeout=1) as cluster:
                ask(cluster)
        except rados.Error:
            return False
        return True

    @contextlib.contextmanager
    def cluster(self, timeout: float = 30) -> Iterator[Any]:
        """A rados.Rados of the administrator, whose calls end after so many seconds."""
        import rados

        limits = ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout")
        cluster = rados.Rados(conffile=str(self.conf), rados_id="admin", conf=dict.fromkeys(limits, str(timeout)))
        cluster.connect()
        try:
            yield cluster
        finally:
            cluster.shutdown()

    def command(self, prefix: str, *, stdin: str = "", **arguments: Any) -> str:
        """What the monitor answers to a command of the administrator; RuntimeError when it refuses."""
        with self.cluster() as cluster:
            words = json.dumps({"prefix": prefix, **arguments})
            status, answer, why = cluster.mon_command(words, stdin.encode())
        if status:
            raise RuntimeError(f"{prefix} {arguments}: {status} {why}")
        return str(answer.decode())

    def add_pool(self, name: str) -> None:
        """A pool that can be used at once."""
        self.command("osd pool create", pool=name)
        self.processes["osd"].wait(lambda: self._serves(name))

    def drop_pool(self, name: str) -> None:
        """The pool is gone, with all that was in it."""
        self.command("osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)

    def add_client(self, name: str, pool: str) -> None:
        """A client, with its keyring in the folder, that may use one pool as Glance does."""
        caps = ["mon", "profile rbd", "osd", f"profile rbd pool={pool}"]
        self.keyring(name).write_text(self.command("auth get-or-create", entity=f"client.{name}", caps=caps))

    def drop_client(self, name: str) -> None:
        """Its key is no longer taken."""
        self.command("auth del", entity=f"client.{name}")

    def keyring(self, name: str) -> Path:
        """The file with the key of a client."""
        return self.folder / f"client.{name}.keyring"

    @contextlib.contextmanager
    def pool_of(self, name: str) -> Iterator[Any]:
        """A rados.Ioctx of the administrator."""
        with self.cluster() as cluster, cluster.open_ioctx(name) as objects:
            yield objects

    def store_options(self) -> dict[str, str]:
        """An rbd store's options."""
        return {
            "rbd_store_ceph_conf": str(self.conf),
            "rbd_store_user": self.user,
            "rbd_store_pool": self.pool,
            "rbd_store_chunk_size": "1",
        }

    def rot(self, content: bytes) -> None:
        """A byte changes on the OSD's disk wherever this is written there, in the first kilobyte."""
        with (self.folder / "osd" / "block").open("r+b") as disk, mmap.mmap(disk.fileno(), 0) as whole:
            at = -1
            while (at := whole.find(content[:1000], at + 1)) >= 0:
                whole[at + 500] ^= 0xFF
            whole.flush()

    def freeze(self, *daemons: str) -> None:
        """These (`mon`, `osd`) say nothing any more; their connections stay open."""
        self._signal(signal.SIGSTOP, daemons)

    def thaw(self) -> None:
        """All go on where they were frozen."""
        self._signal(signal.SIGCONT, tuple(self.processes))

    def _signal(self, number: signal.Signals, daemons: tuple[str, ...]) -> None:
        for name in daemons:
            os.kill(self.processes[name].pid, number)

    def close(self) -> None:
        """End both daemons, the quick way; what they hold stays for the next `start()`."""
        while self.processes:
            self.processes.popitem()[1].kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
