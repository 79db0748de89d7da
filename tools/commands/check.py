"""`replica check`: what in this host's configuration will bite, and what to do about it."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from glance_replicas import check

from ..command import DAMAGED, OnHostLister
from ..output.text import count

COLUMNS = ("Severity", "What", "Why", "Remedy")


class Check(OnHostLister):
    """Check this host's configuration.

    Changes nothing and reads no image. Run it on every host, as the user that runs Glance. Exit status: 0 nothing, or
    only information; 1 an error or a warning; 2 an option is wrong.
    """

    example = "replica check"

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        """One row for each finding, errors first."""
        from oslo_config import cfg

        from ..gather.facts import gather

        self._found = check.findings(gather(self.settings, cfg.CONF))
        if not check.is_clean(self._found):
            self.worsen(DAMAGED)
        return COLUMNS, [(str(finding.severity), finding.what, finding.why, finding.remedy) for finding in self._found]

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Iterable[Any]) -> int:
        """A paragraph for each finding; rows in other formats."""
        if not self.for_people(parsed_args):
            return int(super().produce_output(parsed_args, column_names, data) or 0)
        for finding in self._found:
            self.app.stdout.write(
                f"{finding.severity}: {finding.what}\n    why: {finding.why}\n    do:  {finding.remedy}\n"
            )
        numbers = [sum(finding.severity is severity for finding in self._found) for severity in check.Severity]
        sums = ", ".join(
            count(number, str(name)) for number, name in zip(numbers, check.Severity, strict=True) if number
        )
        self.app.stdout.write(f"host {self.settings.host_name}: {sums or 'nothing found'}\n")
        return 0
