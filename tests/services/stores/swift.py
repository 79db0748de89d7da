"""A real Swift on plain folders: one device, one replica, Keystone, and an access log to count reads with.

It speaks S3 as well (s3api), to the same account.
"""

import getpass
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from .. import answers, configuration, free_port, need
from ..configuration import Options, conf_text
from ..process import Process, run
from .keystone import Keystone

KINDS = ["account", "container", "object"]

RING = """
import sys
from swift.common.ring import RingBuilder
path, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
builder = RingBuilder(part_power=6, replicas=1, min_part_hours=0)
builder.add_dev({"region": 1, "zone": 1, "weight": 1, "ip": address, "port": port, "device": "disk"})
builder.rebalance(seed="glance-replicas")
builder.get_ring().save(path)
"""

PIPELINE = (
    "catch_errors gatekeeper healthcheck proxy-logging tempurl authtoken s3api s3token keystoneauth copy slo dlo "
    "proxy-logging proxy-server"
)


class Swift:
    """Account, container, object and proxy servers, started, for the administrator of a Keystone."""

    container = "glance"
    bucket = "images-in-s3"

    def __init__(self, folder: Path, keystone: Keystone, address: str = "127.0.0.1") -> None:
        self.folder, self.keystone, self.address = folder, keystone, address
        self.ports = {kind: free_port(address) for kind in [*KINDS, "proxy"]}
        self.s3_port = self.ports["proxy"]
        self.url = f"http://{address}:{self.s3_port}"
        self.account_path = f"/v1/AUTH_{keystone.token()[1]['project']['id']}"
        keystone.add_endpoint("object-store", f"{self.url}/v1/AUTH_%(project_id)s")
        self.processes: list[Process] = []
        (folder / "devices" / "disk").mkdir(parents=True)
        self._configure()
        self.start()

    def _configure(self) -> None:
        hashes = {"swift-hash": {"swift_hash_path_suffix": "tests", "swift_hash_path_prefix": "tests"}}
        (self.folder / "swift.conf").write_text(
            conf_text({**hashes, "storage-policy:0": {"name": "one", "default": "yes"}})
        )
        for kind in KINDS:
            ring = self.folder / f"{kind}.ring.gz"
            run([sys.executable, "-W", "ignore", "-c", RING, ring, self.address, str(self.ports[kind])])
            app = {"pipeline:main": {"pipeline": f"{kind}-server"}, f"app:{kind}-server": {"use": f"egg:swift#{kind}"}}
            self._write(kind, app)
        self._write("proxy", self._proxy())

    def _write(self, kind: str, sections: Options) -> None:
        default = {
            "bind_ip": self.address,
            "bind_port": str(self.ports[kind]),
            "workers": "0",
            "user": getpass.getuser(),
            "swift_dir": str(self.folder),
            "devices": str(self.folder / "devices"),
            "mount_check": "false",
            "fallocate_reserve": "0",
            "log_address": str(self.folder / "no-syslog"),
            "log_level": "INFO",
        }
        (self.folder / f"{kind}-server.conf").write_text(conf_text({"DEFAULT": default, **sections}))

    def _proxy(self) -> Options:
        filters = ["catch_errors", "gatekeeper", "healthcheck", "tempurl", "copy", "slo", "dlo"]
        return {
            "pipeline:main": {"pipeline": PIPELINE},
            "app:proxy-server": {"use": "egg:swift#proxy", "account_autocreate": "true"},
            **{f"filter:{name}": {"use": f"egg:swift#{name}"} for name in filters},
            "filter:proxy-logging": {"use": "egg:swift#proxy_logging"},
            "filter:keystoneauth": {"use": "egg:swift#keystoneauth", "operator_roles": "admin"},
            "filter:s3api": {"use": "egg:swift#s3api", "min_segment_size": "1"},
            "filter:s3token": {
                "use": "egg:swift#s3token",
                "auth_uri": self.keystone.auth_url,
                "secret_cache_duration": "0",
                **self._credentials(),
            },
            "filter:authtoken": {
                "paste.filter_factory": "keystonemiddleware.auth_token:filter_factory",
                "www_authenticate_uri": self.keystone.auth_url,
                **self._credentials(),
            },
        }

    def _credentials(self) -> dict[str, str]:
        """How a filter asks Keystone; requests without a token pass on, to others that may know them."""
        return {
            "auth_url": self.keystone.auth_url,
            "auth_type": "password",
            "username": self.keystone.user,
            "password": self.keystone.password,
            "project_name": self.keystone.project,
            "user_domain_id": "default",
            "project_domain_id": "default",
            "delay_auth_decision": "true",
        }

    def start(self) -> None:
        """All four servers answer."""
        for kind in [*KINDS, "proxy"]:
            command = [need(f"swift-{kind}-server"), self.folder / f"{kind}-server.conf", "verbose"]
            self.processes.append(Process(command, self.folder / f"{kind}.log", cwd=self.folder))
        for kind, process in zip([*KINDS, "proxy"], self.processes, strict=True):
            process.wait(lambda kind=kind: self._answers(kind))  # type: ignore[misc]

    def _answers(self, kind: str) -> bool:
        return answers(self.address, self.ports[kind], "/healthcheck" if kind == "proxy" else "/recon")

    def stop(self) -> None:
        """End the servers; the objects stay for the next `start()`."""
        while self.processes:
            self.processes.pop().stop()

    def close(self) -> None:
        """End the servers for good, the quick way."""
        while self.processes:
            self.processes.pop().kill()

    def connection(self) -> Any:
        """A swiftclient.Connection of the administrator; the caller closes it."""
        import swiftclient

        return swiftclient.Connection(session=self.keystone.session(), retries=1)

    def store_options(self, *, large_object_mb: int = 5 * 1024, chunk_mb: int = 200) -> dict[str, str]:
        """A swift store's options; an image larger than `large_object_mb` becomes segments of `chunk_mb` and a DLO.

        Upload such an image from an iterator: glance_store 5.7.0 declares every segment of an image of known size
        as full, so that the last one hangs unless it is (a segment has chunk_mb * 1000 * 1024 bytes).
        """
        return {
            "swift_store_auth_version": "3",
            "swift_store_auth_address": self.keystone.auth_url,
            "swift_store_user": f"{self.keystone.project}:{self.keystone.user}",
            "swift_store_key": self.keystone.password,
            "swift_store_container": self.container,
            "swift_store_create_container_on_put": "true",
            "swift_store_large_object_size": str(large_object_mb),
            "swift_store_large_object_chunk_size": str(chunk_mb),
        }

    def s3_options(self, host: str | None = None, *, large_object_mb: int = 100) -> dict[str, str]:
        """An S3 store's options, with keys of its own."""
        return configuration.s3_options(host or self.url, self.keystone.ec2_keys(), self.bucket) | {
            "s3_store_large_object_size": str(large_object_mb),
            "s3_store_large_object_chunk_size": "5",
        }

    def another_secret(self) -> str:
        """A secret key that does not fit, that of another access key."""
        return self.keystone.ec2_keys()[1]

    def log(self) -> str:
        """The proxy's log; a request is in it shortly after its last byte."""
        return (self.folder / "proxy.log").read_text(errors="replace")

    def count(self, name: str, container: str | None = None, method: str = "GET") -> int:
        """How many requests for an object have ended. Segments of a large object count under their own names."""
        path = f"{self.account_path}/{container or self.container}/{quote(name)}"
        return len(re.findall(rf" {method} {re.escape(path)}(?:%3F\S*)? HTTP/", self.log()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
