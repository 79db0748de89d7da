"""What a host's configuration will lead to: facts in, findings out. Rules only, no I/O.

A rule is a function from `Facts` to findings, in the `RULES` of its subject's module; a new subject is a module that
is named in `SUBJECTS`.
"""

from collections.abc import Iterable

from . import databases, directory, hosts, pipeline, policies, readers, server, stock_cache, stores
from .facts import CacheProgram, EnabledStore, Facts
from .finding import Finding, Rule, Severity

__all__ = ["RULES", "CacheProgram", "EnabledStore", "Facts", "Finding", "Severity", "findings", "is_clean"]

SUBJECTS = (
    stores,
    readers,
    hosts,
    directory,
    pipeline,
    databases,
    policies,
    stock_cache,
    server,
)
RULES: tuple[Rule, ...] = tuple(rule for subject in SUBJECTS for rule in subject.RULES)


def findings(facts: Facts) -> list[Finding]:
    """Every finding of every rule, errors first."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def is_clean(found: Iterable[Finding]) -> bool:
    """Whether nothing worse than information was found."""
    return all(finding.severity is Severity.INFO for finding in found)
