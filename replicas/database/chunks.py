"""Lists of values in parts that one SQL statement takes on every database."""

from collections.abc import Collection, Iterator
from typing import TypeVar

CHUNK = 500  # rows, or values of one IN list
_Value = TypeVar("_Value")


def chunks(values: list[_Value], size: int = CHUNK) -> Iterator[list[_Value]]:
    """The values in their order, at most `size` at a time."""
    return (values[start : start + size] for start in range(0, len(values), size))


def distinct(ids: Collection[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Each id once, in order, at most `size` at a time."""
    return chunks(sorted(set(ids)), size)
