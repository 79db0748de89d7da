"""The api filter in a real Glance: who sees which copy, what is signed, what is left alone."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
import webob
from services import environment, eventually
from services.glance.site import GlanceClient, GlanceHost, GlanceSite

from glance_replicas import signing
from glance_replicas.client.document import parse
from glance_replicas.ledger.ledger import Ledger
from glance_replicas.middleware import api
from glance_replicas.model import Host, Location, Result
from glance_replicas.settings import default_ledger
from glance_replicas.verdict import Evidence, Verdict

PIPELINE = "cors http_proxy_to_wsgi versionnegotiation context replica-api rootapp"
STOCK = "cors http_proxy_to_wsgi versionnegotiation context rootapp"
KEYS = signing.parse_keys(["new:the-key-that-signs-and-is-32-chars"])
PEER = "http://10.9.9.9:9292"
ABSENT = "11111111-2222-4333-8444-555555555555"
SHOWN = {"DEFAULT": {"show_multiple_locations": "true", "show_image_direct_url": "true"}}
POLICY = """download_image: 'not role:blind and not "{''blocked''}":%(tags)s'\nget_image: ''\n"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceSite]:
    """A site whose ledger knows a far host beside its own; `closed`, `open` and `stock` are three ways to run it."""
    with GlanceSite(tmp_path_factory.mktemp("site")) as made:
        policy = made.folder / "policy.yaml"
        policy.write_text(POLICY)
        rules = {"oslo_policy": {"policy_file": str(policy)}}
        lost = {"replicas": {"connection": f"sqlite:///{made.folder}/none/ledger.sqlite"}}
        made.add_host("127.0.0.2", name="closed", processes=1, pipeline=PIPELINE, options=rules, start=False)
        made.add_host("127.0.0.3", name="open", processes=1, pipeline=PIPELINE, options={**rules, **SHOWN}, start=False)
        made.add_host("127.0.0.4", name="stock", processes=1, pipeline=STOCK, options={**rules, **SHOWN}, start=False)
        made.add_host("127.0.0.5", name="lost", processes=1, pipeline=PIPELINE, options={**rules, **lost}, start=False)
        ledger = Ledger(default_ledger(made.database_url))
        ledger.upgrade()
        for name, zone, url in [("peer", "zone-far", PEER), *[(host.name, host.zone, host.url) for host in made.hosts]]:
            ledger.heartbeat(Host(name, zone, url, datetime.now(UTC)))
        ledger.close()
        for host in made.hosts:
            host.start(wait=False)
        for host in made.hosts:
            host.wait_ready()
        yield made


def host_of(site: GlanceSite, name: str) -> GlanceHost:
    return next(host for host in site.hosts if host.name == name)


def admin(site: GlanceSite, name: str = "closed") -> GlanceClient:
    return host_of(site, name).client()


def member(site: GlanceSite, name: str = "closed", project: str = "p1", *more: str) -> GlanceClient:
    return host_of(site, name).client(project, ("member", "reader", *more), "u2")


@pytest.fixture
def image(site: GlanceSite) -> str:
    """An image with a durable copy and two cached ones: on the host `closed` and on the far peer."""
    image_id = str(admin(site).create(data=b"x" * 1000)["id"])
    for name, zone, url in (("closed", "zone-a", host_of(site, "closed").url), ("peer", "zone-far", PEER)):
        metadata = {"replica_host": name, "replica_zone": zone, "store": "web"}
        site.add_location(image_id, f"{url}/replicas/{image_id}", metadata)
    return image_id


def hosts(value: dict[str, Any]) -> list[str | None]:
    return [row["host"] for row in value["replicas"]]


def is_signed(url: str) -> bool:
    plain, _, query = url.partition("?")
    return signing.verify("GET", plain, parse_qs(query), KEYS)


def bare(text: str) -> str:
    return re.sub(r"\?kid=[^\"]*", "", text)


