"""No signature is kept in Glance's tables, whoever writes a signed URL as a location, and by whatever call."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests
from services import eventually
from services.glance.client import PATCH
from services.glance.site import GlanceHost, GlanceSite
from support.worlds.scenes import new_image

OLD = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
CALLS = ["post", "append", "replace", "old", "chunked", "encoded"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceHost]:
    """A host that shows locations to everybody, and lets members write them, as OSSN-0065 says not to."""
    options = {"DEFAULT": {"show_multiple_locations": "true"}}
    options["import_filtering_opts"] = {"allowed_hosts": "[127.0.0.2]", "allowed_ports": "[]"}
    with GlanceSite(tmp_path_factory.mktemp("site")) as site:
        yield site.add_host("127.0.0.2", options=options)


def signed(host: GlanceHost) -> str:
    """The per-host URL of some image's copy, as a member reads it."""
    image, data = new_image(host, 5000)
    assert host.client().download(image).content == data
    assert eventually(lambda: len(host.site.locations(image)) == 2)
    (url,) = [one["url"] for one in host.client().replicas(image)["replicas"] if one["host"] == host.name]
    assert requests.get(url, timeout=10).content == data
    return str(url)


def write(host: GlanceHost, call: str, image: str, url: str) -> requests.Response:
    """A member writes it as a location of his queued image."""
    client, row = host.client("p1", ("member", "reader")), {"url": url, "metadata": {}}
    path, add = f"/v2/images/{image}", {"op": "add", "path": "/locations/-", "value": row}
    if call == "post":
        return client.request("POST", f"{path}/locations", json={"url": url})
    if call == "old":
        return client.request("PATCH", path, data=json.dumps([{"add": "/locations/-", "value": row}]), headers=OLD)
    if call == "replace":
        add = {"op": "replace", "path": "/locations", "value": [row]}
    if call == "encoded":
        row["url"] = url.replace("kid=", f"%{ord('k'):02x}id=").replace("/replicas/", f"/{quote('replica')}%73/")
    body = json.dumps([add]).encode()
    return client.request("PATCH", path, data=iter([body]) if call == "chunked" else body, headers=PATCH)


@pytest.mark.parametrize("call", CALLS)
def test_no_signature_is_stored(host: GlanceHost, call: str) -> None:
    """What is written is the plain URL; Glance then refuses it, or keeps it, as any that opens nothing."""
    url, site = signed(host), host.site
    image = host.client("p1", ("member", "reader")).create()["id"]
    answer = write(host, call, image, url)
    assert answer.status_code in (200, 202, 400), answer.text
    assert eventually(lambda: not site.rows("SELECT id FROM tasks WHERE status IN ('pending', 'processing')"))
    kept = [str(row) for row in site.rows("SELECT value FROM image_locations WHERE image_id = :image", image=image)]
    kept += [text for row in site.rows("SELECT input FROM task_info") if image in (text := str(row))]
    assert [one for one in kept if "sig=" in one] == []
    assert kept or call != "post", "the task was found"
