"""What the clients' commands share: an image of a cloud (clouds.yaml, `OS_*`), or of a document somebody saved."""

import argparse
import os
import sys
from pathlib import Path

from glance_replicas.client import document, json_values
from glance_replicas.client.document import Document
from glance_replicas.errors import ConfigError, Denied, SourceError

from ..command import Example
from .image_service import Cloud

_CONFIGURED = ("OS_CLOUD", "OS_AUTH_URL", "OS_ENDPOINT")


class ClientCommand(Example):
    """What the clients' commands share: which options say what to ask for, and whom."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """IMAGE, where to ask for it, and where the caller is."""
        add_options(parser)

    def ask(self, arguments: argparse.Namespace) -> tuple[Document, Cloud | None]:
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


def ask(arguments: argparse.Namespace) -> tuple[Document, Cloud | None]:
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


def asked(cloud: Cloud, arguments: argparse.Namespace) -> Document:
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
            return sys.stdin.buffer.read(json_values.MAX_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(json_values.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
