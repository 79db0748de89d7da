"""Equal questions asked at the same time get one answer."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Asks once for all who want to know the same. For threads.

    Nobody gets an answer whose question was begun before he asked: who comes while it is being asked waits with all
    others who do, and one of them asks again for all of these. Nothing is kept beyond that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gathering: dict[Hashable, Future[T]] = {}  # not begun yet
        self._asking: dict[Hashable, Future[T]] = {}

    def ask(self, key: Hashable, question: Callable[[], T]) -> T:
        """What `question` returns or raises, called by this thread or by another that asked with this key."""
        with self._lock:
            answer = self._gathering.get(key)
            if leads := answer is None:
                answer = self._gathering[key] = Future()
            before = self._asking.get(key)
        if leads:
            if before is not None:
                before.exception()  # waits
            self._lead(key, answer, question)
        return answer.result()

    def _lead(self, key: Hashable, answer: "Future[T]", question: Callable[[], T]) -> None:
        with self._lock:
            self._asking[key] = self._gathering.pop(key)
        try:
            result = question()
        except BaseException as error:  # noqa: BLE001 - it is everybody's
            self._forget(key)
            answer.set_exception(error)
        else:
            self._forget(key)
            answer.set_result(result)

    def _forget(self, key: Hashable) -> None:
        with self._lock:
            del self._asking[key]
