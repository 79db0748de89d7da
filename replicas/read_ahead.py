"""The next part is fetched while the caller works on this one: a database and we have a processor each."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def read_ahead(parts: Iterable[T]) -> Iterator[T]:
    """The parts in order, one of them read ahead, in one thread of their own that ends with this.

    What the reading raises is raised here, in the place of the part that was not read.
    """
    left = iter(parts)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        coming = reader.submit(next, left, _END)
        while (part := coming.result()) is not _END:
            coming = reader.submit(next, left, _END)
            yield part  # type: ignore[misc]  # _END is no part
