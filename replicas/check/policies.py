"""The policies that ask for copies ahead of need."""

from .facts import Facts
from .finding import ERROR, Finding, Findings


def _policies(facts: Facts) -> Findings:
    for problem in facts.policy_problems:
        why = "it asks for no copies ahead of need; what was asked for before stays"
        yield Finding(ERROR, problem, why, "correct it; replica rules shows what it wants then")


RULES = (_policies,)
