"""The rule of removal: the last intact durable copy survives every world, and nothing goes for want of an answer."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glance_replicas import location
from glance_replicas.model import Digest, Image, Location, Result
from glance_replicas.removal.causes import DAMAGED, Damaged, Duplicate, Ordered
from glance_replicas.removal.proof import MAX_AGE_SECONDS, Proof, Refusal, removable
from glance_replicas.verdict import Evidence, Verdict

ID = "0fd1d7a0-4a8c-4b7e-9d6f-0f3b7c1f5a11"
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
DIGEST = Digest("sha512", "ab" * 64)
FAST, SLOW = f"file:///fast/{ID}", f"swift+config://user:secret@ref1/images/{ID}"
REPLICA = {"replica_host": "api1", "store": "web"}
HOST_URL = f"http://10.0.0.2:9292/replicas/{ID}"


def place(url: str, row: int, **metadata: str) -> Location:
    return Location(ID, url, metadata, row)


def world(*locations: Location, digest: Digest | None = DIGEST) -> Image:
    return Image(ID, "active", 100, digest, locations)


def look(
    at: Location, verdict: Verdict = Verdict.INTACT, evidence: Evidence = Evidence.FULL, age: float = 1.0
) -> Result:
    return Result(at, verdict, evidence, checked_at=NOW - timedelta(seconds=age))


def decide(image: Image, target: Location, *results: Result, **rest: object) -> Proof | Refusal:
    rest.setdefault("judged", image.digest)
    states = rest.pop("states", DAMAGED)
    rest.setdefault("cause", Ordered() if states is None else Damaged(states))  # type: ignore[arg-type]
    return removable(image, target, results, now=NOW, **rest)  # type: ignore[arg-type]


GOOD, BAD = place(FAST, 1, store="fast"), place(SLOW, 2, store="slow")
CACHED = place(HOST_URL, 3, **REPLICA)


def refusal(answer: Proof | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


def test_a_damaged_copy_beside_an_intact_one_goes() -> None:
    """The plain case: a proof names the copy relied on, redacted, and JSON holds it."""
    proof = decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD, Verdict.CORRUPT))
    assert isinstance(proof, Proof)
    document = json.loads(json.dumps(proof.as_dict()))
    assert document["target"] == f"swift+config://ref1/images/{ID}"
    assert document["keeps"] == [
        {
            "url": FAST,
            "store": "fast",
            "verdict": "intact",
            "evidence": "full",
            "checked_at": "2026-07-01T11:59:59+00:00",
            "digest": f"sha512:{DIGEST.value}",
        }
    ]
    assert "secret" not in json.dumps(document)


@pytest.mark.parametrize("age", [1.0, 3600.0, -3600.0])
def test_what_others_have_seen_holds_back_and_proves_nothing(age: float) -> None:
    """By any clock: one who saw damage is believed, one who saw none, or could not see, does not make up for a look."""
    image, looks = world(GOOD, BAD), (look(GOOD), look(BAD, Verdict.CORRUPT))
    for verdict in Verdict:
        answer = decide(image, BAD, *looks, others=[look(GOOD, verdict, age=age)])
        assert isinstance(answer, Proof) == (verdict is Verdict.INTACT)
    assert isinstance(decide(image, BAD, looks[1], others=[look(GOOD, age=age)]), Refusal)
    assert isinstance(decide(image, BAD, *looks, others=[look(BAD, age=age)]), Refusal)


@pytest.mark.parametrize("verdict", [one for one in Verdict if one.is_unknown])
def test_not_knowing_the_target_is_no_reason(verdict: Verdict) -> None:
    """No verdict that means "could not ask" condemns, even when the caller lists it as a state to remove."""
    answer = refusal(decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD, verdict), states=tuple(Verdict)))
    assert answer.unknown
    assert str(verdict) in answer.reason


def test_an_intact_durable_copy_never_goes() -> None:
    """Naming `intact` as a state to remove removes nothing: only damage condemns."""
    answer = decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD), states=tuple(Verdict))
    assert refusal(answer).reason == "it is intact"


def test_a_state_not_asked_for_stays() -> None:
    """--state missing leaves a corrupt copy where it is."""
    answer = decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD, Verdict.CORRUPT), states=[Verdict.MISSING])
    assert refusal(answer).reason == "it is corrupt"


def test_the_target_must_have_been_looked_at() -> None:
    """Without any verification of the target there is no removal."""
    assert refusal(decide(world(GOOD, BAD), BAD, look(GOOD))).unknown


def test_looks_that_disagree_about_the_target_keep_it() -> None:
    """One look says corrupt and another intact: the copy stays."""
    answer = decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD, Verdict.CORRUPT), look(BAD))
    assert "disagree" in refusal(answer).reason


def test_corrupt_from_a_sample_does_not_condemn() -> None:
    """Corruption has to be read in full, or be said by the backend."""
    answer = decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD, Verdict.CORRUPT, Evidence.SAMPLE))
    assert "sample only" in refusal(answer).reason
    assert isinstance(decide(world(GOOD, BAD), BAD, look(GOOD), look(BAD, Verdict.CORRUPT, Evidence.STORED)), Proof)


@pytest.mark.parametrize(
    ("verdict", "evidence", "age"),
    [
        *[(one, Evidence.FULL, 1.0) for one in Verdict if one is not Verdict.INTACT],
        *[(Verdict.INTACT, one, 1.0) for one in Evidence if one is not Evidence.FULL],
        (Verdict.INTACT, Evidence.FULL, MAX_AGE_SECONDS + 1),
        (Verdict.INTACT, Evidence.FULL, -60.0),
    ],
)
def test_what_does_not_count_as_kept(verdict: Verdict, evidence: Evidence, age: float) -> None:
    """Only intact, by every byte, just now, counts; neither damage, nor a shallow look, nor an old or future one."""
    answer = decide(world(GOOD, BAD), BAD, look(GOOD, verdict, evidence, age), look(BAD, Verdict.MISSING))
    assert "no other durable copy" in refusal(answer).reason


def test_a_look_without_a_time_is_no_look() -> None:
    """A result that does not say when it was made counts for nothing."""
    timeless = replace(look(GOOD), checked_at=None)
    assert isinstance(decide(world(GOOD, BAD), BAD, timeless, look(BAD, Verdict.MISSING)), Refusal)


def test_a_second_look_that_failed_voids_the_first() -> None:
    """A copy read intact and then unreachable does not count as kept."""
    looks = look(GOOD), look(GOOD, Verdict.UNREACHABLE), look(BAD, Verdict.MISSING)
    assert refusal(decide(world(GOOD, BAD), BAD, *looks)).unknown


def test_cached_replicas_do_not_count() -> None:
    """Any number of intact cached copies is no durable copy, whichever way round."""
    other = place(HOST_URL.replace("0.2", "0.3"), 4, **{**REPLICA, "replica_host": "api2"})
    looks = look(CACHED), look(other), look(BAD, Verdict.MISSING)
    assert refusal(decide(world(BAD, CACHED, other), BAD, *looks)).reason == "the image has no other durable copy"
    answer = decide(world(CACHED, other), CACHED, look(other), states=None)
    assert refusal(answer).reason == "the image has no durable copy"


@pytest.mark.parametrize("metadata", [{}, {"store": "web"}])
def test_a_per_host_url_registered_by_hand_does_not_count(metadata: dict[str, str]) -> None:
    """A user's own location without our metadata, under a host's URL, is still a cache: volatile."""
    byhand = place(HOST_URL, 4, **metadata)
    assert isinstance(decide(world(BAD, byhand), BAD, look(byhand), look(BAD, Verdict.MISSING)), Refusal)


def test_a_durable_name_of_a_cached_copy_does_not_count() -> None:
    """A cached replica and a plain location with the same URL are one copy, and it is volatile.

    Its URL says so, and no user's metadata: those of a row make no copy in a store a cached one.
    """
    for url, what in ((HOST_URL, Refusal), ("http://10.0.0.9/files/a", Proof)):
        named, plain = place(url, 4, **REPLICA), place(url, 5, store="web")
        assert isinstance(decide(world(BAD, named, plain), BAD, look(plain), look(BAD, Verdict.MISSING)), what)


def test_two_names_of_one_copy_count_once() -> None:
    """The same URL with other credentials, metadata or spelling is no second copy."""
    names = place(FAST, 1, store="fast"), place(f"file:///fast//{ID}", 4, store="other")
    image, missing = world(*names, BAD), look(BAD, Verdict.MISSING)
    looks = [look(one) for one in names]
    assert isinstance(decide(image, BAD, *looks, missing), Proof)
    answer = decide(image, BAD, *looks, missing, min_durable=2)
    assert refusal(answer).reason == "1 other durable copy is proven intact, 2 must stay"


def test_another_name_of_the_target_does_not_count() -> None:
    """What shares the target's place goes with it, so it is not what stays."""
    twin = place(SLOW.replace("user:secret@", ""), 4, store="slow")
    answer = decide(world(BAD, twin), BAD, look(BAD, Verdict.CORRUPT), look(twin, Verdict.CORRUPT))
    assert isinstance(answer, Refusal)


