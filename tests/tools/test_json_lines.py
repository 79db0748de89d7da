"""The formatter `jsonl`: what `json` would write, each row as soon as it is known."""

import argparse
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from glance_replicas.tools.output.cells import Bytes, When
from glance_replicas.tools.output.formats import AtOnce, JsonLines, plain
from glance_replicas.verdict import Verdict

NAMES = ("Image", "100 %s", "\N{SNOWMAN}")
MOMENT = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
ODD = st.sampled_from(
    [True, Verdict.INTACT, MOMENT, Bytes(7), Bytes(None), When(MOMENT, MOMENT), [1, "x"], {"a": None}, 10**30]
)
VALUES = st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | ODD
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=5)


def written(rows: Any) -> str:
    stream = io.StringIO()
    JsonLines().emit_list(NAMES, rows, stream, argparse.Namespace())
    return stream.getvalue()


@given(ROWS)
def test_it_is_json(rows: list[tuple[Any, ...]]) -> None:
    """Byte for byte what the standard library makes of the same object, together or one by one."""
    wanted = "".join(json.dumps(dict(zip(NAMES, row, strict=True)), default=plain) + "\n" for row in rows)
    assert written(rows) == wanted
    assert written(AtOnce(rows)) == wanted


def test_any_number_of_rows_at_once() -> None:
    """All of them, none twice, also where they do not fill the last lot."""
    for number in (0, 1, 499, 500, 501, 1200):
        lines = written(AtOnce((one, 0, 0) for one in range(number))).splitlines()
        assert [json.loads(line)["Image"] for line in lines] == list(range(number))


def test_a_row_that_was_waited_for_is_seen_at_once() -> None:
    """Before the next is asked for, the one before has left: the next may take hours."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw)

    def rows() -> Iterator[tuple[int, int, int]]:
        for number in range(3):
            assert raw.getvalue().count(b"\n") == number
            yield number, 0, 0

    JsonLines().emit_list(NAMES, rows(), stream, argparse.Namespace())
    assert raw.getvalue().count(b"\n") == 3
