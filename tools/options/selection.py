"""The options that say which images and locations a command is about."""

import argparse

from glance_replicas.catalogue.selection import NEVER, Selection
from glance_replicas.errors import ConfigError
from glance_replicas.verdict import Verdict

from . import values

STATES = [*map(str, Verdict), NEVER]
NOTHING_NAMED = "nothing named: give image ids, or a filter such as --name, --owner, --host or --kind; or --all"


def add_options(parser: argparse.ArgumentParser, *, state: bool = False) -> None:
    """The arguments that make a Selection; `--state` means the last verdict only where `state` is set."""
    add_image_options(parser)
    add = parser.add_argument
    add("--tag", action="append", default=[], metavar="TAG", help="images with this tag; repeated: with all of them")
    text = "images with this property; repeated: with all of them"
    add("--property", action="append", default=[], type=_property, metavar="KEY=VALUE", help=text)
    add("--host", metavar="HOST", help="only the cached copies of this host (its host_name)")
    add("--zone", metavar="ZONE", help="only the cached copies in this zone")
    add("--store", metavar="STORE", help="only what is in this store, by Glance's id")
    text = "only these locations: cached, durable, or a scheme such as file, swift+https, rbd"
    add("--kind", metavar="KIND", help=text)
    if state:
        text = "only locations whose last verdict is this: intact, corrupt, ...; or never: not verified yet"
        add("--state", choices=STATES, metavar="STATE", help=text)


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Those of them that choose images."""
    parser.add_argument("image", nargs="*", type=values.image_id, metavar="IMAGE", help="id of an image")
    parser.add_argument("--name", metavar="NAME", help="images of exactly this name")
    parser.add_argument("--owner", metavar="PROJECT", help="images of this project id")


def images_from(parsed: argparse.Namespace) -> Selection:
    """The selection that these arguments name, by image alone."""
    return Selection(tuple(parsed.image), parsed.name, parsed.owner)


def from_arguments(parsed: argparse.Namespace, *, state: bool = False) -> Selection:
    """The selection that these arguments name, with `state` by the last verdict as well."""
    return Selection(
        ids=tuple(sorted(set(parsed.image))),
        **{name: getattr(parsed, name) for name in ("name", "owner", "host", "kind", "zone", "store")},
        tags=tuple(sorted(parsed.tag)),
        properties=tuple(sorted(parsed.property)),
        state=parsed.state if state else None,
    )


def named(parsed: argparse.Namespace, *, state: bool = False) -> Selection:
    """As `from_arguments`; raises ConfigError when nothing was named and `--all` was not said."""
    found = from_arguments(parsed, state=state)
    if found.is_everything and not parsed.all:
        raise ConfigError(NOTHING_NAMED)
    return found


def _property(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not a property: write KEY=VALUE")
    return key, value
