"""A real Cinder on a real Ceph: volumes are RBD images, and the storage of a Keystone's catalogue."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import absent, free_port, need
from ..configuration import Options, conf_text
from ..process import Process, run
from .ceph import Ceph
from .keystone import Keystone

PROGRAM = Path(__file__).with_name("cinder_all.py")


class Cinder:
    """API, scheduler and one volume service, started, for the administrator of a Keystone."""

    pool = user = "cinder"

    def __init__(self, folder: Path, keystone: Keystone, ceph: Ceph, address: str = "127.0.0.1") -> None:
        self.folder, self.keystone, self.ceph, self.address = folder, keystone, ceph, address
        self.port = free_port(address)
        self.url = f"http://{address}:{self.port}"
        self.path = f"/v3/{keystone.token()[1]['project']['id']}"
        self.conf = folder / "cinder.conf"
        self._process: Process | None = None
        ceph.add_pool(self.pool)
        ceph.add_client(self.user, self.pool)
        # os-brick looks for keys in /etc/ceph/CLUSTER.client.USER.keyring and nowhere else: the name leads out of it.
        self.cluster = f"../..{ceph.folder}/cluster"
        Path(f"/etc/ceph/{self.cluster}.client.{self.user}.keyring").symlink_to(ceph.keyring(self.user))
        self.conf.write_text(conf_text(self._options()))
        run([need("cinder-manage"), "--config-file", self.conf, "db", "sync"])
        keystone.add_endpoint("volumev3", self.url + self.path)
        self.start()

    def _options(self) -> Options:
        own = self.keystone
        domains = {"user_domain_id": "default", "project_domain_id": "default"}
        login = {"username": own.user, "password": own.password, "project_name": own.project, **domains}
        return {
            "DEFAULT": {
                "transport_url": "fake:/",
                "host": "tests",
                "osapi_volume_listen": self.address,
                "osapi_volume_listen_port": str(self.port),
                "osapi_volume_workers": "1",
                "api_paste_config": f"{sys.prefix}/etc/cinder/api-paste.ini",
                "state_path": str(self.folder),
                "enabled_backends": "blocks",
                # Without a manager, Ceph does not know how much room there is.
                "scheduler_default_filters": "AvailabilityZoneFilter",
                "use_stderr": "true",
            },
            "blocks": {
                "volume_driver": "cinder.volume.drivers.rbd.RBDDriver",
                "rbd_pool": self.pool,
                "rbd_user": self.user,
                "rbd_ceph_conf": str(self.ceph.conf),
                "rbd_cluster_name": self.cluster,
                "rados_connect_timeout": "5",
            },
            "database": {"connection": f"sqlite:///{self.folder}/cinder.sqlite?timeout=30"},
            "keystone_authtoken": {"www_authenticate_uri": own.auth_url, "auth_url": own.auth_url}
            | {"auth_type": "password", **login},
            **self.host_options(),
        }

    def start(self) -> None:
        """The API answers, and the volume service is up."""
        # -P: here, `cinder` is that of the folder that this file is in.
        command = [sys.executable, "-P", PROGRAM, "--config-file", self.conf]
        self._process = Process(command, self.folder / "cinder.log", cwd=self.folder)
        self._process.wait(self._answers)

    def _answers(self) -> bool:
        try:
            status, found = self.request("GET", "/os-services")
        except OSError:
            return False
        up = {one["binary"] for one in found["services"] if one["state"] == "up"} if status == 200 else set()
        return up >= {"cinder-scheduler", "cinder-volume"}

    def request(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Status and answer of the API to the administrator."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=30)
        headers = {"X-Auth-Token": self.keystone.token()[0], "Content-Type": "application/json"}
        headers["OpenStack-API-Version"] = "volume 3.54"
        try:
            body = json.dumps(document) if document is not None else None
            connection.request(method, self.path + path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def store_options(self) -> dict[str, str]:
        """A cinder store's options."""
        own = self.keystone
        return {
            "cinder_store_auth_address": own.auth_url,
            "cinder_store_user_name": own.user,
            "cinder_store_password": own.password,
            "cinder_store_project_name": own.project,
            "cinder_store_user_domain_name": "Default",
            "cinder_store_project_domain_name": "Default",
            "cinder_http_retries": "0",
        }

    def image_of(self, volume_id: str) -> str:
        """The RBD image of a volume, in `pool`."""
        return f"volume-{volume_id}"

    def host_options(self) -> Options:
        """What a program needs beside that to attach volumes, as os-brick does."""
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        if sudo and subprocess.run([need("sudo"), "-n", "true"], capture_output=True, check=False).returncode:
            absent("os-brick attaches volumes as root; run this as root, or with sudo that asks no password")
        return {
            "oslo_concurrency": {"lock_path": str(self.folder)},
            "privsep_osbrick": {"helper_command": " ".join([*sudo, str(need("privsep-helper"))])},
        }

    def log(self) -> str:
        """What it has written."""
        return self._process.log() if self._process else ""

    def close(self) -> None:
        """End it; volumes stay for the next `start()`."""
        if self._process:
            self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