def test_member_sees_cached_copies_signed(site: GlanceSite, image: str) -> None:
    """Whoever may download sees the cached copies, signed, and no URL of a store (OSSN-0065)."""
    answer = member(site).request("GET", f"/v2/images/{image}/replicas", ok=True)
    value = answer.json()
    assert sorted(hosts(value)) == ["closed", "peer"]  # type: ignore[type-var]
    assert all(is_signed(row["url"]) and row["kind"] == "cached" and not row["durable"] for row in value["replicas"])
    assert str(site.store_dir) not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    shown = admin(site).get(image)
    names = ("name", "status", "size", "checksum", "os_hash_algo", "os_hash_value")
    assert {name: value[name] for name in names} == {name: shown[name] for name in names}
    assert value["download"] == f"/v2/images/{image}/file"
    assert parse(answer.text, image).digest is not None


@pytest.mark.parametrize(("role", "sees"), [("admin", True), ("service", True), ("member", False)])
def test_stores_as_glance_shows_them(site: GlanceSite, image: str, role: str, sees: bool) -> None:
    """A durable copy stands in the document exactly for those whom Glance's locations call answers."""
    caller = host_of(site, "closed").client("p1", (role, "reader"), "u3")
    kinds = [row["kind"] for row in caller.replicas(image)["replicas"]]
    assert kinds == (["cached", "cached", "file"] if sees else ["cached", "cached"])
    assert (caller.request("GET", f"/v2/images/{image}/locations").status_code == 200) == sees


def test_stores_where_the_site_shows_them_to_all(site: GlanceSite, image: str) -> None:
    """With show_multiple_locations everybody sees the durable copy in the document as in the image."""
    caller = member(site, "open")
    assert [row["kind"] for row in caller.replicas(image)["replicas"]] == ["cached", "cached", "file"]
    assert len(caller.get(image)["locations"]) == 3


def test_same_answer_as_the_download(site: GlanceSite, image: str) -> None:
    """Members, strangers, admins, callers the policy refuses, before and after deactivation: as GET of the file."""
    callers = [
        admin(site),
        member(site),
        member(site, "closed", "stranger"),
        member(site, "closed", "p1", "blind"),
        host_of(site, "closed").client("p1", (), "u9"),
    ]
    for step in (lambda: None, lambda: admin(site).deactivate(image)):
        step()
        answers = [
            (caller.request("GET", f"/v2/images/{image}/replicas"), caller.download(image)) for caller in callers
        ]
        assert [ours.status_code for ours, _ in answers] == [theirs.status_code for _, theirs in answers]
        refused = [(ours.text, theirs.text) for ours, theirs in answers if theirs.status_code != 200]
        assert refused
        assert all(ours == theirs for ours, theirs in refused)
    assert [ours.status_code for ours, _ in answers] == [200, 403, 404, 403, 403]


def test_tags_in_a_policy(site: GlanceSite, image: str) -> None:
    """A policy that asks for an image's tags gets them, though they are read for nothing else."""
    for tag, status in (("blocked", 403), ("other", 200)):
        admin(site).patch(image, [{"op": "replace", "path": "/tags", "value": [tag]}])
        assert admin(site).request("GET", f"/v2/images/{image}/replicas").status_code == status


@pytest.mark.parametrize("name", [ABSENT, "detail", "%00", "..%2f..", "x" * 300, ABSENT.upper()])
def test_no_such_image(site: GlanceSite, name: str) -> None:
    """An unknown image is 404, and a name that is not an image id is too."""
    assert member(site).request("GET", f"/v2/images/{name}/replicas").status_code == 404


def test_without_identity(site: GlanceSite, image: str) -> None:
    """Without an identity nothing is said."""
    path = f"{host_of(site, 'closed').url}/v2/images/{image}/replicas"
    assert requests.get(path, timeout=10).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD"])
def test_other_methods(site: GlanceSite, image: str, method: str) -> None:
    """Nothing but GET is allowed, and the answer says what is."""
    answer = admin(site).request(method, f"/v2/images/{image}/replicas")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")


def test_best_first_for_the_caller(site: GlanceSite, image: str) -> None:
    """The caller's zone and host decide who is first; priorities follow; a seed gives the same order again."""
    caller = member(site)
    path = f"/v2/images/{image}/replicas"
    for query, first in (("zone=zone-far", "peer"), ("zone=zone-a", "closed"), ("host=peer", "peer")):
        value = caller.request("GET", f"{path}?{query}", ok=True).json()
        assert hosts(value)[0] == first
        assert [row["priority"] for row in value["replicas"]] == [1, 2]

    assert caller.request("GET", f"{path}?zone=%ff").status_code == 400, "no UTF-8"

    def orders() -> set[tuple[str, ...]]:
        return {tuple(hosts(caller.request("GET", f"{path}?seed=7", ok=True).json())) for _ in range(5)}

    assert eventually(lambda: len(orders()) == 1, 5), "unless a host has told of its load between two of them"
    seen = {hosts(caller.request("GET", path, ok=True).json())[0] for _ in range(40)}
    assert seen == {"closed", "peer"}, "without hints the load is spread"


