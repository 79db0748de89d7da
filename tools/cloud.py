"""The client's way to an image: a cloud (clouds.yaml, `OS_*`), or a replicas document somebody saved.

One address gets credentials, that of the image service, and no redirect takes them elsewhere: a replica's URL is its
own permission.
"""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from glance_replicas.client import document
from glance_replicas.client.document import Document
from glance_replicas.errors import Absent, ConfigError, Denied, ReplicaError, SourceError, Unreachable, WrongAnswer
from glance_replicas.location import redact
from glance_replicas.model import is_image_id
from glance_replicas.stores.body import Body, Limits
from glance_replicas.stores.http.answers import Target
from glance_replicas.stores.http.wire import Wire

from .example import Example

log = logging.getLogger(__name__)

_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*:\s*([\x20-\x7e]*)")  # RFC 9110, 5.1
_VERSION = re.compile(r"/v2(\.\d+)?/*$")
_CONFIGURED = ("OS_CLOUD", "OS_AUTH_URL", "OS_ENDPOINT")


class Asking(Example):
    """What the clients' commands share: which options say what to ask for, and whom."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """IMAGE, where to ask for it, and where the caller is."""
        add_options(parser)

    def ask(self, arguments: argparse.Namespace) -> "tuple[Document, Cloud | None]":
        """As the function of that name."""
        return ask(arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """IMAGE, where to ask for it, and where the caller is."""
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="Id or name; may be left out with --document.")
    parser.add_argument(
        "--document", metavar="FILE", help="A saved replicas document or image metadata (JSON); - reads stdin."
    )
    parser.add_argument(
        "--os-cloud", metavar="NAME", help="Cloud in clouds.yaml. Default: $OS_CLOUD, or OS_* as given."
    )
    parser.add_argument(
        "--os-cacert",
        metavar="FILE",
        default=os.environ.get("OS_CACERT"),
        help="Certificate authorities of the cloud and of its hosts. Default: $OS_CACERT, clouds.yaml, the system's.",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="Header for the image service alone; may be repeated.",
    )
    add_place_options(parser)


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Where the caller is."""
    parser.add_argument("--zone", help="Zone of this machine: replicas in it come first.")
    parser.add_argument("--host", help="Name of the glance-api host this machine is, if it is one.")
    parser.add_argument("--seed", help="Makes the order of equal replicas the same every time.")


def ask(arguments: argparse.Namespace) -> tuple[Document, "Cloud | None"]:
    """The document the arguments name, and the cloud it is from (None: a saved one and no cloud is configured).

    Raises ConfigError, or Denied, Absent, Unreachable when the cloud has no such answer.
    """
    if arguments.document is None and not arguments.image:
        raise ConfigError("name an IMAGE, or a saved document with --document")
    named = arguments.os_cloud or any(os.environ.get(name) for name in _CONFIGURED)
    cloud = (
        Cloud.connect(arguments.os_cloud, arguments.header, arguments.os_cacert)
        if named or arguments.document is None
        else None
    )
    if arguments.document is None:
        assert cloud is not None
        return asked(cloud, arguments), cloud
    found = document.parse(_read(arguments.document))
    if arguments.image not in (None, found.image_id, found.name):
        raise ConfigError(f"{arguments.document} is about image {found.image_id}, not {arguments.image}")
    return found, cloud


def asked(cloud: "Cloud", arguments: argparse.Namespace) -> Document:
    """The document of `arguments.image` for a caller at that place. Raises as `ask`."""
    hints = {name: getattr(arguments, name) for name in ("zone", "host", "seed")}
    image_id = ""
    try:
        image_id = cloud.find(arguments.image)
        return cloud.document(image_id, hints)
    except Denied as error:
        what = "you may not download it" if image_id else "you may not list images, so no name is found; give its id"
        remedy = f"{what}, or the credentials are wrong (clouds.yaml, OS_*, --header)"
        raise Denied(f"image {arguments.image}: {error}: {remedy}") from error
    except SourceError as error:
        raise type(error)(f"image {arguments.image}: {error}; check that the image service can be reached") from error


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(document.MAX_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(document.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error


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
        return cls.over(*_keystone(name, ca_file), more, limits)

    @classmethod
    def over(
        cls, session: Any, endpoint: str, more: Mapping[str, str] | None = None, limits: Limits | None = None
    ) -> "Cloud":
        """With a session of keystoneauth that there is; `more` are headers for the endpoint."""
        verify, extra = session.verify, more or {}
        wire = Wire(limits or Limits(), ca_file=verify if isinstance(verify, str) else None, insecure=verify is False)
        return cls(endpoint, lambda: {**_authenticated(session.get_auth_headers), **extra}, wire)

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
        for one in dict.fromkeys((image_id, image_id.lower(), image_id.upper())):
            try:
                value = self._json(f"/v2/images/{one}")
            except Absent:
                continue
            found = value.get("id") if isinstance(value, dict) else None
            return found if isinstance(found, str) and found.lower() == image_id.lower() else one
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
                if len(body) > document.MAX_BYTES:
                    raise WrongAnswer(f"{self.endpoint}{quote(path, '/?=&%')}: more than {document.MAX_BYTES} bytes")
        return document.load(body)

    def _target(self, path: str) -> Target:
        return Target(self.endpoint + path, self.endpoint + path.partition("?")[0], self._headers())


def _keystone(name: str | None, ca_file: str | None) -> tuple[Any, str]:
    """A session of keystoneauth and the image service's endpoint."""
    import openstack.config
    from keystoneauth1 import exceptions as keystone
    from openstack.exceptions import SDKException

    wanted = name or os.environ.get("OS_CLOUD")
    try:
        more: dict[str, Any] = {"cacert": ca_file} if ca_file else {}
        region = openstack.config.OpenStackConfig().get_one(cloud=wanted, **more)
        session = region.get_session()
        endpoint = region.get_endpoint("image") or session.get_endpoint(
            service_type="image", interface=region.get_interface("image"), region_name=region.get_region_name("image")
        )
    except (SDKException, keystone.AuthPluginException, keystone.NoMatchingPlugin) as error:
        raise ConfigError(f"{_line(error)}; name a cloud of clouds.yaml with --os-cloud, or set OS_*") from error
    except keystone.ClientException as error:
        raise _translated(error) from error
    if not endpoint:
        raise ConfigError(f"cloud {region.name} has no image service in its catalogue; set image_endpoint_override")
    return session, str(endpoint)


def _authenticated(headers: Callable[[], dict[str, str] | None]) -> dict[str, str]:
    from keystoneauth1 import exceptions as keystone

    try:
        return dict(headers() or {})
    except keystone.ClientException as error:
        raise _translated(error) from error


def _translated(error: Exception) -> ReplicaError:
    from keystoneauth1 import exceptions as keystone

    refused = isinstance(error, keystone.Unauthorized | keystone.Forbidden)
    return (Denied if refused else Unreachable)(f"Keystone: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _header(text: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ConfigError(f"--header {text.partition(':')[0]!r}: write 'Name: value', in plain ASCII")
    return match.group(1), match.group(2).strip()


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
