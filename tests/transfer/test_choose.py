"""Choosing: what comes first and why, and that no input, however odd, loses, doubles or pins a copy.

Cases of selection that cannot happen here: a failed geographic look-up (there is none, zones are names), an IPv6-only
client behind NAT (the caller says where it is, its address decides nothing).
"""

import math
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from glance_replicas.client.choose import SILENT_AFTER, STALE_AFTER, Choice, Health, Here, ago, order
from glance_replicas.model import Location
from glance_replicas.verdict import Verdict

IMAGE = "11111111-2222-4333-8444-555555555555"


def cached(host: str, zone: str | None = None) -> Location:
    metadata = {"replica_host": host, **({"replica_zone": zone} if zone else {})}
    return Location(IMAGE, f"http://{host}:9292/replicas/{IMAGE}", metadata)


def stored(url: str = f"swift+https://keystone/glance/{IMAGE}") -> Location:
    return Location(IMAGE, url, {"store": "fast"})


def urls(choices: list[Choice[Location]]) -> list[str]:
    return [choice.location.url for choice in choices]


def hosts(choices: list[Choice[Location]]) -> list[str | None]:
    return [choice.location.host for choice in choices]


FLOATS = st.none() | st.floats()  # NaN and infinities too
HEALTH = st.builds(Health, st.none() | st.sampled_from(Verdict), FLOATS, FLOATS, FLOATS, FLOATS)
NAMES = st.none() | st.sampled_from(["a", "b", "c"])
LOCATIONS = st.lists(
    st.builds(
        lambda url, host, zone: Location(IMAGE, url, {"replica_host": host, "replica_zone": zone}),
        st.sampled_from(["http://a/x", "http://b/x", "swift://c/x", "file:///x", "rbd://y", "", "no url"]) | st.text(),
        NAMES,
        NAMES,
    ),
    max_size=12,
)


@given(LOCATIONS, st.builds(Here, NAMES, NAMES, st.tuples(NAMES.filter(bool))), st.data(), st.integers())
def test_permutation(locations: list[Location], here: Here, data: st.DataObject, seed: int) -> None:
    """Whatever is known, every location comes back exactly once, and twice asked is the same answer."""
    health = {one.url: data.draw(HEALTH) for one in locations}
    first = order(locations, here, health, seed)
    assert Counter(map(id, locations)) == Counter(id(choice.location) for choice in first)
    assert order(locations, here, health, seed) == first
    assert not any("nan" in reason for choice in first for reason in choice.reasons)


@given(st.permutations([cached(f"h{n}", f"z{n % 3}") for n in range(6)] + [stored()]), st.integers())
def test_the_order_of_the_input_decides_nothing(shuffled: list[Location], seed: int) -> None:
    """A catalogue that lists the rows in another order gives the same choice for the same seed."""
    sorted_first = sorted(shuffled, key=lambda one: one.url)
    assert urls(order(shuffled, Here(zone="z1"), {}, seed)) == urls(order(sorted_first, Here(zone="z1"), {}, seed))


def test_near_before_far_before_store() -> None:
    """Same host, same zone, other zone, store: in this order for every seed, and the reasons say so."""
    ways = [stored(), cached("far", "z2"), cached("near", "z1"), cached("me", "z1")]
    for seed in range(50):
        found = order(ways, Here("me", "z1"), {}, seed)
        assert hosts(found) == ["me", "near", "far", None]
    words = [choice.reasons[0] for choice in found]
    assert words == ["same host", "same zone (z1)", "other zone (z2)", "in a store (swift+https)"]


def test_cheaper_store_first() -> None:
    """Among stores the kind decides: file, Ceph, Swift, a foreign web server; an unknown one is in the middle."""
    kinds = ["http://x/i", "swift://x/i", "rbd://x/i", "file:///i"]
    assert urls(order([stored(url) for url in kinds], Here())) == kinds[::-1]
    places = {
        urls(order([stored(url) for url in [*kinds, "odd://x"]], Here(), {}, n)).index("odd://x") for n in range(40)
    }
    assert places == {1, 2}, "an unknown kind costs what the middle one costs"


def test_damaged_last_even_when_preferred_and_near() -> None:
    """A copy known to be bad is behind everything else, a dead host and a store included; it is still there."""
    locations = [cached("bad", "z1"), cached("dead", "z2"), stored()]
    health = {
        locations[0].url: Health(Verdict.CORRUPT, 9 * 86400),
        locations[1].url: Health(heartbeat_age_seconds=9e9),
    }
    found = order(locations, Here("bad", "z1", prefer=("bad",)), health)
    assert hosts(found) == [None, "dead", "bad"]
    assert any("corrupt 9 d ago" in reason for reason in found[2].reasons)
    assert any("last heartbeat" in reason for reason in found[1].reasons)


