"""A call that is waited for no longer than one has time for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

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
