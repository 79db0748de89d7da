"""`replica rules`: what the rules file wants, and what of it is there. Changes nothing."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from glance_replicas.errors import ConfigError
from glance_replicas.prefetch import planner, rules, rules_file
from glance_replicas.prefetch.policy import World
from glance_replicas.prefetch.rules import Rule

from ..command import OnHostLister
from ..output.cells import Text
from ..output.text import count

COLUMNS = ("Rule", "Images", "Wanted", "Present", "Missing")
IMAGE_COLUMNS = ("Rule", "Image", "Name", "Wanted", "Present", "Missing")


class Rules(OnHostLister):
    """Show what the rules file wants and what of it is there: a dry run.

    Each host's janitor asks for its share every five minutes. Wanted are copies; Present those on hosts that are to
    have them; Missing the others, also where there are not as many hosts as wanted. Exit status: 0 done, missing copies
    are no damage; 2 the file is wrong; 3 the databases cannot be asked.
    """

    example = "replica rules --images"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """A file and one option."""
        parser = super().get_parser(prog_name)
        parser.add_argument("file", nargs="?", metavar="FILE", help="this file instead of [replicas] rules_file")
        parser.add_argument("--images", action="store_true", help="one row for each image, with its hosts")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each rule, or for each rule and image."""
        file = parsed_args.file or self.settings.rules_file
        if not file:
            raise ConfigError("[replicas] rules_file is not set: name a file, such as etc/replica-rules.yaml")
        known = rules_file.read(file)
        world = planner.world(self.settings, self.catalogue, self.ledger)
        if not world.hosts:
            self.note("no host lives: every copy is missing; see: replica host")
        if "rules" not in self.settings.policies:
            self.note("[replicas] policies does not name rules: nobody on this host follows them")
        return (IMAGE_COLUMNS, _images(known, world)) if parsed_args.images else (COLUMNS, _sums(known, world))


def _images(known: Sequence[Rule], world: World) -> Iterator[tuple[Any, ...]]:
    for rule, image, share in rules.shares(known, world):
        lacking = share.wanted - len(share.present) - len(share.missing)
        missing = [*sorted(share.missing), *([count(lacking, "more host")] if lacking else [])]
        yield (
            *(rule.name, image.id, Text(image.name), share.wanted),
            *(Text(" ".join(sorted(share.present)) or None), Text(" ".join(missing) or None)),
        )


def _sums(known: Sequence[Rule], world: World) -> list[tuple[Any, ...]]:
    images: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    present: Counter[str] = Counter()
    for rule, _, share in rules.shares(known, world):
        images[rule.name] += 1
        wanted[rule.name] += share.wanted
        present[rule.name] += len(share.present)
    return [
        (name, images[name], wanted[name], present[name], wanted[name] - present[name])
        for name in (rule.name for rule in known)
    ]