def test_failed_look_counts_while_it_is_fresh() -> None:
    """Stale health data: a host that could not be reached goes behind, and after a quarter of an hour no longer."""
    near, far = cached("near", "z1"), cached("far", "z2")
    fresh = Health(Verdict.UNREACHABLE, STALE_AFTER - 1)
    assert hosts(order([near, far], Here(zone="z1"), {near.url: fresh})) == ["far", "near"]
    stale = order([near, far], Here(zone="z1"), {near.url: replace(fresh, verdict_age_seconds=STALE_AFTER + 1)})
    assert hosts(stale) == ["near", "far"]
    assert any("too long ago to count" in reason for reason in stale[0].reasons)


def test_the_callers_preference_outlives_a_failed_look() -> None:
    """What the operator names comes first although the last verification of it failed, in the order it is named."""
    first, second, other = cached("h1", "z1"), cached("h2", "z2"), cached("h3", "z3")
    here = Here("h3", "z3", prefer=("z2", "h1"))
    found = order([first, second, other], here, {second.url: Health(Verdict.UNREACHABLE, 1.0)})
    assert hosts(found) == ["h2", "h1", "h3"]
    assert "preferred (z2)" in found[0].reasons


def test_nothing_known_spreads_over_all() -> None:
    """All hosts unknown, no zone given: every host is first for about its share of the seeds."""
    locations = [cached(f"h{n}") for n in range(4)] + [stored()]
    first = Counter(hosts(order(locations, Here(), {}, seed))[0] for seed in range(2000))
    assert set(first) == {"h0", "h1", "h2", "h3"}
    assert all(400 < count < 600 for count in first.values()), first


def test_busy_and_slow_hosts_come_first_less_often() -> None:
    """The nearest host is not everybody's: load and observed speed shift the share, and nobody is starved."""
    idle, busy, slow = (cached(name, "z1") for name in ("idle", "busy", "slow"))
    health = {
        idle.url: Health(load=0.0, bytes_per_second=100e6),
        busy.url: Health(load=0.9, bytes_per_second=100e6),
        slow.url: Health(load=0.0, bytes_per_second=20e6),
    }
    first = Counter(hosts(order([idle, busy, slow], Here(zone="z1"), health, seed))[0] for seed in range(3000))
    assert 2100 < first["idle"] < 2500, first  # 1 of 1 + 0.1 + 0.2
    assert 150 < first["busy"] < 350, first
    assert 350 < first["slow"] < 600, first


def test_unknown_takes_the_median() -> None:
    """A host nobody knows is dead when the others are silent, alive when they are not; its zone is the middle one."""
    known, unknown = cached("known", "z1"), cached("unknown", "z1")
    dead = {known.url: Health(heartbeat_age_seconds=SILENT_AFTER + 1)}
    spread = {hosts(order([known, unknown], Here(zone="z1"), dead, seed))[0] for seed in range(50)}
    assert spread == {"known", "unknown"}
    places = [cached("here", "z1"), cached("h2", "z2"), cached("h3", "z2"), cached("nowhere")]
    spots = {hosts(order(places, Here(zone="z1"), {}, seed)).index("nowhere") for seed in range(80)}
    assert spots == {1, 2, 3}, "with the other zone, which is the median"


def test_an_unknown_way_is_never_as_short_as_none() -> None:
    """The caller's own host comes first also when that is all it says about where it is."""
    locations = [cached("me", "z1"), cached("other", "z1"), cached("third")]
    assert {hosts(order(locations, Here("me"), {}, seed))[0] for seed in range(50)} == {"me"}


def test_numbers_that_are_none() -> None:
    """NaN and infinity count as not known, an age below zero (clock skew) as none."""
    one, two = cached("one", "z1"), cached("two", "z1")
    health = {one.url: Health(load=math.nan, bytes_per_second=math.inf, heartbeat_age_seconds=-50.0)}
    first = Counter(hosts(order([one, two], Here(zone="z1"), health, seed))[0] for seed in range(500))
    assert 180 < first["one"] < 320, first


def test_ages_in_words() -> None:
    """An age is told in its largest unit."""
    assert [ago(s) for s in (5, 300, 7200, 200000)] == ["5 s ago", "5 min ago", "2 h ago", "2 d ago"]
