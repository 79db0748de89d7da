"""What users and operators wrote, read from the database or from files: locations, metadata, rules, options."""

import argparse
import contextlib
import dataclasses

from glance_replicas import location
from glance_replicas.client import choose
from glance_replicas.errors import ConfigError
from glance_replicas.ledger.ledger import place_key
from glance_replicas.model import Host, Image, Location, is_image_id
from glance_replicas.prefetch import rules, rules_file
from glance_replicas.prefetch.policy import Described, World
from glance_replicas.tools.options import values

from .draw import IMAGE, OTHER, TOKENS, Draw

_SECRET = "Sec/ret+0f=AKIA"


def locations(draw: Draw) -> None:
    """Any URL: redacted it holds no secret that stood where URLs hold one; its place is one, and the same twice."""
    stores = ("swift+https", "swift+http", "swift+config", "s3", "s3+https", "s3+http")
    schemes = (*stores, "http", "https", "rbd", "file", "cinder")
    host = draw.pick(("h", "h:8080", "[::1]:80", "127.0.0.1"))
    made = {
        0: lambda: f"{draw.pick(stores)}://user:{_SECRET}@{host}/c/{IMAGE}",
        1: lambda: f"{draw.pick(stores)}://{_SECRET}:x@{host}/c/{IMAGE}",
        2: lambda: f"{draw.pick(schemes)}://{host}/{draw.text(2)}?x={_SECRET}",
        3: draw.text,
        4: lambda: f"{draw.pick(schemes)}://{draw.text()}",
    }
    url = made[draw.number(len(made))]()
    shown = location.redact(url)
    assert _SECRET not in shown, shown
    assert location.redact(shown) == location.redact(location.redact(shown))
    one = Location(IMAGE, url, _metadata(draw), 1)
    assert place_key(one) == place_key(dataclasses.replace(one, row=2))
    assert len(place_key(one)) <= 64
    for _ in (location.kind(one), location.place(one), location.is_ours(one), one.host, one.zone, one.store):
        pass
    assert not location.is_replica_of(one, "h", "http://h") or one.url == f"http://h/replicas/{IMAGE}"


def _metadata(draw: Draw) -> dict[str, object]:
    names = ("replica_host", "replica_zone", "store", "backend", draw.text(2))
    return {name: draw.pick((draw.value(2), "web", "h")) for name in names if draw.flag()}


def orders(draw: Draw) -> None:
    """Choosing puts every copy somewhere, once, whatever is known of it, and the same way for the same seed."""
    rows = [Location(IMAGE, draw.text(4), _metadata(draw), number) for number in range(draw.number(6))]
    health = {
        one.url: choose.Health(
            verdict_age_seconds=draw.pick((None, 0.0, 1e9)),
            heartbeat_age_seconds=draw.pick((None, 0.0, 1e9)),
            load=draw.pick((None, 0.0, 1.0, 5.0)),
            bytes_per_second=draw.pick((None, 0.0, 1e12)),
        )
        for one in rows
        if draw.flag()
    }
    prefer = tuple(draw.text(1) for _ in range(draw.number(3)))
    here = choose.Here(draw.pick((None, "h")), draw.pick((None, "z")), prefer)
    found = choose.order(rows, here, health, seed="s")
    assert sorted(one.location.row or 0 for one in found) == list(range(len(rows)))
    assert [one.location for one in found] == [one.location for one in choose.order(rows, here, health, seed="s")]


def policies(draw: Draw) -> None:
    """A file of rules is read, or refused by a message that names it; what was read wishes for known images only."""
    text = draw.rest().decode("utf-8", "replace") if draw.flag() else _rules(draw)
    try:
        found = rules_file.parse(text, "rules.yaml")
    except ConfigError as error:
        if "rules.yaml" not in str(error):
            raise AssertionError("the message does not name the file") from error
        return
    known = [Image(one, "active", 1, None, name=draw.text(2)) for one in (IMAGE, OTHER)]
    images = [Described(one, frozenset({"golden"})) for one in known]
    hosts = [Host(name, draw.pick((None, "z")), f"http://{name}") for name in ("a", "b", "c")]
    world = World("a", hosts, lambda: iter(images), lambda days, top: [(IMAGE, 1)])
    assert {one.image_id for one in rules.wishes(found, world)} <= {IMAGE, OTHER}


def _rules(draw: Draw) -> str:
    keys = ("name", "match", "copies", "priority", "pin", "per_zone", "zones", draw.text(1))
    inner = ("tag", "name", "owner", "visibility", "property", "popular", "min_size", "max_size")
    lines = ["rules:"]
    for _ in range(draw.number(3)):
        lines.append(f"- {draw.pick(keys)}: {draw.text(3)}")
        for _ in range(draw.number(4)):
            lines.append(f"  {draw.pick(keys)}: {draw.pick(('all', '2', 'true', 'low', draw.text(3)))}")
        value = draw.pick(("golden", "[a, b]", "20G", draw.text(2)))
        lines += [f"  match: {{{draw.pick(inner)}: {value}}}", "  copies: all"]
    return "\n".join(lines)


def options(draw: Draw) -> None:
    """A value of an option is read, or refused as argparse expects it."""
    read = draw.pick((values.image_id, values.seconds, values.size, values.positive, values.percent, values.name))
    numbers = f"{draw.whole()}{draw.pick(TOKENS)}", f"{draw.number(100)}{draw.pick('smhdwKMGT%')}"
    text = draw.pick((draw.text(4), *numbers))
    with contextlib.suppress(argparse.ArgumentTypeError):
        read(text)


def ids(draw: Draw) -> None:
    """What counts as an image id is fit for a file name: 36 characters of a UUID, no more."""
    text = draw.pick((IMAGE, OTHER)) if draw.flag() else draw.text(3)
    at = draw.number(37)
    text = text[:at] + draw.text(1) + text[at:]
    if is_image_id(text):
        assert len(text) == 36
        assert set(text) <= set("0123456789abcdefABCDEF-")
