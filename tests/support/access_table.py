"""Who gets the bytes of which image, by every path to them, as plain Glance answers and as ours does.

Plain Glance is a stock host on the same database. One question is one cell: role x state x visibility; of each cell
every path is asked, and has to answer as plain Glance answers a download.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from services.glance.site import GlanceClient, GlanceHost, GlanceSite
from services.stores.keystone import Keystone

from glance_replicas.cache import Cache
from glance_replicas.cache.partial_file import PartialFile
from support.worlds.cached import picture
from support.worlds.scenes import new_bytes, settle

SIZE = 64 << 10
ROLES = ("admin", "member", "reader", "service", "guest", "removed", "stranger", "dismissed")
STATES = ("active", "deactivated", "queued", "pending_delete", "deleted")
VISIBILITIES = ("public", "community", "shared", "accepted", "pending", "private")
WITH_DATA = ("active", "deactivated")
RANGE = {"Range": "bytes=10-19"}
METALINK = {"Accept": "application/metalink4+xml"}

Cell = tuple[str, str, str]  # role, state, visibility


class People:
    """One token for each role, of a real Keystone. `projects` by role; owner and reader share that of the image."""

    def __init__(self, keystone: Keystone, mark: str) -> None:
        def project(name: str) -> str:
            document = {"project": {"name": f"{name}-{mark}", "domain_id": "default"}}
            return str(keystone.call("POST", "/projects", document)["id"])

        known = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")}
        own = project("owner")
        self.projects = {role: own if role in ("member", "reader", "dismissed") else project(role) for role in ROLES}
        self.tokens = {}
        for role in ROLES:
            document = {"name": f"{role}-{mark}", "password": keystone.password, "domain_id": "default"}
            user = keystone.call("POST", "/users", {"user": document})["id"]
            name = role if role in known else "member"
            grant = f"/projects/{self.projects[role]}/users/{user}/roles/{known[name]}"
            keystone.call("PUT", grant)
            self.tokens[role] = keystone.token_of(user, self.projects[role])
            if role == "dismissed":  # its token was good until now
                keystone.call("DELETE", grant)

    def client(self, host: GlanceHost, role: str) -> GlanceClient:
        """A caller with that token."""
        made = GlanceClient(host.url, "", (), "")
        made.identity = {"X-Auth-Token": self.tokens[role]}
        return made


@dataclass
class Image:
    """One image of the table; `urls` are the signed per-host URLs that its owner got while it was active."""

    id: str
    state: str
    visibility: str
    data: bytes
    urls: list[str] = field(default_factory=list)


@dataclass
class Hosts:
    """Ours, another one of ours that holds copies, and plain Glance."""

    site: GlanceSite
    ours: GlanceHost
    peer: GlanceHost
    stock: GlanceHost


def make_images(hosts: Hosts, people: People, holder: GlanceHost) -> list[Image]:
    """An image of each state and visibility, cached on `holder` where there are bytes."""
    pairs = [(state, visibility) for state in STATES for visibility in VISIBILITIES]
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda pair: _make(hosts, people, holder, *pair), pairs))


def _make(hosts: Hosts, people: People, holder: GlanceHost, state: str, visibility: str) -> Image:
    owner, data = people.client(hosts.stock, "member"), new_bytes(SIZE)
    wanted = "shared" if visibility in ("accepted", "pending") else visibility
    first = "private" if wanted == "public" else wanted
    image_id = owner.create(f"{state} {visibility}", visibility=first)["id"]
    made = Image(image_id, state, visibility, data)
    if wanted == "public":
        people.client(hosts.stock, "admin").patch(
            image_id, [{"op": "replace", "path": "/visibility", "value": "public"}]
        )
    if visibility in ("accepted", "pending"):
        for role in ("guest", "removed"):
            _share(hosts, people, image_id, role, visibility)
        owner.request("DELETE", f"/v2/images/{image_id}/members/{people.projects['removed']}", ok=True)
    if state != "queued":
        owner.upload(image_id, data)
        _cache(hosts, people, made, holder)
    _bring_to(hosts, people, made)
    return made


def _share(hosts: Hosts, people: People, image_id: str, role: str, visibility: str) -> None:
    project = people.projects[role]
    owner, member = people.client(hosts.stock, "member"), people.client(hosts.stock, role)
    owner.request("POST", f"/v2/images/{image_id}/members", json={"member": project}, ok=True)
    if visibility == "accepted":
        answer = {"status": "accepted"}
        member.request("PUT", f"/v2/images/{image_id}/members/{project}", json=answer, ok=True)


def _cache(hosts: Hosts, people: People, image: Image, holder: GlanceHost) -> None:
    admin = people.client(holder, "admin")
    assert admin.download(image.id).content == image.data
    settle(
        lambda: any(row["metadata"].get("replica_host") == holder.name for row in hosts.site.locations(image.id)), 40
    )
    image.urls = [row["url"] for row in admin.replicas(image.id)["replicas"] if "sig=" in row["url"]]
    assert image.urls


def _bring_to(hosts: Hosts, people: People, image: Image) -> None:
    owner = people.client(hosts.stock, "member")
    if image.state == "deactivated":
        people.client(hosts.stock, "admin").deactivate(image.id)
    if image.state in ("deleted", "pending_delete"):
        owner.delete(image.id)
    if image.state == "pending_delete":
        hosts.site.rows("UPDATE images SET status = 'pending_delete' WHERE id = :i", i=image.id)


class Asker:
    """Asks every path about every cell. `answers` is what plain Glance says: a status for each cell."""

    def __init__(self, hosts: Hosts, people: People) -> None:
        self._hosts, self._people = hosts, people
        self.answers: dict[Cell, int] = {}
        self.wrong: list[str] = []
        self.asked = 0

    def ask(self, held: list[Image], elsewhere: list[Image]) -> None:
        """Of images cached on our host, and of others that only its peer holds."""
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(self._settled, held))
            list(pool.map(self._filled, [one for one in held if one.state in WITH_DATA]))
            list(pool.map(self._filled, [one for one in elsewhere if one.state in WITH_DATA]))

    def _settled(self, image: Image) -> None:
        """Plain Glance, and whatever does not change what is cached."""
        for role in _roles(image):
            ours, stock = (self._people.client(host, role) for host in (self._hosts.ours, self._hosts.stock))
            status = stock.download(image.id).status_code
            self.answers[role, image.state, image.visibility] = status
            paths: Mapping[str, requests.Response] = {
                "hit": ours.download(image.id),
                # Glance 33 answers 500 to a range of an image without bytes: there is nothing to compare.
                "range": ours.download(image.id, headers=RANGE if image.state != "queued" else None),
                "document": ours.request("GET", f"/v2/images/{image.id}/replicas"),
                "Metalink": ours.request("GET", f"/v2/images/{image.id}/replicas", headers=METALINK),
            }
            for path, answer in paths.items():
                self._compare(image, role, path, answer.status_code, status)
            self._bytes(image, role, "hit", paths["hit"], image.data)
            if image.state != "queued":
                self._bytes(image, role, "range", paths["range"], image.data[10:20])
            self._urls(image, role, paths, status)
            if image.state in WITH_DATA:
                self._metadata(image, role, ours, status)
            if image.state == "active" and image.visibility in ("public", "private"):
                self._management(image, role, ours, stock)

    def _urls(self, image: Image, role: str, paths: Mapping[str, requests.Response], status: int) -> None:
        """Per-host URLs open for those whom they are given to, and those given out before for images that live."""
        document = paths["document"]
        rows = document.json()["replicas"] if document.status_code == 200 else []
        signed = [row["url"] for row in rows if "sig=" in row["url"]]
        for url in signed:
            self._bytes(image, role, "per-host URL", _get(url), image.data)
        self._note(image, role, "signed URLs", bool(signed), status == 200 and image.state == "active")
        self._note(image, role, "signed in Metalink", "sig=" in paths["Metalink"].text, bool(signed))
        for url in image.urls if role == ROLES[0] else ():  # no role is known there
            old = _get(url)
            self._note(image, role, "URL given out before", old.status_code == 200, image.state == "active")
            plain = _get(url.partition("?")[0])
            self._note(image, role, "unsigned URL", plain.status_code, 403)

    def _metadata(self, image: Image, role: str, ours: GlanceClient, status: int) -> None:
        """What Glance itself answers of an image holds signatures only for who may download it."""
        for path in ("", "/locations"):
            text = ours.request("GET", f"/v2/images/{image.id}{path}").text
            if "sig=" in text:
                self._note(image, role, f"signed in GET image{path}", status, 200)

    def _management(self, image: Image, role: str, ours: GlanceClient, stock: GlanceClient) -> None:
        """Cache calls are refused to whom plain Glance refuses them; who may is not asked: it would change things."""
        theirs = stock.request("GET", "/v2/cache").status_code
        self._note(image, role, "GET /v2/cache", ours.request("GET", "/v2/cache").status_code, theirs)
        if theirs == 200:
            return
        for method in ("PUT", "DELETE"):
            calls = (f"/v2/cache/{image.id}", f"/v2/images/{image.id}/replicas/{self._hosts.ours.name}")
            refusals = [one.request(method, calls[0]).status_code for one in (ours, stock)]
            if method == "DELETE":  # of what is not cached there plain Glance says 404 instead of 403
                refusals = [one in (401, 403, 404) for one in refusals]
            self._note(image, role, f"{method} /v2/cache/ID", *refusals)
            order = ours.request("POST" if method == "PUT" else method, calls[1]).status_code
            self._note(image, role, f"{method} of a host's copy", order in (401, 403, 404), True)

    def _filled(self, image: Image) -> None:
        """A fill for each role by itself, and one that all of them follow."""
        cache = Cache(self._hosts.ours.cache_dir)
        where = "fill" if image.urls and self._hosts.ours.url in image.urls[0] else "fill from a peer"
        for role in _roles(image):
            cache.path(image.id).unlink(missing_ok=True)
            answer = self._people.client(self._hosts.ours, role).download(image.id)
            self._compare(image, role, where, answer.status_code, self._status(image, role))
            self._bytes(image, role, where, answer, image.data)
        cache.path(image.id).unlink(missing_ok=True)
        self._followed(image, cache)

    def _followed(self, image: Image, cache: Cache) -> None:
        wanted = picture(image.id, SIZE, image.data)
        begun: list[PartialFile] = []

        def begin() -> bool:
            """The fill before this one may come to its end after its client has all bytes."""
            cache.path(image.id).unlink(missing_ok=True)
            partial_file = cache.partials.begin(wanted)
            begun.extend([partial_file] if partial_file else [])
            return bool(begun)

        settle(begin)
        partial_file = begun[0]
        partial_file.append(image.data[: SIZE // 2], 0)
        clients = {role: self._people.client(self._hosts.ours, role) for role in _roles(image)}
        with ThreadPoolExecutor(len(clients)) as pool:
            waiting = {role: pool.submit(one.download, image.id, None, None, True) for role, one in clients.items()}
            answers = {role: one.result() for role, one in waiting.items()}
            partial_file.append(image.data[SIZE // 2 :], SIZE // 2)
            cache.partials.commit(partial_file, wanted)
            for role, answer in answers.items():
                self._compare(image, role, "follow", answer.status_code, self._status(image, role))
                self._bytes(image, role, "follow", answer, image.data)
                answer.close()

    def _status(self, image: Image, role: str) -> int:
        return self.answers[role, image.state, image.visibility]

    def _compare(self, image: Image, role: str, path: str, ours: int, theirs: int) -> None:
        """The same refusal, or both give: 206 of a range, and a document of an image without bytes (204)."""
        given = (200, 204, 206)
        self._note(image, role, path, 200 if ours in given else ours, 200 if theirs in given else theirs)

    def _bytes(self, image: Image, role: str, path: str, answer: requests.Response, wanted: bytes) -> None:
        if answer.status_code in (200, 206):
            self._note(image, role, f"bytes of {path}", answer.content == wanted, True)
        elif answer.status_code != 204:
            self._note(image, role, f"bytes in a refusal of {path}", wanted in answer.content, False)

    def _note(self, image: Image, role: str, path: str, ours: object, wanted: object) -> None:
        self.asked += 1
        if ours != wanted:
            self.wrong.append(f"{role}, {image.state}, {image.visibility}: {path}: {ours}, not {wanted}")


def _roles(image: Image) -> tuple[str, ...]:
    """Who is asked: one whose token is void costs a second each time and never comes to an image, so once is enough."""
    return ROLES if (image.state, image.visibility) == ("active", "public") else ROLES[:-1]


def _get(url: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        assert urlsplit(url).hostname
        return session.get(url, timeout=30, allow_redirects=False)


def rendered(answers: Mapping[Cell, int]) -> Iterator[str]:
    """One Markdown table: a row for each role, a column for each state and visibility that differ."""
    yield "| role | state | " + " | ".join(VISIBILITIES) + " |"
    yield "|---|---|" + "---|" * len(VISIBILITIES)
    for state in STATES:
        for role in ROLES:
            found = [answers.get((role, state, visibility)) for visibility in VISIBILITIES]
            words = ["" if one is None else _word(one) for one in found]
            if not any(words):
                continue
            yield f"| {role} | {state} | " + " | ".join(words) + " |"


def _word(status: int) -> str:
    return {200: "bytes", 204: "empty"}.get(status, str(status))


def collected(runs: Mapping[str, Any]) -> str:
    """The tables of all runs by their title, as they stand in the page."""
    return "\n".join(line for title, answers in runs.items() for line in ("", f"### {title}", "", *rendered(answers)))
