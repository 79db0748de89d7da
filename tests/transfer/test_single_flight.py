"""Questions asked together: one answer, and never one that is older than the question."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from glance_replicas.middleware.single_flight import SingleFlight


class Clerk:
    """Answers with the number of the question, and may be held."""

    def __init__(self) -> None:
        self.asked = 0
        self.began, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        self.began.release()
        assert self.go.acquire(timeout=20)
        if number == 2:
            raise KeyError(number)
        return number


def gather(together: SingleFlight[int], clerk: Clerk, pool: ThreadPoolExecutor, count: int, key: str = "a") -> list:
    """So many that certainly have asked by now, while a question is under way."""
    began = threading.Semaphore(0)

    def one() -> int:
        began.release()
        return together.ask(key, clerk)

    found = [pool.submit(one) for _ in range(count)]
    for _ in range(count):
        assert began.acquire(timeout=20)
    return found


def test_who_comes_later_shares_the_next_answer() -> None:
    """One asks; all who come meanwhile get the next answer, a fault like a value, and not the one under way."""
    together, clerk = SingleFlight[int](), Clerk()
    with ThreadPoolExecutor(16) as pool:
        first = gather(together, clerk, pool, 1)
        assert clerk.began.acquire(timeout=20)
        second = gather(together, clerk, pool, 8)
        clerk.go.release()
        assert first[0].result(20) == 1
        assert clerk.began.acquire(timeout=20)
        third = gather(together, clerk, pool, 3)
        clerk.go.release()
        raised = [one.exception(20) for one in second]
        clerk.go.release(10)
        later = {one.result(20) for one in third}
    assert [one for one in raised if isinstance(one, KeyError)]
    assert later <= {3, 4, 5}
    assert clerk.asked <= 5  # twelve asked; a thread may be slow to come between two lines


def test_other_keys_do_not_wait() -> None:
    """A question under way holds up nobody who wants to know something else."""
    together, clerk = SingleFlight[int](), Clerk()
    with ThreadPoolExecutor(2) as pool:
        held = gather(together, clerk, pool, 1)
        assert clerk.began.acquire(timeout=20)
        assert together.ask("b", lambda: 7) == 7
        clerk.go.release()
        assert held[0].result(20) == 1


def test_nothing_is_kept() -> None:
    """Asked one after the other everybody gets an answer of his own, after a fault too."""
    together = SingleFlight[int]()
    answers = iter(range(3))
    assert [together.ask("a", lambda: next(answers)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        together.ask("a", lambda: 1 // 0)
    assert together.ask("a", lambda: 9) == 9