def test_how_many_there_are(site: GlanceSite, image: str) -> None:
    """An image on very many hosts: the best for the caller are named, and how many there are (E 58)."""
    for number in range(60):
        metadata = {"replica_host": "peer", "replica_zone": "zone-far", "store": "web"}
        site.add_location(image, f"{PEER}/replicas/{image}", metadata | {"number": str(number)})
    value = member(site).request("GET", f"/v2/images/{image}/replicas?host=closed", ok=True).json()
    assert (len(value["replicas"]), value["total"]) == (50, 62)
    assert hosts(value)[0] == "closed"


def test_states_and_the_damaged_last(site: GlanceSite, image: str) -> None:
    """The last verdict of each copy is told, and one known to be damaged comes last though it is nearest."""
    near = Location(image, f"{host_of(site, 'closed').url}/replicas/{image}", {"replica_host": "closed"})
    ledger = Ledger(default_ledger(site.database_url))
    ledger.record([Result(near, Verdict.CORRUPT, Evidence.FULL, size=1000)])
    ledger.close()
    value = member(site).request("GET", f"/v2/images/{image}/replicas?zone=zone-a", ok=True).json()
    assert hosts(value) == ["peer", "closed"]
    state = value["replicas"][1]["state"]
    assert (state["verdict"], state["evidence"], value["replicas"][1]["size"]) == ("corrupt", "full", 1000)
    assert -5 < state["age_seconds"] < 60
    assert value["replicas"][0]["state"] is None
    assert 0 <= value["replicas"][0]["heartbeat_age_seconds"] < 600


def test_only_known_hosts_are_signed(site: GlanceSite, image: str) -> None:
    """A row that claims to be a host's, with a URL elsewhere, gets no signature and is shown to no member."""
    evil = f"http://evil.example/replicas/{image}"
    site.add_location(image, evil, {"replica_host": "closed", "store": "web"})
    site.add_location(image, f"{PEER}/replicas/{image}", {"replica_host": "closed", "store": "web"})
    site.add_location(image, f"{PEER}/replicas/{ABSENT}", {"replica_host": "peer", "store": "web"})
    assert sorted(hosts(member(site).replicas(image))) == ["closed", "peer"]  # type: ignore[type-var]
    urls = [row["url"] for row in admin(site).replicas(image)["replicas"]]
    assert evil in urls
    assert f"{PEER}/replicas/{ABSENT}" in urls
    shown = [row["url"] for row in member(site, "open").get(image)["locations"]]
    assert evil in shown
    assert f"{PEER}/replicas/{ABSENT}" in shown


def test_metadata_comes_out_signed_and_otherwise_the_same(site: GlanceSite, image: str) -> None:
    """`locations` and `direct_url` are signed; every other byte is Glance's, a property with that URL included."""
    url = f"{PEER}/replicas/{image}"
    operations = [
        {"op": "add", "path": f"/{name}", "value": value} for name, value in (("url", url), ("näme", 'é"😀'[:2]))
    ]
    assert admin(site, "stock").patch(image, operations).status_code == 200
    path = f"/v2/images/{image}"
    ours, theirs = (member(site, name).request("GET", path, ok=True) for name in ("open", "stock"))
    assert bare(ours.text) == theirs.text
    assert int(ours.headers["Content-Length"]) == len(ours.content) > len(theirs.content)
    value = ours.json()
    assert value["url"] == url
    assert [is_signed(row["url"]) for row in value["locations"]] == [False, True, True]
    site.rows("DELETE FROM image_locations WHERE image_id = :i AND value LIKE 'file:%'", i=image)
    assert is_signed(member(site, "open").get(image)["direct_url"])


def test_locations_call(site: GlanceSite, image: str) -> None:
    """GET of the locations is signed too, and nothing else of it changed."""
    path = f"/v2/images/{image}/locations"
    ours, theirs = (admin(site, name).request("GET", path, ok=True) for name in ("closed", "stock"))
    assert bare(ours.text) == theirs.text
    assert [is_signed(row["url"]) for row in ours.json()] == [False, True, True]


