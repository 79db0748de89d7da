"""A real S3 server beside Swift's: Ceph's gateway (radosgw), on a real Ceph."""

import json
from types import TracebackType
from typing import Self

from .. import answers, configuration, free_port, need
from ..process import Process, run
from .ceph import Ceph
from .swift import Swift


class Gateway:
    """A started gateway with one user; its pools are in the cluster."""

    bucket, name = Swift.bucket, "gateway"

    def __init__(self, ceph: Ceph, address: str = "127.0.0.1") -> None:
        self.ceph, self.address, self.s3_port = ceph, address, free_port(address)
        self.url = f"http://{address}:{self.s3_port}"
        caps = ["mon", "allow rw", "osd", "allow rwx"]
        ceph.keyring(self.name).write_text(ceph.command("auth get-or-create", entity=f"client.{self.name}", caps=caps))
        # Swift's S3 in these tests takes parts of any size, too.
        place = [
            "--rgw-multipart-min-part-size",
            "1",
            "--rgw-frontends",
            f"beast endpoint={address}:{self.s3_port}",
            "--rgw-data",
            ceph.folder,
        ]
        command = [need("radosgw"), *self._client(), "--foreground", *place]
        self._process = Process(command, ceph.folder / "gateway.out", cwd=ceph.folder)
        self._process.wait(lambda: answers(self.address, self.s3_port, "/"))
        self._keys = self._new_user("glance")

    def _client(self) -> list[str]:
        return ["--conf", str(self.ceph.conf), "--name", f"client.{self.name}"]

    def _new_user(self, name: str) -> tuple[str, str]:
        """Access and secret keys."""
        words = ["user", "create", "--uid", name, "--display-name", name]
        [keys] = json.loads(run([need("radosgw-admin"), *self._client(), *words]))["keys"]
        return keys["access_key"], keys["secret_key"]

    def s3_options(self, host: str | None = None) -> dict[str, str]:
        """An S3 store's options."""
        return configuration.s3_options(host or self.url, self._keys, self.bucket)

    def another_secret(self) -> str:
        """A secret key that does not fit."""
        return "a" + self._keys[1][1:] if self._keys[1][0] != "a" else "b" + self._keys[1][1:]

    def close(self) -> None:
        """End it; what it holds stays in the cluster."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