def test_the_caller_may_know_that_two_urls_are_one_file() -> None:
    """With an identity from the file system, two mounts of one file count once."""
    mount = place(f"file:///nfs/{ID}", 4, store="nfs")
    looks = look(GOOD), look(mount), look(BAD, Verdict.MISSING)
    image = world(GOOD, mount, BAD)
    assert isinstance(decide(image, BAD, *looks, min_durable=2), Proof)
    same = decide(image, BAD, *looks, min_durable=2, identity=lambda one: one.url.startswith("file:"))
    assert isinstance(same, Refusal)


def test_a_location_withdrawn_meanwhile_is_not_removed_again() -> None:
    """Two prunes at once: the one that comes second finds nothing to do."""
    looks = look(GOOD), look(BAD, Verdict.CORRUPT)
    assert "no longer in the catalogue" in refusal(decide(world(GOOD), BAD, *looks)).reason


@pytest.mark.parametrize("now", [replace(BAD, url=BAD.url + "-moved"), replace(BAD, row=9)])
def test_a_row_that_became_another_is_not_the_target(now: Location) -> None:
    """The same row with another URL, or the same URL in a later row: neither is what was looked at."""
    answer = decide(world(GOOD, now), BAD, look(GOOD), look(BAD, Verdict.CORRUPT))
    assert "no longer in the catalogue" in refusal(answer).reason


