"""Which functions change disk, catalogue or ledger: a test kills the process at each line of them.

A line that the test's scenarios do not come by says why, behind it:

    os.unlink(path)  # no crash test: only after a crash of the machine

On a line that ends with a colon it is said of the block that follows. Handlers (the line `except`), `raise`, `break`,
and `return` of nothing or of a constant need no reason.
"""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import TypeVar, cast

MARKED: list[CodeType] = []

F = TypeVar("F", bound=Callable[..., object])


def crash_points(function: F) -> F:
    """Killed anywhere in it: one pass of the janitor puts everything right. It is called as it was."""
    MARKED.append(cast(FunctionType, function).__code__)
    return function
