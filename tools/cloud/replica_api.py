"""Orders about the copy of an image on a host, given through the image service of a cloud (docs/clients.md)."""

import json
from typing import Any
from urllib.parse import quote, urlencode

from glance_replicas.errors import Absent, Denied, Refused, ReplicaError, Unreachable

_SECONDS = 30.0  # for an answer


class ReplicaApi:
    """`session` is keystoneauth's; `endpoint` the image service's URL without its version."""

    def __init__(self, session: Any, endpoint: str) -> None:
        self._session, self._endpoint = session, endpoint

    def fetch(self, image_id: str, host: str, *, priority: str, pin: bool) -> dict[str, Any]:
        """The host is to fetch the image; what is known of the request. Raises as `remove`, and Refused as it is."""
        return self._send("POST", image_id, host, {"priority": priority, "pin": pin})

    def remove(self, image_id: str, host: str, *, forced: str | None = None) -> dict[str, Any]:
        """The host is to drop its copy; `forced` says why it may be the last intact one.

        Raises Denied, Absent (no such image or host), Refused (it is the last one), Unreachable.
        """
        query = "" if forced is None else f"?{urlencode({'force': 'true', 'reason': forced})}"
        return self._send("DELETE", image_id, host, None, query)

    def _send(self, method: str, image_id: str, host: str, body: Any, query: str = "") -> dict[str, Any]:
        from keystoneauth1 import exceptions as keystone

        url = f"{self._endpoint}/v2/images/{image_id}/replicas/{quote(host, safe='')}{query}"
        try:
            answer = self._session.request(
                url,
                method,
                json=body,
                headers={"Accept": "application/json"},
                raise_exc=False,
                redirect=False,
                timeout=_SECONDS,
            )
        except keystone.ClientException as error:
            raise Unreachable(f"image {image_id}, host {host}: {' '.join(str(error).split())[:500]}") from error
        if answer.status_code != 202:
            raise _refusal(image_id, host, answer)
        value = answer.json() if len(answer.content) < 1 << 16 else None
        return value if isinstance(value, dict) else {}


def _refusal(image_id: str, host: str, answer: Any) -> ReplicaError:
    try:
        value = json.loads(answer.content[:4096])
    except ValueError:
        value = None
    said = str(value.get("message", "")) if isinstance(value, dict) else ""
    text = f"image {image_id}, host {host}: {' '.join(said.split()) or f'status {answer.status_code}'}"
    if answer.status_code in (401, 403):
        return Denied(f"{text}; who may is Glance's policy cache_image and cache_delete, by default the admin")
    if answer.status_code in (400, 409):
        return Refused(text)
    return Absent(text) if answer.status_code == 404 else Unreachable(text)
