"""One finding, how much it matters, and what a rule is: facts in, findings out, no I/O."""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .facts import Facts


class Severity(enum.StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # something does not work, or will break
    WARNING = "warning"  # works, with a consequence that the operator should have chosen
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that will bite: which, why, and what to do."""

    severity: Severity
    what: str
    why: str
    remedy: str


Findings = Iterator[Finding]
Rule = Callable[[Facts], Findings]
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
