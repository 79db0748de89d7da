"""A real Keystone on SQLite: project, user and role `admin`, and endpoints that the tests add."""

import base64
import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from .. import answers, environment, free_port, need
from ..configuration import conf_text
from ..once import once
from ..process import Process, run


class Keystone:
    """A started Keystone; `auth_url` ends with /v3."""

    user = project = "admin"
    password = "testing"
    region = "RegionOne"

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder, self.address, self.port = folder, address, free_port(address)
        self.auth_url = f"http://{address}:{self.port}/v3"
        self._process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._configure(folder)
        shutil.copy(once("keystone", self._first) / "keystone.sqlite", folder)
        with contextlib.closing(sqlite3.connect(folder / "keystone.sqlite")) as database, database:
            database.execute("UPDATE endpoint SET url = ?", [self.auth_url])
        self.start()

    def _first(self, folder: Path) -> None:
        """The database that every Keystone of a run begins with, but for the address."""
        manage = [need("keystone-manage"), "--config-file", self._configure(folder)]
        run([*manage, "db_sync"])
        words = ["--bootstrap-password", self.password, "--bootstrap-region-id", self.region]
        urls = [f"--bootstrap-{kind}-url={self.auth_url}" for kind in ("public", "internal", "admin")]
        run([*manage, "bootstrap", *words, *urls])

    def _configure(self, folder: Path) -> Path:
        keys = {name: folder / name for name in ("fernet_tokens", "fernet_receipts", "credential")}
        for place in keys.values():
            place.mkdir(mode=0o700)
            for number in ("0", "1"):
                (place / number).write_bytes(base64.urlsafe_b64encode(number.encode() * 32))
        conf = folder / "keystone.conf"
        connection = f"sqlite:///{folder}/keystone.sqlite?timeout=30"
        conf.write_text(
            conf_text(
                {
                    "DEFAULT": {"use_stderr": "true"},
                    "database": {"connection": connection, "sqlite_synchronous": "false"},
                    "identity": {"password_hash_rounds": "4"},
                    **{name: {"key_repository": str(place)} for name, place in keys.items()},
                }
            )
        )
        return conf

    def start(self) -> None:
        """Answering. One thread: on SQLite concurrent requests for tokens fail."""
        command: list[str | Path] = [
            *(need("uwsgi"), "--module", "keystone.wsgi.api:application", "--virtualenv", sys.prefix),
            *("--master", "--die-on-term", "--no-orphans", "--lazy-apps", "--need-app", "--processes", "1"),
            *("--http-socket", f"{self.address}:{self.port}", "--buffer-size", "65535"),
            *("--add-header", "Connection: close"),
        ]
        env = environment(OS_KEYSTONE_CONFIG_DIR=str(self.folder))
        self._process = Process(command, self.folder / "keystone.log", env=env, cwd=self.folder)
        self._process.wait(lambda: answers(self.address, self.port, "/v3"))

    def stop(self) -> None:
        """End it; users, endpoints and tokens stay for the next `start()`."""
        if self._process:
            self._process.stop()

    def close(self) -> None:
        """End it for good, the quick way."""
        if self._process:
            self._process.kill()

    def token(self) -> tuple[str, dict[str, Any]]:
        """A token of the administrator, and what it stands for."""
        user = {"name": self.user, "password": self.password, "domain": {"id": "default"}}
        scope = {"project": {"name": self.project, "domain": {"id": "default"}}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        answer = self._post("/auth/tokens", {"auth": auth})
        return answer.headers["X-Subject-Token"], answer.json()["token"]

    def _post(self, path: str, document: dict[str, Any], token: str | None = None) -> requests.Response:
        headers = {"X-Auth-Token": token} if token else {}
        answer = requests.post(self.auth_url + path, json=document, headers=headers, timeout=30)
        if not answer.ok:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
        return answer

    def add_endpoint(self, kind: str, url: str, region: str = region) -> None:
        """The catalogue names `url` as the service of this kind ("object-store", "image") in a region."""
        token, _ = self.token()
        service = self._post("/services", {"service": {"type": kind, "name": kind}}, token).json()["service"]
        for interface in ("public", "internal", "admin"):
            endpoint = {"service_id": service["id"], "interface": interface, "url": url, "region": region}
            self._post("/endpoints", {"endpoint": endpoint}, token)

    def add_user(self, name: str, project: str | None = None) -> str:
        """PROJECT:USER of one more administrator with our password, of our own project or of a new one."""
        token, meaning = self.token()
        where = meaning["project"]["id"]
        if project:
            document = {"project": {"name": project, "domain_id": "default"}}
            where = self._post("/projects", document, token).json()["project"]["id"]
        document = {"user": {"name": name, "password": self.password, "domain_id": "default"}}
        user = self._post("/users", document, token).json()["user"]["id"]
        (role,) = (one["id"] for one in meaning["roles"] if one["name"] == "admin")
        path = f"{self.auth_url}/projects/{where}/users/{user}/roles/{role}"
        requests.put(path, headers={"X-Auth-Token": token}, timeout=30).raise_for_status()
        return f"{project or self.project}:{name}"

    def ec2_keys(self) -> tuple[str, str]:
        """New access and secret keys of the administrator, for S3."""
        token, meaning = self.token()
        path = f"/users/{meaning['user']['id']}/credentials/OS-EC2"
        found = self._post(path, {"tenant_id": meaning["project"]["id"]}, token).json()["credential"]
        return found["access"], found["secret"]

    def add_member(self, name: str) -> None:
        """A user of the administrator's project, with the same password and the role `member` alone."""
        token, meaning = self.token()
        project = meaning["project"]["id"]
        user = {"name": name, "password": self.password, "domain_id": "default", "default_project_id": project}
        user_id = self._post("/users", {"user": user}, token).json()["user"]["id"]
        roles = requests.get(f"{self.auth_url}/roles?name=member", headers={"X-Auth-Token": token}, timeout=30).json()
        path = f"/projects/{project}/users/{user_id}/roles/{roles['roles'][0]['id']}"
        requests.put(self.auth_url + path, headers={"X-Auth-Token": token}, timeout=30).raise_for_status()

    def call(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        """What the administrator's request answers: the value under its only name, None for an empty answer."""
        token, _ = self.token()
        url, headers = self.auth_url + path, {"X-Auth-Token": token}
        answer = requests.request(method, url, json=document, headers=headers, timeout=30)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        value = answer.json() if answer.content else {}
        return next((one for name, one in value.items() if name != "links"), None)

    def token_of(self, user_id: str, project_id: str) -> str:
        """A token of a user with our password, for a project."""
        user = {"id": user_id, "password": self.password}
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": project_id}},
        }
        return self._post("/auth/tokens", {"auth": auth}).headers["X-Subject-Token"]

    def session(self, owner: str | None = None) -> Any:
        """A keystoneauth1 session of the administrator, or of another PROJECT:USER."""
        from keystoneauth1 import session
        from keystoneauth1.identity import v3

        domains = {"user_domain_id": "default", "project_domain_id": "default"}
        project, _, user = (owner or f"{self.project}:{self.user}").partition(":")
        names = {"username": user, "password": self.password, "project_name": project}
        return session.Session(v3.Password(self.auth_url, **names, **domains))

    def log(self) -> str:
        """What the server has written."""
        return self._process.log() if self._process else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
