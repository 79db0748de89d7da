"""The image service of a cloud.

One address gets credentials, that of the image service, and no redirect takes them elsewhere: a replica's URL is its
own permission.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from glance_replicas.client import document, json_values
from glance_replicas.client.document import Document
from glance_replicas.errors import Absent, ConfigError, Unreachable, WrongAnswer
from glance_replicas.location import redact
from glance_replicas.model import is_image_id
from glance_replicas.stores.body import Body, Limits
from glance_replicas.stores.http.answers import Target
from glance_replicas.stores.http.wire import Wire

from . import login

log = logging.getLogger(__name__)

_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*:\s*([\x20-\x7e]*)")  # RFC 9110, 5.1
_VERSION = re.compile(r"/v2(\.\d+)?/*$")


class Cloud:
    """One image service. `headers` gives what authenticates a request, fresh each time; it goes to `endpoint` alone."""

    def __init__(self, endpoint: str, headers: Callable[[], dict[str, str]], wire: Wire) -> None:
        self.endpoint = _VERSION.sub("", endpoint.rstrip("/"))
        self._headers, self._wire = headers, wire

    @classmethod
    def connect(
        cls, name: str | None, extra: list[str], ca_file: str | None = None, limits: Limits | None = None
    ) -> "Cloud":
        """By clouds.yaml and `OS_*`, every plugin of keystoneauth (`none` and `http_basic` too). Raises ConfigError."""
        more = dict(_header(text) for text in extra)
        return cls.over(*login.session(name, ca_file), more, limits)

    @classmethod
    def over(
        cls, session: Any, endpoint: str, more: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> "Cloud":
        """With a session of keystoneauth that there is; `more` are headers for the endpoint."""
        verify, extra = session.verify, more or {}
        wire = Wire(limits or Limits(), ca_file=verify if isinstance(verify, str) else None, insecure=verify is False)
        return cls(endpoint, lambda: {**login.headers(session.get_auth_headers), **extra}, wire)

    def open(self, url: str, offset: int = 0, stop: int | None = None) -> Body:
        """A replica's bytes; no credentials."""
        return self._wire.open(Target(url, redact(url)), offset, stop)

    def size(self, url: str) -> int | None:
        """A replica's length, by HEAD; no credentials."""
        return self._wire.size(Target(url, redact(url)))

    def download(self, image_id: str) -> Callable[[int], Body]:
        """Glance's own download at an offset; where Glance cannot (Swift: 400), what comes before is dropped."""

        def opener(offset: int) -> Body:
            path = f"/v2/images/{image_id}/file"
            try:
                return self._wire.open(self._target(path), offset)
            except (Unreachable, WrongAnswer) as error:
                if not offset:
                    raise
                log.info("image %s: Glance cannot start at byte %d: %s", image_id, offset, error)
            return _dropping(self._wire.open(self._target(path)), offset)

        return opener

    def find(self, image: str) -> str:
        """The id of an image by id or name. Raises ConfigError when none or several have the name."""
        if is_image_id(image):
            return image if image == image.lower() else self._spelled(image)
        value = self._json("/v2/images?" + urlencode({"name": image, "limit": 20}))
        rows = value.get("images", []) if isinstance(value, dict) else []
        named = [row for row in rows if isinstance(row, dict) and row.get("name") == image]  # a database may say more
        ids = [row["id"] for row in named if is_image_id(str(row.get("id")))]
        if len(ids) == 1:
            return str(ids[0])
        if not ids:
            raise ConfigError(f"no image is named {image!r}, or you may not see it; `openstack image list` shows yours")
        raise ConfigError(f"{len(ids)} images are named {image!r}; give one of the ids: {', '.join(ids)}")

    def _spelled(self, image_id: str) -> str:
        """The id as Glance has it: as typed, or else all in one case; as typed when there is no such image at all."""
        for spelling in dict.fromkeys((image_id, image_id.lower(), image_id.upper())):
            try:
                value = self._json(f"/v2/images/{spelling}")
            except Absent:
                continue
            found = value.get("id") if isinstance(value, dict) else None
            return found if isinstance(found, str) and found.lower() == image_id.lower() else spelling
        return image_id

    def images(self) -> Iterator[str]:
        """The ids of all images that the caller sees, a page at a time."""
        marker = ""
        while True:
            value = self._json("/v2/images?" + urlencode({"limit": 100} | ({"marker": marker} if marker else {})))
            rows = value.get("images", []) if isinstance(value, dict) else []
            ids = [str(row["id"]) for row in rows if isinstance(row, dict) and is_image_id(str(row.get("id")))]
            yield from ids
            if not ids or ids[-1] == marker or not value.get("next"):
                return
            marker = ids[-1]

    def document(self, image_id: str, hints: dict[str, str | None]) -> Document:
        """The replicas document; where a site does not make them, what Glance's own metadata says."""
        query = urlencode({name: value for name, value in hints.items() if value})
        try:
            return document.parse(
                self._json(f"/v2/images/{image_id}/replicas" + (f"?{query}" if query else "")), image_id
            )
        except Absent:
            log.info("image %s: this site has no replicas call", image_id)
        try:
            return document.parse(self._json(f"/v2/images/{image_id}"), image_id)
        except Absent as error:
            if (other := self._spelled(image_id)) != image_id:
                return self.document(other, hints)
            raise ConfigError(f"there is no image {image_id}, or you may not see it") from error

    def _json(self, path: str) -> Any:
        body = b""
        with self._wire.open(self._target(path)) as answer:
            for chunk in answer:
                body += chunk
                if len(body) > json_values.MAX_BYTES:
                    raise WrongAnswer(f"{self.endpoint}{quote(path, '/?=&%')}: more than {json_values.MAX_BYTES} bytes")
        return json_values.load(body)

    def _target(self, path: str) -> Target:
        return Target(self.endpoint + path, self.endpoint + path.partition("?")[0], self._headers())


def _dropping(body: Body, offset: int) -> Body:
    """A body from its start as one from `offset` on."""

    def chunks() -> Iterator[bytes]:
        left = offset
        for chunk in body:
            if len(chunk) > left:
                yield chunk[left:]
            left = max(0, left - len(chunk))
        if left:
            raise WrongAnswer(f"it ended {left} bytes before the offset asked for")

    return Body(chunks(), body.size, body.close)


def _header(text: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ConfigError(f"--header {text.partition(':')[0]!r}: write 'Name: value', in plain ASCII")
    return match.group(1), match.group(2).strip()
