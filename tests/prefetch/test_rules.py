"""The rules file: what may stand in it, which images a rule means, and that hosts which decide alone agree."""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from glance_replicas.errors import ConfigError
from glance_replicas.location import replica_url
from glance_replicas.model import Digest, Host, Image, Location
from glance_replicas.prefetch import rules, rules_file
from glance_replicas.prefetch.policy import Described, Priority, World
from glance_replicas.prefetch.rules import Match, Rule

A, B, C = (f"{n}1111111-2222-4333-8444-555555555555" for n in (1, 2, 3))
GIB = 1 << 30


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of this text."""
    return rules_file.parse(text, "rules.yaml")


def described(image_id: str = A, *, tags: str = "", holders: Sequence[Host] = (), **more: Any) -> Described:
    """An active image; `more` are fields of it, or properties with a capital letter."""
    rows = [Location(image_id, replica_url(one.url, image_id), {"replica_host": one.name}) for one in holders]
    fields = {"size": 100, "name": "cirros", "owner": "p1", "visibility": "public"}
    fields |= {key: value for key, value in more.items() if key.islower()}
    image = Image(image_id, "active", digest=Digest("md5", "0" * 32), locations=tuple(rows), **fields)
    properties = {key.lower(): value for key, value in more.items() if not key.islower()}
    return Described(image, frozenset(tags.split()), properties)


def hosts(zones: str) -> list[Host]:
    """Hosts h0, h1 ... in zones of one letter; `-` is none."""
    return [Host(f"h{n}", None if zone == "-" else zone, f"http://h{n}:9292") for n, zone in enumerate(zones)]


def world(here: str, known: list[Host], *images: Described, popular: Sequence[str] = ()) -> World:
    """What a host is told."""

    def ranked(_days: int, most: int) -> list[tuple[str, int]]:
        return [(image_id, 1) for image_id in popular][:most]

    return World(here, known, lambda: iter(images), ranked)


def test_every_key() -> None:
    """All that can be written is understood, single values as lists of one."""
    (one, two) = parse("""
    rules:
      - name: golden
        match: {tag: golden, name: ["ubuntu-*", debian], owner: p1, visibility: [public, private],
                property: {os_distro: [ubuntu, debian], arch: x86_64}, popular: {top: 20, days: 3},
                min_size: 1, max_size: 20G}
        copies: all
        priority: high
        pin: true
        per_zone: true
        zones: [az1, az2]
      - match: {popular: {top: 5}}
        copies: 2
    """)
    match = Match(
        tag=("golden",),
        name=("ubuntu-*", "debian"),
        owner=("p1",),
        visibility=("public", "private"),
        property={"os_distro": ("ubuntu", "debian"), "arch": ("x86_64",)},
        popular=(20, 3),
        min_size=1,
        max_size=20 * GIB,
    )
    assert one == Rule("golden", match, None, Priority.HIGH, True, True, ("az1", "az2"))
    assert two == Rule("rule 2", Match(popular=(5, 7)), 2)


@pytest.mark.parametrize("text", ["", "rules:", "rules: []", "# nothing"])
def test_no_rules(text: str) -> None:
    """An empty file wants nothing."""
    assert parse(text) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules: [", ("rules.yaml: line 1",)),
        ("- a", ("rules.yaml: write rules",)),
        ("rule: []", ("rule is none of rules", "did you mean rules?")),
        ("rules: {a: b}", ("rules: write a list",)),
        ("rules: [text]", ("rule 1: write name",)),
        ("rules: [{match: {tag: a}, copies: 2, prio: low}]", ("rule 1: prio is none of", "did you mean priority?")),
        ("rules: [{copies: 1}]", ("rule 1: match is missing",)),
        ("rules: [{name: gold, match: {tag: a}}]", ("rule 1 (gold): copies is missing",)),
        ("rules: [{match: {}, copies: 1}]", ("rule 1: match: say which images",)),
        ("rules: [{match: {tags: a}, copies: 1}]", ("rule 1: match: tags is none of", "did you mean tag?")),
        ("rules: [{match: {tag: 1.10}, copies: 1}]", ("match: tag: 1.1 is no text", "quotes")),
        ("rules: [{match: {tag: []}, copies: 1}]", ("match: tag: the list is empty",)),
        ("rules: [{match: {property: {a: true}}, copies: 1}]", ("match: property: a: True is no text",)),
        ("rules: [{match: {visibility: publik}, copies: 1}]", ("visibility: publik is none of", "did you mean public")),
        ("rules: [{match: {max_size: 20X}, copies: 1}]", ("max_size: 20X is not a size", "20G")),
        ("rules: [{match: {popular: {days: 3}}, copies: 1}]", ("popular: top: None is not a whole number",)),
        ("rules: [{match: {popular: {top: 3, days: 31}}, copies: 1}]", ("popular: days: counts are kept for 30",)),
        ("rules: [{match: {tag: a}, copies: 0}]", ("copies: 0 is not a whole number above 0 or all",)),
        ("rules: [{match: {tag: a}, copies: true}]", ("copies: True is not a whole number",)),
        ("rules: [{match: {tag: a}, copies: 1, priority: urgent}]", ("priority: urgent is none of high, normal, low",)),
        ("rules: [{match: {tag: a}, copies: 1, pin: 'yes'}]", ("pin: yes is neither true nor false",)),
        ("rules: [{match: {tag: a}, copies: 1, name: 3}]", ("name: write a text",)),
        ("rules: [{match: {tag: a}, copies: 1, copies: 2}]", ("line 1: copies stands twice",)),
        (
            "rules:\n- {name: a, match: {tag: a}, copies: 1}\n- {name: a, match: {tag: b}, copies: 1}",
            ("'a'", "its own"),
        ),
    ],
)
def test_mistakes_are_named(text: str, words: tuple[str, ...]) -> None:
    """A bad file is refused with the file, the rule, the key and what may be written."""
    with pytest.raises(ConfigError) as refused:
        parse(text)
    message = str(refused.value)
    assert message.startswith("rules.yaml: ")
    for word in words:
        assert word in message


def test_files_that_cannot_be_read(tmp_path: Any) -> None:
    """No file, and a file that is no text, are mistakes of the configuration, too."""
    with pytest.raises(ConfigError, match=r"none.yaml: No such file"):
        rules_file.read(str(tmp_path / "none.yaml"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        rules_file.read(str(tmp_path / "binary"))


words = st.sampled_from(["rules", "match", "copies", "tag", "popular", "top"]) | st.text()
leaves = st.none() | st.booleans() | st.integers() | words


@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(words, inner)))
def test_anything_is_rules_or_a_mistake(found: Any) -> None:
    """Whatever YAML holds, reading it gives rules or a ConfigError, and nothing else is raised."""
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(yaml.safe_dump(found)), tuple)


@pytest.mark.parametrize(
    ("match", "one", "meant"),
    [
        ({"tag": ("gold",)}, described(tags="gold other"), True),
        ({"tag": ("gold",)}, described(tags="golden"), False),
        ({"tag": ("gold", "silver")}, described(tags="silver"), True),
        ({"name": ("ubuntu-*",)}, described(name="ubuntu-24.04"), True),
        ({"name": ("ubuntu-*",)}, described(name="Ubuntu-24.04"), False),
        ({"name": ("*",)}, described(name=None), True),
        ({"name": ("u*",)}, described(name=None), False),
        ({"owner": ("p1", "p2")}, described(owner="p2"), True),
        ({"owner": ("p1",)}, described(owner=None), False),
        ({"visibility": ("private",)}, described(visibility="public"), False),
        ({"property": {"os": ("a", "b")}}, described(OS="b"), True),
        ({"property": {"os": ("a",), "arch": ("x",)}}, described(OS="a"), False),
        ({"property": {"os": ("a",), "arch": ("x",)}}, described(OS="a", ARCH="x"), True),
        ({"max_size": 100}, described(size=100), True),
        ({"max_size": 99}, described(size=100), False),
        ({"min_size": 100}, described(size=100), True),
        ({"min_size": 101}, described(size=100), False),
        ({"popular": (1, 7)}, described(A), True),
        ({"popular": (1, 7)}, described(B), False),
        ({"popular": (2, 7)}, described(B), True),
        ({"popular": (2, 7), "tag": ("gold",)}, described(B), False),
    ],
)
def test_which_images_are_meant(match: dict[str, Any], one: Described, meant: bool) -> None:
    """All that is given must hold; of several values one is enough; popular by rank."""
    rule = Rule("r", Match(**match), 1)
    found = list(rules.shares([rule], world("h0", hosts("a"), one, popular=[A, B, C])))
    assert bool(found) is meant


zones = st.text("ab-", min_size=1, max_size=7)


@given(zones, st.integers(1, 9), st.booleans(), st.sampled_from([(), ("a",), ("a", "z")]), st.data())
def test_hosts_that_decide_alone_agree(
    known: str, copies: int, per_zone: bool, only: tuple[str, ...], data: st.DataObject
) -> None:
    """In each zone, or over all: what all hosts wish together is `copies` or as many as there are, holders first."""
    living = hosts(known)
    holders = data.draw(st.lists(st.sampled_from(living), unique=True))
    one = described(holders=holders)
    rule = Rule("r", Match(name=("*",)), copies, per_zone=per_zone, zones=only)
    wished = {host.name for host in living if list(rules.wishes([rule], world(host.name, living, one)))}
    meant = [host for host in living if not only or host.zone in only]
    groups = [meant]
    if per_zone:
        groups = [[host for host in meant if host.zone == zone] for zone in {host.zone for host in meant}]
    assert wished <= {host.name for host in meant}
    for group in groups:
        here = {host.name for host in group}
        held = {host.name for host in group if host in holders}
        assert len(wished & here) == min(copies, len(group))
        assert len((wished | held) & here) == max(len(held), min(copies, len(group))), "no more than N and those there"


@given(zones, st.integers(1, 4), st.data())
def test_a_host_that_goes_moves_only_its_share(known: str, copies: int, data: st.DataObject) -> None:
    """When a host dies, those that were to have an image still are: one more takes its place, nobody else changes."""
    living = hosts(known)
    gone = data.draw(st.sampled_from(living))
    rule, one = Rule("r", Match(name=("*",)), copies), described()
    before = set(rule.share(one.image, living).missing)
    after = set(rule.share(one.image, [host for host in living if host != gone]).missing)
    assert before - {gone.name} <= after
    assert len(after - before) <= 1


def test_images_spread_over_hosts() -> None:
    """A thousand images, two copies each, are shared out evenly among ten hosts."""
    living, rule = hosts("aaaaaaaaaa"), Rule("r", Match(name=("*",)), 2)
    counts = dict.fromkeys((host.name for host in living), 0)
    for number in range(1000):
        for name in rule.share(described(f"{number:08d}-2222-4333-8444-555555555555").image, living).missing:
            counts[name] += 1
    assert sum(counts.values()) == 2000
    assert all(150 < number < 250 for number in counts.values())


def test_order_is_that_of_the_document() -> None:
    """Another implementation can compute who is first: the highest sha256 of image id and host name."""
    living, rule = hosts("abc"), Rule("r", Match(name=("*",)), 1)
    (first,) = rule.share(described().image, living).missing
    hashes = {hashlib.sha256((A + host.name).encode()).hexdigest(): host.name for host in living}
    assert first == hashes[max(hashes)]


def test_all_hosts() -> None:
    """`copies: all` is every host of the zones meant."""
    living = hosts("aab-")
    image = described(holders=living[1:2]).image
    share = Rule("r", Match(name=("*",)), None).share(image, living)
    assert (share.wanted, share.present, set(share.missing)) == (4, ("h1",), {"h0", "h2", "h3"})
    assert Rule("r", Match(name=("*",)), None, zones=("b",)).share(image, living).missing == ("h2",)


def test_rows_of_others_are_no_copies() -> None:
    """A row under another URL than the host's is not its copy."""
    (host,) = hosts("a")
    image = described(holders=[Host("h0", "a", "http://elsewhere")]).image
    assert Rule("r", Match(name=("*",)), 1).share(image, [host]).missing == ("h0",)


def test_a_zone_without_hosts_lacks_its_copies() -> None:
    """A zone that is named and has no living host counts as wanted, and nobody is asked."""
    share = Rule("r", Match(name=("*",)), 2, per_zone=True, zones=("a", "z")).share(described().image, hosts("aa"))
    assert (share.wanted, len(share.missing)) == (4, 2)


def test_wishes_say_why() -> None:
    """A wish carries the rule's name, priority and pin."""
    rule = Rule("golden", Match(tag=("gold",)), None, Priority.HIGH, pin=True)
    (wish,) = rules.wishes([rule], world("h0", hosts("ab"), described(tags="gold")))
    assert (wish.image_id, wish.why, wish.priority, wish.pin) == (A, "rule: golden", Priority.HIGH, True)
