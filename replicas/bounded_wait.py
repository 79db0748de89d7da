"""A call, and a stream, that are waited for no longer than one has time for."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises. TimeoutError when it takes longer: it goes on in its thread, for nobody."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, if there still is one
            answer.set_exception(error)
        else:
            answer.set_result(result)

    threading.Thread(target=run, name="replica-call", daemon=True).start()
    return answer.result(seconds)


class Begun(Generic[T]):
    """A stream whose first item is asked for in a thread of its own; whoever iterates waits for it."""

    def __init__(self, items: Generator[T]) -> None:
        self._items, self._first, self._closed = items, Future[T](), False
        threading.Thread(target=self._run, name="replica-call", daemon=True).start()

    def wait(self, seconds: float) -> None:
        """At most so long. Raises what asking for the first item raised by then."""
        if wait([self._first], seconds).done:
            self._first.result()

    def __iter__(self) -> Iterator[T]:
        yield self._first.result()
        yield from self._items

    def close(self) -> None:
        """The stream ends; one that is still asked for its first item ends with that."""
        self._closed = True
        if self._first.done():
            self._items.close()

    def _run(self) -> None:
        try:
            self._first.set_result(next(self._items))
        except BaseException as error:  # noqa: BLE001 - it is raised to whoever waits
            self._first.set_exception(error)
        if self._closed:
            self._items.close()