def test_one_copy_not_looked_at_leaves_it_open() -> None:
    """Too few are proven, and one was not asked: that is not known (exit 3), and no verdict on the rest (exit 1)."""
    third = place(FAST + "-third", 4)
    looks = look(GOOD, Verdict.CORRUPT), look(BAD, Verdict.MISSING)
    assert refusal(decide(world(GOOD, third, BAD), BAD, *looks)).unknown
    assert not refusal(decide(world(GOOD, BAD), BAD, *looks)).unknown


def test_the_proof_names_the_look_that_read_every_byte() -> None:
    """A shallow look before it changes nothing; the words name stores, and URLs of copies that have none."""
    plain = place(FAST, 1)
    looks = look(plain, evidence=Evidence.SIZE), look(plain), look(BAD, Verdict.MISSING)
    proof = decide(world(plain, BAD), BAD, *looks)
    assert isinstance(proof, Proof)
    assert proof.keeps[0].evidence == "full"
    assert str(proof) == f"keeps 1 intact durable copy: {FAST} (intact, full)"
    assert str(replace(proof, keeps=proof.keeps * 2)).startswith("keeps 2 intact durable copies: ")
    named = decide(world(GOOD, BAD), BAD, look(GOOD), looks[-1])
    assert str(named) == "keeps 1 intact durable copy: fast (intact, full)"


def test_a_duplicate_may_lean_on_its_own_copy() -> None:
    """The copy stays under its older name: that is the one durable copy that must stay."""
    twin = place(f"file:///fast//{ID}", 4, store="fast")
    assert isinstance(decide(world(GOOD, twin), twin, look(GOOD), look(twin), cause=Duplicate()), Proof)
    answer = decide(world(GOOD, twin), twin, look(GOOD), look(twin), cause=Duplicate(), min_durable=2)
    assert isinstance(answer, Refusal)


def test_a_copy_withdrawn_meanwhile_is_not_relied_on() -> None:
    """A fresh verification of a copy that is not in the catalogue any more proves nothing."""
    assert isinstance(decide(world(BAD), BAD, look(GOOD), look(BAD, Verdict.CORRUPT)), Refusal)


def test_an_image_without_a_digest_keeps_everything() -> None:
    """Nothing can be proven of an image that has no digest."""
    answer = decide(world(GOOD, BAD, digest=None), BAD, look(GOOD), look(BAD, Verdict.MISSING))
    assert "no digest" in refusal(answer).reason


def test_results_judged_by_another_digest_are_void() -> None:
    """The image has another digest than the verifications were judged by: ask again."""
    looks = look(GOOD), look(BAD, Verdict.MISSING)
    answer = decide(world(GOOD, BAD), BAD, *looks, judged=Digest("sha512", "cd" * 64))
    assert refusal(answer).unknown


def test_a_cached_copy_goes_by_order_whatever_its_state() -> None:
    """--cached and --host ask only that a durable copy stays; the cached one may even be out of reach."""
    for looks in ([], [look(CACHED)], [look(CACHED, Verdict.UNREACHABLE)]):
        assert isinstance(decide(world(GOOD, CACHED), CACHED, look(GOOD), *looks, states=None), Proof)


def test_only_our_own_registrations_go_by_order() -> None:
    """A durable location, or a location that a user dressed up as a replica, is not removed by --cached."""
    dressed = place("http://10.0.0.2:9292/elsewhere", 4, **REPLICA)
    for target in (BAD, dressed):
        answer = decide(world(GOOD, BAD, dressed), target, look(GOOD), states=None)
        assert "no cached copy on a host" in refusal(answer).reason


