"""The stream out of many sources, and the guard at its end."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glance_replicas import checksum
from glance_replicas.errors import Corrupt, SourceError, Unreachable
from glance_replicas.model import Digest, Location
from glance_replicas.stores.body import Body
from glance_replicas.transfer.failover_stream import FailoverStream, guarded

IMAGE = "9c0a3b0e-6d53-4a0f-8d06-3f0b9f0f4c11"
DATA = bytes(range(256)) * 16


def place(name: str) -> Location:
    return Location(IMAGE, f"http://{name}/x")


def sources(**breaks_at: int | None) -> tuple[list[Location], list[tuple[str, int]], Callable[[Location, int], Body]]:
    """Places that break at a byte (None: never; -1: cannot be opened), the calls made, and the opener."""
    calls: list[tuple[str, int]] = []

    def opener(location: Location, offset: int) -> Body:
        name = location.url.split("/")[2]
        calls.append((name, offset))
        end = breaks_at[name]
        if end == -1:
            raise Unreachable("refused")

        def chunks() -> Iterator[bytes]:
            stop = len(DATA) if end is None else max(end, offset)
            for start in range(offset, stop, 100):
                yield DATA[start : min(start + 100, stop)]
            if end is not None:
                raise Unreachable("reset")

        return Body(chunks(), len(DATA), lambda: None)

    return [place(name) for name in breaks_at], calls, opener


def test_next_source_continues_at_the_same_offset() -> None:
    """A source that breaks costs no byte twice."""
    places, calls, opener = sources(a=-1, b=1234, c=None)
    relay = FailoverStream(IMAGE, len(DATA), places, opener)
    assert b"".join(relay) == DATA
    assert calls == [("a", 0), ("b", 0), ("c", 1234)]
    assert relay.used == [places[1], places[2]]


def test_the_only_source_is_tried_again_while_it_gives_bytes() -> None:
    """One reset in the middle does not end a fill that has no other source."""
    tries = iter([1000, 2000, None])
    calls: list[int] = []

    def opener(_location: Location, offset: int) -> Body:
        calls.append(offset)
        end = next(tries)

        def chunks() -> Iterator[bytes]:
            yield DATA[offset:end]
            if end is not None:
                raise Unreachable("reset")

        return Body(chunks(), len(DATA), lambda: None)

    assert b"".join(FailoverStream(IMAGE, len(DATA), [place("a")], opener)) == DATA
    assert calls == [0, 1000, 2000]


def test_no_source_left_is_unreachable_and_ends() -> None:
    """When a whole round brings nothing the relay stops asking."""
    places, calls, opener = sources(a=-1, b=500)
    relay = FailoverStream(IMAGE, len(DATA), places, opener)
    with pytest.raises(Unreachable, match="no source gave bytes 500 to 4096"):
        list(relay)
    assert len(calls) == 4


def test_another_size_is_another_object() -> None:
    """A source that says it holds another length is left before a byte of it is used."""

    def opener(location: Location, offset: int) -> Body:
        return Body(iter([b"x" * 10]), 10, lambda: None)

    relay = FailoverStream(IMAGE, len(DATA), [place("a")], opener)
    with pytest.raises(SourceError):
        list(relay)
    assert relay.used == []


def test_a_longer_body_is_cut_at_the_images_size() -> None:
    """A source without a length that goes on for ever gives exactly the image's bytes."""

    def opener(location: Location, offset: int) -> Body:
        def forever() -> Iterator[bytes]:
            while True:
                yield DATA

        return Body(forever(), None, lambda: None)

    assert b"".join(FailoverStream(IMAGE, len(DATA) + 7, [place("a")], opener)) == (DATA * 2)[: len(DATA) + 7]


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 3 * checksum.BLOCK),
    cut=st.integers(1, 2 * checksum.BLOCK),
    kept=st.integers(0, 3 * checksum.BLOCK),
    flipped=st.booleans(),
    at=st.integers(0, 3 * checksum.BLOCK),
)
def test_guard_gives_all_or_withholds_the_last_block(size: int, cut: int, kept: int, flipped: bool, at: int) -> None:
    """Right bytes come out whole however they are cut; wrong ones never reach the last block, wherever the fault is."""
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    kept = min(kept, size)
    bad = bytearray(data)
    bad[at % size] ^= 1
    sent = bytes(bad) if flipped else data
    chunks = iter([sent[start : start + cut] for start in range(kept, size, cut)])
    out = bytearray(sent[:kept])
    digest = Digest("sha256", checksum.of([data], "sha256")[0].value)
    stream = guarded(chunks, digest, size, iter([sent[:kept]] if kept else []))
    if flipped:
        with pytest.raises(Corrupt):
            for chunk in stream:
                out += chunk
        assert len(out) <= max(kept, size - checksum.BLOCK)
    else:
        for chunk in stream:
            out += chunk
        assert bytes(out) == data


def test_guard_refuses_a_short_body() -> None:
    """Fewer bytes than the image has are Corrupt even when nobody else noticed."""
    digest = checksum.of([DATA], "sha512")[0]
    with pytest.raises(Corrupt, match="4000 bytes arrived"):
        list(guarded(iter([DATA[:4000]]), digest, len(DATA)))
