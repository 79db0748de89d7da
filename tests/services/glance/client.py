"""A caller of the Image API with plain HTTP: what comes back is what the server sent."""

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

import requests

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


class GlanceClient:
    """One user of one host. Every call is a connection of its own, so that threads may share a client."""

    def __init__(self, url: str, project: str, roles: Iterable[str], user: str) -> None:
        self.url, self.timeout = url, 60.0
        self.identity = {
            "X-Identity-Status": "Confirmed",
            "X-Roles": ",".join(roles),
            "X-Project-Id": project,
            "X-User-Id": user,
        }

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        ok: bool = False,
        stream: bool = False,
        **rest: Any,
    ) -> requests.Response:
        """Any call, `path` from the root; a redirect is not followed. `ok`: requests.HTTPError unless 2xx."""
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(
                method,
                self.url + path,
                headers={**self.identity, **(headers or {})},
                stream=stream,
                allow_redirects=False,
                timeout=self.timeout,
                **rest,
            )
        if ok and not response.ok:
            raise requests.HTTPError(f"{method} {path}: {response.status_code} {response.text}", response=response)
        return response

    def create(
        self,
        name: str = "image",
        data: bytes | IO[bytes] | Iterable[bytes] | None = None,
        disk_format: str = "raw",
        container_format: str = "bare",
        visibility: str = "shared",
        **properties: Any,
    ) -> dict[str, Any]:
        """An image, active when there are data (or an empty one, `b""`) and queued without, as Glance describes it."""
        wanted = {"name": name, "disk_format": disk_format, "container_format": container_format}
        wanted |= {"visibility": visibility, **properties}
        image = self.request("POST", "/v2/images", json=wanted, ok=True).json()
        if data is None:
            return dict(image)
        self.upload(image["id"], data)
        return self.get(image["id"])

    def upload(self, image_id: str, data: bytes | IO[bytes] | Iterable[bytes]) -> requests.Response:
        """Store the bytes of a queued image."""
        return self.request("PUT", f"/v2/images/{image_id}/file", data=data, headers=OCTETS, ok=True)

    def get(self, image_id: str) -> dict[str, Any]:
        """The image as a document."""
        return dict(self.request("GET", f"/v2/images/{image_id}", ok=True).json())

    def download(
        self,
        image_id: str,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """The answer to GET of the bytes, whatever it is; with `stream` the caller closes it."""
        path = f"/v2/images/{image_id}/file"
        return self.request("GET", path, headers=headers, params=params, stream=stream)

    def delete(self, image_id: str) -> requests.Response:
        """Delete the image."""
        return self.request("DELETE", f"/v2/images/{image_id}", ok=True)

    def patch(self, image_id: str, operations: list[dict[str, Any]]) -> requests.Response:
        """The answer to JSON-patch operations (`op`, `path`, `value`), whatever it is."""
        return self.request("PATCH", f"/v2/images/{image_id}", data=json.dumps(operations), headers=PATCH)

    def locations(self, image_id: str) -> list[dict[str, Any]]:
        """The locations, for role admin or service."""
        return list(self.request("GET", f"/v2/images/{image_id}/locations", ok=True).json())

    def replicas(self, image_id: str) -> Any:
        """The document of our own `replicas` call."""
        return self.request("GET", f"/v2/images/{image_id}/replicas", ok=True).json()

    def deactivate(self, image_id: str) -> requests.Response:
        """Keep everyone but the admin from the bytes."""
        return self.request("POST", f"/v2/images/{image_id}/actions/deactivate", ok=True)

    def reactivate(self, image_id: str) -> requests.Response:
        """Undo `deactivate`."""
        return self.request("POST", f"/v2/images/{image_id}/actions/reactivate", ok=True)