def test_min_durable_below_one_means_one() -> None:
    """No caller can ask for less than one copy to stay."""
    for number in (0, -1):
        answer = decide(world(BAD), BAD, look(BAD, Verdict.MISSING), min_durable=number)
        assert isinstance(answer, Refusal)


def test_exactly_max_age_is_fresh() -> None:
    """The bound is tested from both sides, in the unit it names."""
    for age, kind in ((MAX_AGE_SECONDS, Proof), (MAX_AGE_SECONDS + 0.001, Refusal)):
        answer = decide(world(GOOD, BAD), BAD, look(GOOD, age=age), look(BAD, Verdict.MISSING))
        assert isinstance(answer, kind)


def test_a_wrong_size_from_a_web_server_does_not_condemn() -> None:
    """A login page with status 200 has a wrong size too; in a store the size is the copy's."""
    page = place("https://mirror.example.org/a.img", 4)
    answer = decide(world(GOOD, page), page, look(GOOD), look(page, Verdict.WRONG_SIZE, Evidence.SIZE))
    assert refusal(answer).unknown
    wrong = look(BAD, Verdict.WRONG_SIZE, Evidence.SIZE)
    assert isinstance(decide(world(GOOD, BAD), BAD, look(GOOD), wrong), Proof)


@dataclass
class Copy:
    """What is really there, and under which names the catalogue has it."""

    locations: list[Location]
    durable: bool
    intact: bool


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Copy], int]:
    """Copies with one to three names each, some cached, some intact; and how many must stay."""
    copies, rows = [], iter(range(1, 1000))
    for number in range(draw(st.integers(1, 5))):
        durable = draw(st.booleans())
        url = f"file:///s{number}/{ID}" if durable else f"http://h{number}/replicas/{ID}"
        names = [url, url.replace(f"/{ID}", f"//{ID}"), url + "#again"][: draw(st.integers(1, 3))]
        data = {"store": f"s{number}"} if durable else {"store": "web", "replica_host": f"h{number}"}
        found = [place(name, next(rows), **data) for name in names]
        copies.append(Copy(found, durable, draw(st.booleans())))
    return copies, draw(st.integers(1, 2))


@st.composite
def looks_at(draw: st.DrawFn, copies: list[Copy]) -> list[Result]:
    """Results a prune may hold: fresh ones tell the truth; old, shallow or failed ones tell anything."""
    results = []
    for copy in copies:
        for one in copy.locations:
            kind = draw(st.sampled_from(["truth", "old", "future", "shallow", "unknown", "none"]))
            lie = draw(st.sampled_from(list(Verdict)))
            if kind == "truth":
                results.append(look(one, Verdict.INTACT if copy.intact else draw(st.sampled_from(DAMAGED))))
            elif kind in ("old", "future"):
                results.append(look(one, lie, age=1e4 if kind == "old" else -1e4))
            elif kind == "shallow":
                results.append(look(one, Verdict.INTACT, draw(st.sampled_from(list(Evidence)[:3]))))
            elif kind == "unknown":
                results.append(look(one, draw(st.sampled_from([v for v in Verdict if v.is_unknown]))))
    return results


def survivors(copies: list[Copy]) -> int:
    return sum(copy.durable and copy.intact and bool(copy.locations) for copy in copies)


@given(st.data(), worlds())
def test_the_last_intact_durable_copy_survives(data: st.DataObject, made: tuple[list[Copy], int]) -> None:
    """In every world, after every removal, with bytes and all, as many intact durable copies are left as asked."""
    copies, min_durable = made
    for _ in range(data.draw(st.integers(1, 6))):
        everything = [one for copy in copies for one in copy.locations]
        if not everything:
            return
        results = data.draw(looks_at(copies))
        target = data.draw(st.sampled_from(everything))
        states = data.draw(st.sampled_from([None, DAMAGED, tuple(Verdict)]))
        before = survivors(copies)
        answer = decide(world(*everything), target, *results, states=states, min_durable=min_durable)
        if isinstance(answer, Proof):
            _remove(copies, target)
            assert survivors(copies) >= min_durable
            assert len(answer.keeps) <= survivors(copies)
            assert survivors(copies) == before, "an intact durable copy went"


def _remove(copies: list[Copy], target: Location) -> None:
    """The bytes go, and with them every name of the copy."""
    for copy in copies:
        if any(location.place(one) == location.place(target) for one in copy.locations):
            copy.locations.clear()


@given(st.permutations([look(GOOD), look(BAD, Verdict.CORRUPT), look(CACHED)]))
@example([look(BAD, Verdict.CORRUPT), look(GOOD), look(CACHED)])
def test_the_order_of_results_does_not_matter(results: list[Result]) -> None:
    """The same looks in another order give the same proof."""
    assert isinstance(decide(world(GOOD, BAD, CACHED), BAD, *results), Proof)
