"""The options of `replica prune` that say what is to go: one order in a run."""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from glance_replicas.errors import ConfigError, Refused
from glance_replicas.removal import causes
from glance_replicas.verdict import Verdict

from ..output.text import age
from . import values

if TYPE_CHECKING:  # slow to import, and not needed by --help
    from ...removal.removal_facts import Causes, RemovalFacts, RemovalOrder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them; they exclude each other."""
    add = parser.add_mutually_exclusive_group().add_argument
    states = [str(verdict) for verdict in causes.DAMAGED]
    text = "remove what is in this state; may be repeated (all three)"
    add("--state", action="append", choices=states, default=[], help=text)
    add("--cached", action="store_true", help="remove cached copies, whatever their state")
    add("--dead-hosts", action="store_true", help="remove cached copies of hosts that are dead, or unknown")
    add("--duplicates", action="store_true", help="remove all but the oldest of several locations that name one copy")
    text = "remove cached copies of an image beyond this number, the least used first"
    add("--keep-cached", type=values.positive, metavar="N", help=text)
    text = "remove cached copies that nobody read for this long, such as 14d (30d at most)"
    add("--unused", type=values.seconds, metavar="AGE", help=text)
    text = "remove cached copies of each host until this many bytes are left, the least used first: 500G"
    add("--quota", type=values.size, metavar="SIZE", help=text)


def from_arguments(parsed: argparse.Namespace, reasons: "RemovalFacts") -> "RemovalOrder":
    """The order given; without one what is damaged, or with --host the copies of that host.

    Raises ConfigError and Refused when it cannot be carried out as a whole.
    """
    from ...removal.removal_facts import RemovalOrder

    if (of_copies := _of_copies(parsed, reasons)) is not None:
        return RemovalOrder(of_copies, parsed.min_durable, reads_targets=False)
    if parsed.duplicates:
        return RemovalOrder(reasons.duplicates, parsed.min_durable)
    states = tuple(Verdict(state) for state in parsed.state) or causes.DAMAGED
    return RemovalOrder(partial(reasons.damaged, states=states), parsed.min_durable)


def _of_copies(parsed: argparse.Namespace, reasons: "RemovalFacts") -> "Causes | None":
    """What makes cached copies go for no fault of theirs; None: something else is meant."""
    if parsed.dead_hosts:
        if not reasons.living():
            raise Refused("the ledger knows no living host at all, so that none counts as dead; see: replica host")
        return reasons.dead
    if parsed.keep_cached:
        return partial(reasons.surplus, keep=parsed.keep_cached)
    if parsed.unused:
        _need_counts(reasons.known_seconds(), parsed.unused)
        return partial(reasons.unused, seconds=parsed.unused)
    if parsed.quota:
        return partial(reasons.over_quota, limit=parsed.quota)
    by_host = parsed.host and not (parsed.state or parsed.duplicates)
    return reasons.ordered if parsed.cached or by_host else None


def _need_counts(known_seconds: float, wanted: float) -> None:
    from ...removal.removal_facts import DAY, MOST_UNUSED_SECONDS

    if not DAY <= wanted <= MOST_UNUSED_SECONDS:
        raise ConfigError(f"--unused: between 1d and {MOST_UNUSED_SECONDS / DAY:.0f}d; use is counted by day")
    if known_seconds < wanted:
        raise Refused(
            f"use has been counted for {age(known_seconds)} only, so that it is not known what was unused for "
            f"{age(wanted)}; ask for less, or wait"
        )