def test_no_signature_for_who_may_not_download(site: GlanceSite, image: str) -> None:
    """A caller who may see the image and not download it sees the URLs as Glance shows them, unsigned."""
    path = f"/v2/images/{image}"
    ours, theirs = (member(site, name, "p1", "blind").request("GET", path, ok=True) for name in ("open", "stock"))
    assert ours.content == theirs.content
    assert "sig=" not in ours.text
    admin(site).deactivate(image)
    assert "sig=" not in member(site, "open").request("GET", path, ok=True).text


def test_what_was_read_can_be_written_back(site: GlanceSite, image: str) -> None:
    """GET, then PATCH of those locations: Glance sees its own URLs, accepts them, and there is no new row."""
    before = site.locations(image)
    locations = admin(site, "open").get(image)["locations"]
    assert "sig=" in json.dumps(locations)
    operation = {"op": "replace", "path": "/locations", "value": locations}
    answer = admin(site, "open").patch(image, [{"op": "replace", "path": "/name", "value": "sig=1"}, operation])
    assert answer.status_code == 200, answer.text
    assert admin(site, "stock").patch(image, [operation]).status_code == 400, "without the filter it is refused"
    assert [row["url"] for row in site.locations(image)] == [row["url"] for row in before]


def test_ledger_out_of_reach(site: GlanceSite, image: str) -> None:
    """Without the ledger the call still answers: no states, no other host than this one, nothing else signed."""
    url = f"{host_of(site, 'lost').url}/replicas/{image}"
    site.add_location(image, url, {"replica_host": "lost", "replica_zone": "zone-a", "store": "web"})
    value = member(site, "lost").replicas(image)
    assert hosts(value) == ["lost"]
    assert value["replicas"][0]["state"] is None
    assert is_signed(value["replicas"][0]["url"])
    assert [is_signed(row["url"]) for row in admin(site, "lost").locations(image)] == [False, False, False, True]
    assert "ledger" in host_of(site, "lost").log()


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_no_order_without_the_ledger(site: GlanceSite, image: str, method: str) -> None:
    """An order that cannot be written down is refused with 503, and says that nothing was asked for."""
    answer = admin(site, "lost").request(method, f"/v2/images/{image}/replicas/closed")
    assert answer.status_code == 503
    assert "The request was not recorded" in answer.text


def test_everything_else_passes(site: GlanceSite, image: str) -> None:
    """Downloads, lists and the schema come through as without us."""
    for path in (
        "/v2/images/" + image + "/file",
        "/v2/schemas/image",
        "/v2/images/" + ABSENT,
        f"/v2/images?id={image}",
    ):
        ours, theirs = (admin(site, name).request("GET", f"/v2/{path}") for name in ("open", "stock"))
        assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)


def test_large_odd_and_failed_answers_are_left_alone() -> None:
    """Only a whole JSON answer of moderate size is looked into."""
    url = f'{{"direct_url": "http://h/replicas/{ABSENT}"}}'.encode()
    fine = webob.Response(body=url, content_type="application/json")
    streamed = webob.Response(app_iter=iter([url]), content_type="application/json")
    zipped = webob.Response(body=url, content_type="application/json", content_encoding="gzip")
    large = webob.Response(body=url + b" " * api.MAX_JSON, content_type="application/json")
    failed = webob.Response(body=url, content_type="application/json", status=404)
    found = [api._is_small_json(one) for one in (fine, streamed, zipped, large, failed)]
    assert found == [True, False, False, False, False]


def test_a_wrong_option_stops_the_start(site: GlanceSite) -> None:
    """A mistyped option of ours is found when the filter is made, and named."""
    typo = {"replicas": {"signature_lifetime": "60"}}
    host = site.add_host("127.0.0.6", name="typo", pipeline=PIPELINE, options=typo, start=False)
    site.hosts.remove(host)
    code = "import glance.wsgi.api"
    env = environment(OS_GLANCE_CONFIG_DIR=str(host.folder))
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert (
        "signature_lifetime is no option of glance-replicas; did you mean signature_lifetime_seconds?"
        in done.stdout + done.stderr
    )
